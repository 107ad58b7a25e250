"""strongroom: a payments platform whose security proves itself."""

__version__ = "0.1.0"
