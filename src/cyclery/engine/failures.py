"""Isolate and report failed runs: the other runs of the job go on."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cyclery.common.errors import UserError
from cyclery.common.signals import Stopped
from cyclery.records.record import Job

# Of an error's own text; more is in the log.
LETTERS = 300
# Runs that a message names.
NAMED = 5


@dataclass(frozen=True)
class Failure:
    """Why a run failed, in a line, and all of it as a traceback."""

    key: str
    label: str
    text: str
    details: str


class Diverged(Exception):
    """A loss, a logged scalar or the output of a run stopped being finite."""

    def __init__(self, update: int) -> None:
        super().__init__(f"not finite at update {update}")
        self.update = update


class RunFailed(Exception):
    """An error that ends one run and does not concern the others."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.label}: {failure.text}")
        self.failure = failure


@contextlib.contextmanager
def naming(job: Job) -> Iterator[None]:
    """Turn any error in a run's own computations into a RunFailed that names the run."""
    try:
        yield
    except (Stopped, Diverged, RunFailed):
        raise
    except Exception as error:
        # What a user can mend says all in its message.
        known = isinstance(error, UserError)
        details = "" if known else "".join(traceback.format_exception(error))
        raise RunFailed(Failure(job["key"], job["label"], _text(job, error), details)) from error


def waits_for(job: Job, failed: str) -> Failure:
    """Return the failure of a run that depends on one which failed."""
    return Failure(job["key"], job["label"], f"not trained, for it needs {failed}", "")


def _text(job: Job, error: Exception) -> str:
    first = f"{error}".strip().partition("\n")[0][:LETTERS]
    if isinstance(error, UserError):
        # The summary begins with the name of the run, as some of these messages do.
        return first.removeprefix(f"{job['label']}: ")
    if first.startswith("Expected more than 1 value per channel when training"):
        return (
            "batch: batch norm was given a single sample, which it cannot normalise; raise `batch` "
            "to 2 or more, or choose a network without batch norm."
        )
    if job["settings"].get("compile") and _by_compiler(error):
        return (
            f"compile is true, but torch.compile failed: {first} Mend that (it needs Triton and a "
            "C compiler), or set `compile: false`."
        )
    return f"{type(error).__name__}{': ' if first else ''}{first} ({_place(error)})"


def _by_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)


def _place(error: Exception) -> str:
    """Return the innermost line outside of libraries, which its author can change."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f"{own[-1].filename}:{own[-1].lineno}"


def summary(failures: Sequence[Failure], runs: int) -> str:
    """Return the message at a job's end about those of its ``runs`` that failed."""
    # Seeds of an arm mostly fail alike.
    alike: dict[str, list[str]] = {}
    for failure in failures:
        alike.setdefault(failure.text, []).append(failure.label)
    lines = [f"{_names(labels)}: {text}" for text, labels in alike.items()]
    more = len(lines) - NAMED
    if more > 0:
        lines = [*lines[:NAMED], f"and {more} other errors"]
    if runs == 1:
        head, *lines = lines
    else:
        head = f"{len(failures)} of {runs} runs failed, the others are kept:"
    if any(failure.details for failure in failures):
        lines.append("The tracebacks are in the job's log (by hand: `--log FILE`).")
    if runs > 1:
        lines.append("Mend this and repeat the command: only what failed is trained.")
    return "\n".join([head, *lines])


def _names(labels: Sequence[str]) -> str:
    more = len(labels) - NAMED
    return ", ".join(labels[:NAMED]) + (f" and {more} more" if more > 0 else "")
