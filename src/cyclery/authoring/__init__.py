"""Tools for authors of methods, networks, datasets and papers, and generated documents."""
