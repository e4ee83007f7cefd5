"""Runs, curves and verdicts for other tools: the command ``cyclery export``."""
