"""Cyclery: cyclical training and nineteen related papers, reproduced and judged."""

__version__ = "0.1.0"
