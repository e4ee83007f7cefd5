"""Measure with nothing but numpy, torch and safetensors installed: ``python -m cyclery.bench``."""

from __future__ import annotations

import argparse
import logging
import sys

from cyclery.bench.command import arguments, bench
from cyclery.common.errors import UserError


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m cyclery.bench", description=__doc__)
    arguments(parser)
    logging.basicConfig(level=logging.INFO, format="cyclery: %(message)s")
    try:
        return bench(parser.parse_args())
    except UserError as error:
        print(f"cyclery: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
