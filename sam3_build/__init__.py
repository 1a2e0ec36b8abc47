"""Builds Segment Anything engines from a manifest, and runs them: see README.md."""

__version__ = "0.1.0"
