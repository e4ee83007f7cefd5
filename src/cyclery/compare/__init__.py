"""Two sets of results beside each other: the command ``cyclery compare``."""
