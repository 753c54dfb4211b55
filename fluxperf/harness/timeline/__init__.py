"""Timelines: the GPU work that really ran, as recorded by a profiler outside of the program."""
