"""Datasets: registry, download, preparation, verification and splits."""
