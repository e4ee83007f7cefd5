"""Benchmark the engine against hand-written training loops: ``cyclery bench``."""
