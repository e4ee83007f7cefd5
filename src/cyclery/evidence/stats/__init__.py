"""Statistics of paired samples, tested against independent implementations."""
