"""Measures strongroom against what the machine under it can do.

Run it with `make bench` or `python -m bench`; what the rows mean stands in `docs/internals/bench.md`.
"""
