"""Cyclery: cyclical training and nineteen related papers, reproduced and judged."""

import os

__version__ = "0.1.0"

# A product of matrices must not depend on where in memory they lie, or a run's bits would depend on
# its place among others. Read by the library once, so said before torch is imported.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
