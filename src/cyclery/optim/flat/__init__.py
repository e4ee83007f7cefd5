"""All parameters as one vector, and what every optimiser does with it."""
