"""The command ``cyclery status``: tables of runs and jobs, once or refreshed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cyclery.common.formatting import duration

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from cyclery.plan.run_list import RunList

Json = dict[str, Any]
WATCH_SECONDS = 5.0
# Jobs that are listed; more would push the totals off the screen.
LISTED = 30
BAR = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("part", nargs="*", help="paper, paper.experiment or paper.claim")
    parser.add_argument("--json", action="store_true", help="print the state as JSON")
    parser.add_argument(
        "--watch", nargs="?", type=_seconds, const=WATCH_SECONDS, metavar="SECONDS",
        help=f"refresh every so many seconds (default {WATCH_SECONDS:g}) until all is done",
    )  # fmt: skip


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be 0.1 to 86400 seconds (found {text})")
    return value


def status(options: argparse.Namespace, listed: RunList) -> None:
    """Print the state of the parts; with ``--watch`` until nothing is left or Ctrl-C."""
    # Every other command adds these options too, and should not wait for the plan's modules.
    from cyclery.monitor.snapshot import Watcher, finished

    watcher = Watcher(options.root, listed)
    found = watcher.read()
    if options.watch is None:
        _print(found, options.json)
        return
    from rich.console import Console
    from rich.live import Live

    console = Console()
    try:
        if options.json or not console.is_terminal:
            _print(found, options.json)
            while not finished(found):
                time.sleep(options.watch)
                found = watcher.read()
                _print(found, options.json)
            return
        with Live(view(found), console=console, auto_refresh=False) as live:
            while not finished(found):
                time.sleep(options.watch)
                found = watcher.read()
                live.update(view(found), refresh=True)
    except KeyboardInterrupt:
        return


def _print(found: Json, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found), flush=True)
        return
    from rich.console import Console

    Console().print(view(found))


def view(found: Json) -> Group:
    """Return the tables and sentences of a state."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from cyclery.monitor.snapshot import STATES

    parts = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    parts.add_column("part", overflow="fold")
    parts.add_column("")
    for name in ("runs", *STATES):
        parts.add_column(name, justify="right", no_wrap=True)
    for row in found["parts"]:
        if row["part"] == "all":
            parts.add_section()
        counts = (row[state] for state in STATES)
        parts.add_row(
            row["part"], _bar(row["share"]), str(row["runs"]),
            *(str(count) if count else "-" for count in counts),
        )  # fmt: skip
    shown: list[Any] = [Text(f"tier {found['tier']}, {_clock(found['time'])}"), parts]
    order = {"failed": 0, "lost": 1, "running": 2}
    jobs = sorted(found["jobs"], key=lambda job: (order[job["state"]], job["job"]))
    width = max((len(job["job"]) for job in jobs[:LISTED]), default=0)
    for job in jobs[:LISTED]:
        total, left = job["images_total"], job["left"]
        shown.append(_plain(
            f"{job['job']:<{width}}  {_bar(job['images'] / total if total else 0.0)}  "
            f"{job['done']}/{job['total']} runs, {job['images_per_second']:.0f} images/s"
            + (f", {duration(left)} left" if left and job["state"] == "running" else "")
        ))  # fmt: skip
        shown.append(_plain(f"  {_host(job)}: {_state(job)}"))
    if len(jobs) > LISTED:
        shown.append(Text(f"and {len(jobs) - LISTED} more jobs; --json has all"))
    if jobs:
        shown.append(Text(""))
    shown.append(Text(_summary(found)))
    return Group(*shown)


def _bar(share: float) -> str:
    """Return a bar and the percentage, rounded down: 100 % is all of it."""
    share = min(max(share, 0.0), 1.0)
    full, empty = "\u2588\u2591" if "utf" in (sys.stdout.encoding or "").lower() else "#."
    long = int(BAR * share)
    return f"{full * long}{empty * (BAR - long)} {int(100 * share):3d}%"


def _plain(text: str) -> Text:
    """Return a text out of a file without what a terminal or rich would obey."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else "?" for c in text)[:300])


def _host(job: Json) -> str:
    slurm = f", SLURM {job['slurm_job']}" if job["slurm_job"] else ""
    return f"{job['host']}{slurm}"


def _state(job: Json) -> str:
    """Say in words what a job does or why it does not."""
    if job["state"] == "failed":
        text = f"failed: {job['error']}"
    elif job["state"] == "lost":
        text = f"no update since {_clock(job['time'])} ({duration(job['age'])} ago)"
        if not job["time"]:
            text = f"no update for {duration(job['age'])}; {job['error']}"
    elif job["error"]:
        text = job["error"]
    elif job["ahead"] is not None:
        text = f"running, but the clocks differ: its file is {duration(job['ahead'])} ahead"
    else:
        text = "; ".join(map(_run, job["running"][:2])) or "starting"
        more = len(job["running"]) - 2
        text += f" and {more} more" if more > 0 else ""
    return text if job.get("planned", True) else f"{text} (not in this plan)"


def _run(run: Json) -> str:
    label, epochs = str(run.get("label")), run.get("epochs")
    if isinstance(epochs, int) and epochs > 0:
        return f"{label}: epoch {round(run['share'] * epochs)}/{epochs}"
    return label


def _clock(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"


def _summary(found: Json) -> str:
    from cyclery.monitor.snapshot import finished

    whole = found["parts"][-1]
    if finished(found):
        return f"All {whole['runs']} runs are done."
    if found["finish"] is None:
        waiting = any(job["state"] == "running" for job in found["jobs"])
        return (
            "The first runs have just begun."
            if waiting
            else ("No job runs. `cyclery plan` estimates what is left.")
        )
    return (
        f"{found['images_per_second']:.0f} images/s now: about {duration(found['left'])} left, "
        f"until {_clock(found['finish'])}, if as much goes on at once."
    )
