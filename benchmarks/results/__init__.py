"""Results as README and docs show them, drawn from one folder of evidence and from nothing else."""
