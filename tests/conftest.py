"""How the suite is run: by how many workers, which files first, and how long a test may take."""

from __future__ import annotations

import os
import signal
import sys

import pytest

# The suite starts hundreds of Pythons, which need not compile the same modules again each time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Workers of pytest-xdist share the cores, so each computes in one thread, and so does what it
# starts. Said before anything imports numpy or torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

from hypothesis import settings  # noqa: E402

# A worker takes whole files, so that what a file sets up is made once. These take longest, so they
# come first: a long file at the end would keep one worker busy while the others have nothing left.
FIRST = (
    "test_slurm.py",
    "test_workflow.py",
    "test_faults_snakemake.py",
    "test_publish.py",
    "test_publish_s3.py",
    "test_plain_pull.py",
    "test_writing_a_method.py",
    "test_page.py",
    "test_report.py",
    "test_latex.py",
)
# Seconds that a test marked `slow` may take; for the others, see `timeout` in pyproject.toml.
SLOW = 1200

# How busy the machine is must not decide whether a property holds.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure() -> None:
    """Let tests send Ctrl-C to what they start, wherever they run themselves.

    `nohup` and `&` in a script start them with SIGINT ignored, which children inherit: they would
    never stop.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Return the workers of ``-n auto``: one more than cores, since some of them only wait.

    There are few long files, so that more than eight would have nothing to do.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return min(cores + 1, 8)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW))
    if hasattr(config, "workerinput"):
        order = {name: number for number, name in enumerate(FIRST)}
        items.sort(key=lambda item: order.get(item.path.name, len(FIRST)))
