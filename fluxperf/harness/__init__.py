"""Measuring, records, comparison and report. Imports nothing of the engine, so it works for any GPU program."""
