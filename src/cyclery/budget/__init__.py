"""Evidence on a budget: seeds go where they decide claims, the command ``cyclery decide``."""
