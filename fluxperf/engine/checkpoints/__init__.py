"""Weights from files or from a seed, placed on a device in the layout that a phase needs."""
