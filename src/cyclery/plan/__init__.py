"""Expand configuration into the static graph: arms, cells, shards, jobs and their cost."""
