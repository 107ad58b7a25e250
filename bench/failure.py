"""What stops a measurement."""

from __future__ import annotations


class BenchError(Exception):
    """A figure can't be trusted or taken; the message says what to do. Nothing is reported in its place."""
