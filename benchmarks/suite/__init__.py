"""The asv suite: ops, blocks, model, copies and start-up of every rung, over commits. docs/asv.md explains."""
