"""Checkpoints and resume points as safetensors; nothing is ever unpickled."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cyclery.common.errors import UserError
from cyclery.common.files import require_regular, write_atomic
from cyclery.common.seals import file_sha256
from cyclery.engine.machine import versions
from cyclery.engine.teachers import Trained
from cyclery.records.record import Inputs, Job, ParentInput
from cyclery.records.run_store import Store

if TYPE_CHECKING:
    from cyclery.engine.run import Run

log = logging.getLogger(__name__)


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write named weights; the same weights give the same bytes."""
    write_atomic(path, safetensors.torch.save(weights))


def load_weights(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """Read named weights; a UserError where the file is missing, foreign, cut or altered."""
    try:
        if digest is not None and file_sha256(path) != digest:
            raise UserError(
                f"{path}: the checkpoint is not the one that its record describes; delete its "
                "folder to train it again"
            )
        require_regular(path)
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: the checkpoint is missing; train its run again") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: not a complete safetensors file ({error}); delete its folder to train it "
            "again"
        ) from None


def trained(store: Store, member: ParentInput) -> Trained:
    """Return a finished run of the store as its children take it."""
    record = store.read(member["key"])
    assert record is not None and record["kind"] == "run", "it was read a moment ago"
    weights = load_weights(store.checkpoint(member["key"]), member["sha256"])
    counts = record["final"]["train_class_count"]
    assert isinstance(counts, list), "one for each class"
    return Trained(record["settings"], weights, len(counts))


def trained_parents(store: Store, inputs: Inputs) -> dict[str, list[Trained]]:
    """Return the parents of a run, by what it calls them."""
    return {
        name: [trained(store, member) for member in members]
        for name, members in inputs["parents"].items()
    }


@dataclass(frozen=True)
class ResumePoint:
    """The state of a run between two epochs, and how it was reached."""

    state: dict[str, Tensor]
    epoch: int
    curve: dict[str, list[float]]
    seconds: float


def stamped(job: Job, inputs: Inputs, device: torch.device) -> str:
    """Return what a state is made from and by; a resume point of anything else is not used."""
    made = [job["key"], inputs, device.type, versions()["torch"]]
    return sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def save_state(run: Run, path: Path, stamp: str, seconds: float) -> None:
    """Write a resume point. ``stamp`` identifies the run and its inputs."""
    state = run.state()
    head = {
        "stamp": stamp,
        "epoch": str(run.epoch),
        "curve": json.dumps(run.curve),
        "seconds": str(seconds),
    }
    head["sha256"] = _digest(state, head)
    write_atomic(path, safetensors.torch.save(state, metadata=head))


def keep_state(run: Run, path: Path, stamp: str, seconds: float, needed: bool, label: str) -> None:
    """Do `save_state`; where it cannot be written, training goes on unless it is ``needed``."""
    try:
        save_state(run, path, stamp, seconds)
    except UserError as error:
        # Only time can be lost by going on; the last one that was saved stays.
        if needed:
            raise
        log.warning("%s: no resume point was saved (%s); training goes on", label, error.__cause__)


def read_state(path: Path, stamp: str, store: Store) -> ResumePoint | None:
    """Return the resume point at ``path`` if there is one that fits.

    One that was cut or altered is set aside: the run starts afresh and ends with the same numbers.
    """
    if not path.exists():
        return None
    try:
        require_regular(path)
        with safe_open(path, "pt") as stream:
            head = stream.metadata() or {}
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        if head.pop("sha256") != _digest(state, head):
            raise ValueError("its content does not match its digest")
        if head["stamp"] != stamp:
            log.info("%s: made from other inputs; starting afresh", path)
            return None
        return ResumePoint(
            state, int(head["epoch"]), json.loads(head["curve"]), float(head["seconds"])
        )
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        store.set_aside(path, f"the resume point cannot be used ({error})")
        return None


def _digest(state: dict[str, Tensor], head: dict[str, str]) -> str:
    total = sha256(json.dumps(head, sort_keys=True).encode())
    for name, value in sorted(state.items()):
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
