"""GPU slots shared by the jobs of one user on one machine, as locked files.

Snakemake counts GPUs but does not say which one a job gets. So each job takes a slot of a pool here
and trains on that slot's GPU. Slots are `flock`s: the system frees them when their process ends,
however it ends. A forked child would keep its parent's slot, so they are for jobs that fork
nothing while they hold one: training on a GPU, unlike training on a CPU, does not.
Nothing here imports torch or starts CUDA.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from cyclery.common.errors import UserError
from cyclery.common.files import Busy, disk_errors, lock

log = logging.getLogger(__name__)

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible(
    configured: Sequence[int] | None, environment: Mapping[str, str], count: Callable[[], int]
) -> dict[int, str]:
    """Return the GPUs that a job may use: torch's number in this process, and the GPU's own name.

    The name is the machine's number of the GPU ("2"), or its UUID where CUDA_VISIBLE_DEVICES gives
    UUIDs; torch counts the entries of that variable from 0, and so does the key.

    Args:
        configured: the machine's numbers of the GPUs to use; None for all.
        environment: the environment, of which CUDA_VISIBLE_DEVICES counts as it does for CUDA.
        count: how many GPUs torch finds, such as ``torch.cuda.device_count``.

    Raises:
        UserError: no GPU is left; it names what was requested and what there is.
    """
    mask, there = environment.get(_VARIABLE), count()
    names = [str(number) for number in range(there)] if mask is None else _entries(mask)[:there]
    found = dict(enumerate(names))
    if configured is not None:
        wanted = {str(number) for number in configured}
        found = {index: name for index, name in found.items() if name in wanted}
    if found:
        return found
    limits = f"torch finds {_times(there, 'GPU')}"
    if mask is not None:
        limits += f", {_VARIABLE} is {mask!r}"
    if configured is None:
        raise UserError(f"no GPU to train on: {limits}. Train on the CPU, or make a GPU visible.")
    raise UserError(
        f"gpus: {list(configured)} is not there; there is {', '.join(names) or 'none'} ({limits}). "
        "Name some of these by the machine's numbers, or leave `gpus` out to use them all."
    )


def _entries(mask: str) -> list[str]:
    """Return the entries of CUDA_VISIBLE_DEVICES that CUDA takes: up to the first wrong one.

    Numbers and UUIDs do not mix, and an entry that comes twice leaves no GPU at all.
    """
    entries: list[str] = []
    prefix = next((kind for kind in ("GPU-", "MIG-") if mask.startswith(kind)), None)
    for text in mask.split(","):
        if prefix is None:
            number = re.match(r"\s*\+?(\d+)", text)
            if number is None:
                break
            text = str(int(number[1]))
        elif not text.startswith(prefix):
            break
        if text in entries:
            return []
        entries.append(text)
    return entries


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of this user's slots on this machine, made where there is none.

    A SLURM job has one of its own: SLURM has given it its GPUs already, and where it hides the
    others, every job's first GPU has the number 0. Raises a UserError where the folder belongs to
    somebody else, can be written by others, or is no folder.
    """
    parts = ["cyclery-gpus", str(os.getuid()), platform.node(), environment.get("SLURM_JOB_ID")]
    path = Path(tempfile.gettempdir()) / _plain("-".join(part for part in parts if part))
    with disk_errors(path), suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
        return path
    raise UserError(
        f"{path} must be a folder that only you can write to, for the locks of GPUs. Remove it, "
        "or set TMPDIR to another folder."
    )


def _plain(text: str) -> str:
    """Return a text as one file name."""
    return re.sub(r"[^\w.-]", "_", text)


def _times(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


class Pool:
    """Slots for ``per_device`` jobs at once on each of ``devices``, which `visible` gives.

    Their files bear the GPUs' names, so processes that number the GPUs differently agree.
    """

    def __init__(self, devices: Mapping[int, str], per_device: int, folder: Path) -> None:
        # Slot 0 of every device comes before slot 1 of any, so jobs spread over the devices.
        self._slots = [
            (index, folder / f"{_plain(name)}.{slot}.lock")
            for slot in range(per_device)
            for index, name in devices.items()
        ]
        self._size = f"{_times(len(devices), 'GPU')} x {_times(per_device, 'job')}"

    @contextmanager
    def acquire(self, pause: Callable[[], None] = lambda: None, poll: float = 0.2) -> Iterator[int]:
        """Hold a slot, waiting for one where all are taken; give torch's number of its device.

        Waiting processes poll every ``poll`` seconds and do not queue. ``pause`` is called between
        two polls; what it raises ends the waiting.
        """
        with ExitStack() as held:
            index = self._take(held)
            if index is None:
                taken = "is" if len(self._slots) == 1 else "are"
                log.info("waiting for a free GPU: %s %s taken", self._size, taken)
            while index is None:
                pause()
                time.sleep(poll)
                index = self._take(held)
            yield index

    def _take(self, held: ExitStack) -> int | None:
        """Lock the first free slot until ``held`` closes; None where there is none."""
        for index, path in self._slots:
            with suppress(Busy):
                held.enter_context(lock(path, wait=False))
                return index
        return None
