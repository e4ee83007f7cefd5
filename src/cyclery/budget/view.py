"""What ``cyclery decide`` shows: verdicts as they fall, what runs, and a table at the end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cyclery.budget.standing import Stand
from cyclery.common.formatting import duration
from cyclery.records.claims import DECIDED

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

# Claims that are listed while it runs: those with the best chances. The table at the end has all.
LISTED = 12


class View:
    """Lines on any output; on a terminal a table below them that is refreshed.

    ``futile`` is the chance below which a claim gets no more seeds.
    """

    def __init__(self, tier: str, futile: float) -> None:
        from rich.console import Console

        self.console = Console(highlight=False, markup=False, soft_wrap=True)
        self.tier, self.futile = tier, futile
        self._live: Live | None = None
        self._stands: Sequence[Stand] = ()
        self._seeds: Mapping[str, int] = {}
        self._verdicts: dict[str, str] = {}
        self._running, self._begun, self._left = "", time.monotonic(), 0.0

    @contextmanager
    def live(self) -> Iterator[None]:
        """Refresh the table while the block runs, where there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        from rich.live import Live

        with Live(console=self.console, auto_refresh=False, transient=True) as self._live:
            yield
        self._live = None

    def say(self, text: str) -> None:
        """Print a line with the time."""
        self.console.print(f"{time.strftime('%H:%M:%S')}  {_plain(text)}")

    def update(self, stands: Sequence[Stand], seeds: Mapping[str, int]) -> None:
        """Say which verdicts are new; a line for each."""
        for stand in stands:
            # What was there before this call is no news.
            if self._verdicts and stand.verdict != self._verdicts.get(stand.name):
                self.say(f"{stand.name}: {stand.verdict}, {_span(stand, seeds)} seeds. "
                         f"{stand.reason}")  # fmt: skip
        self._verdicts = {stand.name: stand.verdict for stand in stands}
        self._stands, self._seeds = stands, dict(seeds)
        self.say(self._summary())

    def batch(self, papers: Sequence[str], runs: int, seconds: float, left: float) -> None:
        """Say which batch begins."""
        self._running = f"{runs} runs of {', '.join(papers)}, about {duration(seconds)}"
        self._begun = time.monotonic()
        self.say(f"{self._running}; {duration(left)} left")

    def tick(self, left: float) -> None:
        """Refresh the table."""
        self._left = left
        if self._live:
            self._live.update(self._table(), refresh=True)

    def end(
        self, stands: Sequence[Stand], before: Mapping[str, int], seeds: Mapping[str, int]
    ) -> None:
        """Print what each claim got, and why it got no more."""
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name in ("claim", "verdict", "seeds", "were", "why no more"):
            table.add_column(name, overflow="fold")
        for stand in stands:
            table.add_row(stand.name, stand.verdict, _span(stand, seeds), _span(stand, before),
                          _plain(self.why(stand)))  # fmt: skip
        self._stands, self._seeds = stands, dict(seeds)
        Console(highlight=False, markup=False).print(table)
        self.say(self._summary())

    def why(self, stand: Stand) -> str:
        """Say why a claim got no more seeds."""
        open_ = [question for question in stand.questions if question.hope >= self.futile]
        parts = []
        if open_:
            best = max(open_, key=lambda question: question.hope)
            parts.append(f"no time: {100 * best.hope:.0f} % chance by {best.ends[-1]} seeds")
        if stand.hopeless and (self.futile or not open_):
            count = f"{len(stand.hopeless)} " if len(stand.hopeless) > 1 else ""
            parts.append(f"{count}hopeless: {', '.join(dict.fromkeys(stand.hopeless))}")
        parts += [f"{stand.ended} at the end of the plan"] if stand.ended else []
        return "; ".join(parts) or ("decided" if stand.verdict in DECIDED else "cannot be tested")

    def _summary(self) -> str:
        count = Counter(stand.verdict for stand in self._stands)
        open_ = sum(any(q.hope >= self.futile for q in stand.questions) for stand in self._stands)
        shown = ", ".join(f"{count[verdict]} {verdict}" for verdict in DECIDED if count[verdict])
        decided = sum(count[verdict] for verdict in DECIDED)
        return (
            f"tier {self.tier}: {decided} of {len(self._stands)} claims decided"
            f"{f' ({shown})' if shown else ''}, {open_} with comparisons worth more seeds"
        )

    def _table(self) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name in ("claim", "verdict", "seeds", "next look", "by the end"):
            table.add_column(name, overflow="fold")
        hopeful = [stand for stand in self._stands if stand.hope >= max(self.futile, 1e-9)]
        for stand in sorted(hopeful, key=lambda stand: -stand.hope)[:LISTED]:
            soon = max(question.chances[0] for question in stand.questions)
            table.add_row(stand.name, stand.verdict, _span(stand, self._seeds),
                          f"{100 * soon:.0f} %", f"{100 * stand.hope:.0f} %")  # fmt: skip
        spent = duration(time.monotonic() - self._begun)
        state = f"{self._running}: {spent} so far; {duration(max(0.0, self._left))} left in all"
        return Group(table, Text(_plain(state)))


def _span(stand: Stand, seeds: Mapping[str, int]) -> str:
    """Return the fewest and the most seeds of a claim's arms."""
    own = sorted(seeds.get(arm, 0) for arm in stand.arms) or [0]
    return f"{own[0]}" if own[0] == own[-1] else f"{own[0]}-{own[-1]}"


def _plain(text: str) -> str:
    """Return a text out of a file without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)[:500]
