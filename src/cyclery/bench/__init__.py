"""The engine's speed against training loops written by hand: `cyclery bench`."""
