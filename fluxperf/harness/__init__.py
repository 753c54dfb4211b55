"""Measuring, records, comparison and report. Imports nothing of the engine: it serves any GPU program."""
