#!/usr/bin/env bash
# Installs this checkout into the new environment, so that a job finds the package with PYTHONPATH
# unset. Snakemake runs a copy of this script from .snakemake/conda, in its own working directory:
# the checkout is the first folder above either of the two that holds our pyproject.toml.
set -euo pipefail

checkout() {
  local folder
  for folder in "$PWD" "$(cd "$(dirname "$0")" && pwd)"; do
    while [[ $folder != / ]]; do
      if grep --quiet --no-messages '^name = "cyclery"$' "$folder/pyproject.toml"; then
        echo "$folder"
        return
      fi
      folder=$(dirname "$folder")
    done
  done
  echo "No checkout of cyclery above $PWD: run snakemake inside it." >&2
  return 1
}

root=$(checkout)
python -m pip install --no-deps --no-build-isolation --editable "$root"

python - << 'CHECK'
import sys

import torch

if sys.platform == "linux" and torch.version.cuda is None:
    sys.exit(
        f"torch {torch.__version__} is a CPU build, but this environment is for GPUs: look for a "
        "setting that sends pip to another package index."
    )
CHECK
