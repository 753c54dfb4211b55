"""Timelines: what really ran on a GPU, seen from outside of the program."""
