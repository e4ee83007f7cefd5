"""Compare two sets of results: the command ``cyclery compare``."""
