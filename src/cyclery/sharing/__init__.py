"""Share a finished tier: ``publish`` freezes it and DVC carries it; ``fetch`` brings it back.

DVC owns the two ends, Snakemake all between. Neither is imported: both are run as commands.
"""
