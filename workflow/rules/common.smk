"""Helpers of all rules.

Needs: config/ (validated here, before any job). Makes: PLAN, and the paths and parameters that
rules ask it for. The package does the thinking; a rule is paths, parameters, resources and one
command line.
"""

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    from cyclery.workflow import Graph
except ModuleNotFoundError as missing:
    raise WorkflowError(
        f"{missing}. Snakemake must run in an environment that has the package cyclery: "
        "`make reproduce` sets one up, or `pip install -e .` adds it to this one."
    )

# Jobs find this environment's Python even where it is not activated; conda's comes before it.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

PLAN = Graph.load(Path(workflow.basedir), config)
RESULTS = PLAN.results
CYCLERY = f"python -m cyclery {PLAN.overrides}"


def evidence(part):
    """What says of a part whether its claims held."""
    return f"{RESULTS}/evidence/{part}.json"
