"""Cells of benchmark tables: figures in the unit of their table, rounded by their spread."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10, sqrt

from scipy import special

from cyclery.records.evidence import PrintedFigure
from cyclery.report.benchmark_join import Ours, Printed
from cyclery.report.model import letter, number, readable
from cyclery.report.rounding import OTHER, decimals
from cyclery.report.view_types import GridCell


@dataclass(frozen=True)
class Figure:
    """A figure as its table shows it."""

    mean: float
    digits: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    units: int | None = None
    """Independent ones, of which mean and spread are, where they are fewer."""
    source: str = ""

    @property
    def interval(self) -> str:
        """The 95 % interval in brackets, or nothing."""
        if self.low is None or self.high is None:
            return ""
        return f"[{number(self.low, self.digits)}, {number(self.high, self.digits)}]"


@dataclass(frozen=True)
class Entry:
    """A cell with the figure that it shows, if it shows one."""

    cell: GridCell
    figure: Figure | None = None


class Notes:
    """Notes under a table with their keys, each text once."""

    def __init__(self) -> None:
        self._keys: dict[str, str] = {}

    def key(self, text: str) -> str:
        """Return the key of a note."""
        return self._keys.setdefault(text, letter(len(self._keys)).lower())

    def texts(self) -> list[str]:
        """Return the notes in the order in which their keys were given."""
        return [f"{key}: {text}" for text, key in self._keys.items()]


def digits(spread: float | None, shows: str, value: float) -> int:
    """Return the decimals that two significant digits of the spread need.

    Without a spread two for per cents, and of others what four significant digits need.
    """
    if spread or shows != "value" or not value:
        return decimals(spread, percent=shows != "value")
    return min(max(3 - floor(log10(abs(value))), OTHER[0]), OTHER[1])


def of_ours(ours: Ours) -> Figure:
    """Return a figure of ours in the unit of its table; an error's interval is turned round."""
    metric, shows = ours.metric, ours.cell["shows"]
    mean, sd = metric["mean"], metric["sd"]
    low, high = metric["ci95"] or (None, None)
    if shows != "value":
        mean, sd = 100 * mean, None if sd is None else 100 * sd
        low, high = (None if end is None else 100 * end for end in (low, high))
    if shows == "error":
        mean = 100 - mean
        low, high = (None if end is None else 100 - end for end in (high, low))
    source = "/".join(filter(None, ours.source))
    n, units = len(metric["values"]), ours.arm["units"]
    return Figure(mean, digits(sd, shows, mean), sd, low, high, n, units, source)


def converted(printed: Printed) -> bool:
    """Tell whether a printed figure is an accuracy where the table shows errors, or the reverse."""
    said, shows = (printed.figure["metric"] or "").lower(), printed.cell["shows"]
    if shows == "value":
        return False
    is_error = "error" in said
    return is_error != (shows == "error") if is_error or "accuracy" in said else False


def of_printed(printed: Printed, spread: bool) -> Figure | None:
    """Return a printed figure with its own decimals; None where it is not read."""
    figure = printed.figure
    value, places = figure["value"], figure["decimals"]
    if value is None:
        return None
    runs = int(figure["runs"]) if figure["runs"] is not None else None
    mean = round(100 - value, places) if converted(printed) else value
    recalled = "from memory" if figure.get("confidence") == "memory" else None
    source = ", ".join(filter(None, (figure.get("source"), recalled)))
    return Figure(mean, places, figure["std"] if spread else None, n=runs, source=source)


def difference(ours: Figure, printed: Figure) -> Figure:
    """Return ours minus printed, with Welch's 95 % interval where both spreads are known."""
    mean = ours.mean - printed.mean
    plain = Figure(mean, ours.digits)
    both = [(one.sd, one.units or one.n or 0) for one in (ours, printed)]
    if any(sd is None or n < 2 for sd, n in both):
        return plain
    parts = [((sd or 0.0) ** 2 / n, n) for sd, n in both]
    squares = sum(part for part, _ in parts)
    if not squares:
        return plain
    df = squares**2 / sum(part**2 / (n - 1) for part, n in parts)
    half = float(special.stdtrit(df, 0.975)) * sqrt(squares)
    return Figure(mean, ours.digits, None, mean - half, mean + half)


def cell(text: str = "", title: str = "", note: str = "") -> GridCell:
    """Return a cell without a figure."""
    return {"text": text, "spread": "", "interval": "", "bold": False, "note": note,
            "title": title, "number": None}  # fmt: skip


def shown(
    figure: Figure, title: str, note: str = "", sign: bool = False, bold: bool = False
) -> Entry:
    """Return the cell of a figure."""
    made = cell(readable(figure.mean, figure.digits, sign), title, note)
    made["spread"] = "" if figure.sd is None else readable(figure.sd, figure.digits)
    made["interval"], made["bold"], made["number"] = figure.interval, bold, figure.mean
    return Entry(made, figure)


def ours_entry(ours: Ours, notes: Notes) -> Entry:
    """Return the cell of a figure of ours; runs that are not in its mean have a note."""
    arm, figure = ours.arm, of_ours(ours)
    units = f" in {figure.units} independent units" if figure.units else ""
    n = f"n = {figure.n}{units}, {ours.tier} tier"
    words = (n, arm["label"], arm["data"], arm["network"])
    lost, key = len(arm["diverged"]), ""
    if lost:
        key = notes.key(f"{lost} of {lost + arm['n']} runs diverged, not in the mean.")
    return shown(figure, "; ".join(filter(None, words)), key, bold=ours.cell["best"])


def printed_entry(
    printed: Printed, figure: Figure | None, notes: Notes, sources: dict[str, int]
) -> Entry:
    """Return the cell of a printed figure; its source gets a number at first use."""
    given = printed.figure
    title = _said(given, sources)
    said = []
    if given.get("confidence") == "memory":
        said.append("From memory, not read in the source.")
    if figure is not None and converted(printed):
        kind = "accuracy" if printed.cell["shows"] == "error" else "error"
        said.append(f"Printed as {kind}: 100 minus it is shown.")
    # A cell points to one note.
    key = notes.key(" ".join(said)) if said else ""
    return shown(figure, title, key) if figure else Entry(cell("not read", title, key))


def _said(given: PrintedFigure, sources: dict[str, int]) -> str:
    """Say over how many runs a figure was printed and where it was read."""
    runs, source = given["runs"], given.get("source")
    words = [] if runs is None else [f"{runs:g} run{'' if runs == 1 else 's'}"]
    if source:
        words.append(f"source [{sources.setdefault(source, len(sources) + 1)}]")
    if given.get("confidence") == "memory":
        words.append("from memory")
    return ", ".join(["printed", *words])
