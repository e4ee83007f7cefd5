"""From configuration to the static graph: arms, cells, shards, their jobs and their cost."""
