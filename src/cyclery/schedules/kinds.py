"""The kinds of schedule, declared: one frozen dataclass per kind, one documented field per key.

Nothing is computed here. The dataclasses are what the configuration models, the reference page
and `cyclery.schedules.check` read; the formulas are in `cyclery.schedules.columns`. A field's
metadata holds ``doc`` (one line for the reference) and the limits of its value: ``low`` and
``high`` (inclusive), ``above`` and ``below`` (exclusive).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

from cyclery.common.settings import checked

Quantity: TypeAlias = Annotated[float, "quantity"]
"""Marks a method's setting that may be a schedule and reaches the step as a row entry."""

RangeWord = Literal["range.base", "range.max"]
RANGE_WORDS: tuple[str, ...] = get_args(RangeWord)
Number: TypeAlias = float | RangeWord
"""A value, or a bound that the learning-rate range test finds."""

QUANTITY = {"x-ref": "Quantity"}
"""Where `cyclery.config.schema` puts the JSON Schema of a schedule."""


def _as_given(spec: Any, where: str) -> Any:
    # `cyclery.schedules.check` reads what is nested; here it has a place in the JSON Schema.
    return spec


Schedule: TypeAlias = Annotated[float | dict[str, Any], checked(_as_given, QUANTITY)]
"""A number, or ``{"kind": ...}`` with the keys of that kind; may be nested."""

Order = Literal["easy-hard-easy", "hard-easy-hard", "easy-hard", "hard-easy", "shuffled"]
Window = Literal["triangle", "welch", "hann"]
Mode = Literal["triangular", "triangular2", "exp_range", "exp_range_bounds"]
Shape = Literal["cosine", "linear"]
Rise = Literal["linear", "sigmoid"]
Climb = Literal["linear", "cosine", "circle", "step"]
Hold = Literal["update", "epoch"]


def key(doc: str, **limits: float) -> dict[str, Any]:
    """Return the metadata of a key: its documentation and the limits of its value."""
    return {"doc": doc, **limits}


