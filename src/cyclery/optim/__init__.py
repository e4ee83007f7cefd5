"""Optimisers that update all parameters as one vector, and their settings."""
