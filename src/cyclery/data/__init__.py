"""Datasets: what there is, how it is fetched, prepared, checked and split."""
