"""Results in README and docs, generated from one folder of evidence and from nothing else."""
