"""The package, and a first look at the main file, before anything else.

Needs: config/config.yaml. Makes: one message where that is not YAML, since Snakemake itself, which
reads the file next, would show a traceback.
"""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    from cyclery.config.load import load, load_config
    from cyclery.common.errors import UserError
    from cyclery.sharing.arrival import install_pulled
    from cyclery.plan.atlas import Atlas
    from cyclery.plan.snakemake_api import Graph, prefer_this_python, table_labels
except ModuleNotFoundError as missing:
    raise WorkflowError(
        f"{missing}. Snakemake must run in an environment that has the package cyclery: "
        "`make reproduce` sets one up, or `pip install -e .` adds it to this one."
    )

prefer_this_python()

try:
    load_config(Path.cwd())
except UserError as mistake:
    print(f"cyclery: {mistake}", file=sys.stderr)
    sys.exit(2)
