"""Publish a finished tier with DVC, and fetch it into another checkout.

DVC owns the two ends, Snakemake all between. Neither is imported: both are run as commands.
"""
