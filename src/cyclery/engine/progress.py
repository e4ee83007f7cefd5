"""Progress of a job in its log: a line every few seconds, or a bar on a terminal."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cyclery.common.formatting import duration
from cyclery.records.record import Job, Record

if TYPE_CHECKING:
    from cyclery.engine.run import Run

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """Reports the progress of a list of jobs and the estimated time left.

    With ``bar`` it is a moving bar on standard error; where rich is not installed, lines serve.
    """

    total: int
    images: int
    every: float
    bar: bool = False
    _done: int = 0
    _images: int = 0
    _diverged: int = 0
    _failed: int = 0
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _shown: Any = None

    def __enter__(self) -> Progress:
        """Show the bar, if there is one."""
        self._shown = _bar(self.total) if self.bar else None
        if self._shown is not None:
            self._shown.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        if self._shown is not None:
            self._shown.stop()

    def done(self, job: Job, record: Record) -> None:
        """Count a finished job, and report every few seconds and at the end."""
        self._diverged += record["status"] == "diverged"
        self._over(job)

    def failed(self, job: Job) -> None:
        """Count a job that failed."""
        self._failed += 1
        self._over(job)

    def _over(self, job: Job) -> None:
        self._done += 1
        self._images += job["images"]
        now = time.monotonic()
        left = (now - self._began) * (self.images - self._images) / max(self._images, 1)
        last = self._done == self.total
        if self._shown is not None:
            task = self._shown.task_ids[0]
            self._shown.update(task, completed=self._done, left=duration(left), refresh=True)
        elif not last and now - self._said < self.every:
            return
        self._said = now
        beside = [f"{n} {word}" for n, word in ((self._diverged, "diverged"),
                                               (self._failed, "failed")) if n]  # fmt: skip
        log.log(
            logging.INFO if last or self._shown is None else logging.DEBUG,
            "%d of %d runs trained%s, %.0f images/s, about %s left",
            self._done - self._failed,
            self.total,
            f" ({', '.join(beside)})" if beside else "",
            self._images / max(now - self._began, 1e-9),
            duration(left),
        )


def epoch_line(job: Job, run: Run, seconds: float) -> str:
    """Say how far a run is, ``seconds`` after its start."""
    curve, epochs = run.curve, run.settings["epochs"]
    rate = run.images / max(seconds, 1e-9)
    evaluated = ""
    if curve["eval_epoch"] and curve["eval_epoch"][-1] == run.epoch and "val_accuracy" in curve:
        evaluated = f", validation {100 * curve['val_accuracy'][-1]:.2f} %"
    left = duration(seconds * (epochs - run.epoch) / run.epoch)
    return (
        f"{job['label']}: epoch {run.epoch}/{epochs}, loss {curve['train_loss'][-1]:.4f}"
        f"{evaluated}, {rate:.0f} images/s, about {left} left"
    )


def _bar(total: int) -> Any:
    """Return a bar for ``total`` runs that is not yet shown, or None where rich is missing."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        return None
    shown = progress.Progress(
        progress.TextColumn("training"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("about {task.fields[left]} left"),
        console=Console(stderr=True),
        transient=True,
        # No thread of its own: one that writes while workers are forked could leave them waiting.
        auto_refresh=False,
    )
    shown.add_task("training", total=total, left="?")
    return shown
