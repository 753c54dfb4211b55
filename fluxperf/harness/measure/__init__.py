"""Measuring: the environment of a run, and its times."""
