"""Typed configuration: models, loading, resolution of layers, and JSON Schemas."""
