"""Pull a published tier and install it, so that Snakemake finds nothing to do.

Everything is extracted to a temporary folder and validated first. It is installed in an order that
leaves a consistent state if killed: run store, Snakemake's metadata, and outputs from upstream.
A file of this project that differs is kept in ``results/set-aside``.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclery.common.errors import UserError
from cyclery.common.files import lock
from cyclery.sharing import arrival, index, state
from cyclery.sharing.contents import Contents
from cyclery.sharing.delivery import Delivery, examined
from cyclery.sharing.dvc import Dvc

log = logging.getLogger(__name__)
# The rules that make of records, in seconds, what is not published.
JUDGED = ("evidence", "render")


def fetch(root: Path, overrides: Mapping[str, Any], remote_name: str | None = None) -> None:
    """Pull the configured tier; fill the run store and install outputs.

    The same command completes one that was killed.

    Raises:
        UserError: nothing is published of the tier, DVC failed, or what it brought is damaged; then
            nothing of this project was changed.
    """
    from cyclery.config.load import load

    tier = load(root, overrides).config.tier
    home = index.Home(root, tier)
    found = index.read(home)
    contents = Contents(index.published_plan(root, overrides, found))
    dvc = Dvc(root)
    dvc.require(tier)
    remote = dvc.remote(remote_name)
    state.refuse_locked(root)
    with lock(root / ".dvc" / "tmp" / "cyclery.lock"):
        dvc.pull([*home.targets(sorted(found.datasets)), *dvc.frozen_atlas()], remote)
        with examined(home, found, contents) as delivery:
            arrival.install(contents, delivery, found)
    _say(contents, found, delivery)


def _say(contents: Contents, found: index.Index, delivery: Delivery) -> None:
    tier, project = contents.plan.tier, contents.plan.project
    log.info("tier %s: papers: %d, runs: %d, checkpoints: %d",
             tier, len(found.papers), len(delivery.records), len(delivery.weights))  # fmt: skip
    if found.allocation:
        log.info("seeds of single arms are those published, as `cyclery decide` had chosen them")
    arguments = ["snakemake", "--cores", "all", "report", *state.selection(project.overrides)]
    command = shlex.join(arguments)
    try:
        left = state.to_do(project.root, project.overrides, ["report"])
    except UserError as error:
        log.warning("the graph could not be asked what is left: %s", error)
        return
    made_anew = {rule: left.pop(rule) for rule in JUDGED if rule in left}
    if left:
        log.info("since it was published, configuration or code changed: %s to do: %s",
                 state.told(left), command)  # fmt: skip
    elif made_anew:
        log.info("nothing to train; evidence and report are made in minutes: %s", command)
    else:
        log.info("nothing to be done: %s", command)
