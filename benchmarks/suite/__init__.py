"""The asv suite: ops, blocks, model, copies and start-up of every rung, over commits. See docs/asv.md."""