def amount(doc: str) -> dict[str, Any]:
    """Return the metadata of a value of the quantity, which is never negative."""
    return key(doc, low=0.0)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What every kind has."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    clock: Hold = field(
        default="update",
        metadata=key(
            "`update`: a new value at every update; `epoch`: the value at the first update of an "
            "epoch is held through the epoch"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Constant(Kind):
    """One value throughout; a bare number means the same."""

    value: Number = field(metadata=amount("the value"))


@dataclass(frozen=True, kw_only=True)
class Cycle(Kind):
    """Easy, hard, easy by epoch: (1 - eta) hard + eta easy, eta as in General Cyclical Training.

    Always constant within an epoch, so its ``clock`` has no effect.
    """

    easy: Number = field(metadata=amount("value at the easy ends (eta = 1)"))
    hard: Number = field(metadata=amount("value in the hard middle (eta = 0)"))
    factor: float = field(
        default=2.0,
        metadata=key(
            "the hardest epoch is (E - 1) / factor: 2 is symmetric; one-way orders always take 1",
            low=1.0,
        ),
    )
    order: Order = field(
        default="easy-hard-easy",
        metadata=key(
            "`hard-easy-hard` swaps the two values; `easy-hard` and `hard-easy` go one way; "
            "`shuffled` takes the values of `easy-hard-easy` in a random order of the epochs"
        ),
    )
    clamp: bool = field(
        default=True, metadata=key("keep eta within 0..1 (it leaves it in cool-down epochs)")
    )
    cooldown: int = field(
        default=0,
        metadata=key(
            "last epochs that E does not count (1 in the official temperature code)",
            low=0,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Triangular(Kind):
    """Cyclical learning rate: low, high, low, in equal cycles, per update."""

    low: Number = field(metadata=amount("value at the ends of each cycle (base_lr)"))
    high: Number = field(metadata=amount("value in the middle of the first cycle (max_lr)"))
    cycles: float | None = field(
        default=None, metadata=key("number of cycles in the run; or give `step_epochs`", above=0)
    )
    step_epochs: float | None = field(
        default=None, metadata=key("epochs in half a cycle; or give `cycles`", above=0)
    )
    window: Window = field(default="triangle", metadata=key("shape of the rise and fall"))
    mode: Mode = field(
        default="triangular",
        metadata=key(
            "`triangular2` halves the amplitude after a cycle; `exp_range` shrinks the amplitude "
            "by gamma^t (libraries); `exp_range_bounds` shrinks both bounds (paper's text)"
        ),
    )
    gamma: float | None = field(
        default=None, metadata=key("factor per update, for the exp_range modes", above=0)
    )
    end: float | None = field(
        default=None, metadata=key("gamma^T instead of `gamma`, T = updates in all", above=0)
    )


@dataclass(frozen=True, kw_only=True)
class Exponential(Kind):
    """start * gamma^t."""

    start: Number = field(metadata=amount("value at the first update"))
    gamma: float | None = field(
        default=None, metadata=key("factor per update; or give `end`", above=0)
    )
    end: float | None = field(
        default=None,
        metadata=key(
            "gamma^T, the share of `start` left after T updates; or give `gamma`", above=0
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Decay(Kind):
    """Linear from high to low over a first part of the run, then low."""

    high: Number = field(metadata=amount("value at the first update"))
    low: Number = field(metadata=amount("value after the decay"))
    over: float = field(
        default=1.0,
        metadata=key("the part of the updates that the decay takes", above=0, high=1),
    )


@dataclass(frozen=True, kw_only=True)
class Ramp(Kind):
    """From start to end over a first part of the run, then end: how a loss weight sets in."""

    start: Number = field(
        default=0.0,
        metadata=amount("value at the first update; a sigmoid begins 0.7 % of the way to `end`"),
    )
    end: Number = field(metadata=amount("value after the ramp"))
    over: float = field(
        default=0.4, metadata=key("the part of the updates that the ramp takes", above=0, high=1)
    )
    shape: Rise = field(
        default="linear",
        metadata=key(
            "`linear`, or `sigmoid`: start + (end - start) exp(-5 (1 - x)^2), x from 0 to 1 "
            "(Mean Teacher)"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class EpochRamp(Kind):
    """start + (end - start) f(k / E) in epoch k = 1, ..., E, so `end` is reached in the last one.

    Always constant within an epoch, so its ``clock`` has no effect.
    """

    start: Number = field(
        default=0.0, metadata=amount("value in the epochs of `wait`, and where f is 0")
    )
    end: Number = field(metadata=amount("value in the last epoch"))
    wait: int = field(
        default=0, metadata=key("first epochs, which stay at `start`; k counts them", low=0)
    )
    shape: Climb = field(
        default="linear",
        metadata=key(
            "f(x): `linear` x, `cosine` cos(pi (1 - x) / 2), `circle` sqrt(1 - (1 - x)^2), `step` "
            "1 (SoTeacher)"
        ),
    )


@dataclass(frozen=True, kw_only=True)
class RampDown(Kind):
    """value, times exp(-12.5 (1 - x)^2) in a last part, x from 1 to 0 (Mean Teacher)."""

    value: Number = field(metadata=amount("value before the ramp"))
    over: float = field(
        metadata=key("the last part of the updates, in which it falls", above=0, high=1)
    )


@dataclass(frozen=True, kw_only=True)
class Piecewise(Kind):
    """Constant, multiplied by a factor at given points of the run."""

    value: Number = field(metadata=amount("value at the first update"))
    drops: tuple[float, ...] = field(
        metadata=key("parts of the updates after which it drops", low=0, high=1)
    )
    by: float = field(default=0.1, metadata=key("factor of each drop", above=0))


@dataclass(frozen=True, kw_only=True)
class Cosine(Kind):
    """Half a cosine from peak to end, after an optional linear warm-up."""

    peak: Number = field(metadata=amount("value where the cosine begins"))
    end: Number = field(
        default=0.0, metadata=amount("value that the cosine reaches after the last update")
    )
    warmup_epochs: float = field(
        default=0.0, metadata=key("length of the warm-up in epochs", low=0)
    )
    warmup_start: Number = field(default=0.0, metadata=amount("value at the start of the warm-up"))


@dataclass(frozen=True, kw_only=True)
class CosineArc(Kind):
    """peak cos(pi arc t / T): the first part of a cosine, which need not reach 0 (FixMatch)."""

    peak: Number = field(metadata=amount("value at the first update"))
    arc: float = field(
        default=7 / 16,
        metadata=key("the part of half a period; at 1/2 it falls to 0", above=0, high=0.5),
    )


@dataclass(frozen=True, kw_only=True)
class OneCycle(Kind):
    """One rise to the peak and one fall far below the start (as torch's OneCycleLR)."""

    peak: Number = field(metadata=amount("value at the peak"))
    start_div: float = field(default=25.0, metadata=key("it starts at peak / start_div", above=0))
    final_div: float = field(default=1e4, metadata=key("it ends at start / final_div", above=0))
    warm: float = field(
        default=0.3, metadata=key("part of the updates that rise", above=0, below=1)
    )
    shape: Shape = field(default="cosine", metadata=key("curve of the rise and the fall"))


@dataclass(frozen=True, kw_only=True)
class Linear(Kind):
    """start + (end - start) t / T, as in the learning-rate range test."""

    start: Number = field(metadata=amount("value at the first update"))
    end: Number = field(metadata=amount("value that it would reach after the last update"))


@dataclass(frozen=True, kw_only=True)
class ExpSweep(Kind):
    """start (end / start)^(t / (T - 1)): equal ratios from start to end."""

    start: Number = field(metadata=key("value at the first update", above=0))
    end: Number = field(metadata=key("value at the last update", above=0))


@dataclass(frozen=True, kw_only=True)
class RunningMean(Kind):
    """min(1 - 1 / (n + 1), end) at update n = 1, 2, ...: a decay that makes a true mean at first.

    An average of weights with this decay is the mean of the initial weights and of those after
    every update so far, until ``end`` is reached (Mean Teacher, the PyTorch code).
    """

    end: float = field(
        metadata=key("decay that it stays at; 1 means the true mean throughout", low=0, high=1)
    )


@dataclass(frozen=True, kw_only=True)
class MeanRate(Kind):
    """1 in epoch 1, then 1 / (k - 1 + first) in epoch k: how far an average moves to a new value.

    An average of one value an epoch that moves by this rate is the mean of the values so far.
    Always constant within an epoch, so its ``clock`` has no effect.
    """

    first: float = field(
        default=1.0,
        metadata=key("how many times the first value counts (2 in SoTeacher's code)", low=0),
    )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of `staged`."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    fraction: float = field(metadata=key("part of the updates", above=0, high=1))
    schedule: Schedule = field(metadata=key("schedule of the stage, on a clock of its own"))


@dataclass(frozen=True, kw_only=True)
class Staged(Kind):
    """Schedules one after the other, each on a clock that starts anew."""

    stages: tuple[Stage, ...] = field(metadata=key("the stages; their fractions add up to 1"))


@dataclass(frozen=True, kw_only=True)
class Product(Kind):
    """Product of schedules."""

    of: tuple[Schedule, ...] = field(metadata=key("the factors"))


@dataclass(frozen=True, kw_only=True)
class Reciprocal(Kind):
    """1 / schedule, such as a learning rate that undoes a temperature."""

    of: Schedule = field(metadata=key("the divisor, never 0"))


@dataclass(frozen=True, kw_only=True)
class PowerOfTwo(Kind):
    """The nearest power of two on a log scale, 2^round(log2 v), for batch sizes."""

    of: Schedule = field(metadata=key("the schedule to round, never 0"))


KINDS: dict[str, type[Kind]] = {
    "constant": Constant,
    "cycle": Cycle,
    "triangular": Triangular,
    "exponential": Exponential,
    "decay": Decay,
    "ramp": Ramp,
    "epoch_ramp": EpochRamp,
    "ramp_down": RampDown,
    "piecewise": Piecewise,
    "cosine": Cosine,
    "cosine_arc": CosineArc,
    "one_cycle": OneCycle,
    "linear": Linear,
    "exp_sweep": ExpSweep,
    "running_mean": RunningMean,
    "mean_rate": MeanRate,
    "staged": Staged,
    "product": Product,
    "reciprocal": Reciprocal,
    "power_of_two": PowerOfTwo,
}
