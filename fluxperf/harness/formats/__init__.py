"""Formats of a verdict, a small exporter each: JSON, JUnit XML, SARIF, Markdown, GitHub's summary and annotations.

Names and messages may come from any file: every exporter escapes them for its format.
"""
