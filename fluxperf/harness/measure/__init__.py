"""Measuring: where a run happened, and how long it took."""
