"""Renderings of a verdict, one small exporter each: JSON, JUnit XML, SARIF, Markdown, GitHub's summary and annotations.

Names and messages may come from anywhere: every exporter escapes them for its format.
"""
