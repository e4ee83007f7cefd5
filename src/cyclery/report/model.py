"""Validate and sanitise evidence for display: declared types, no control characters or NaN.

The templates, tables and figures read only what `complete` returns, so that they need no defaults:
evidence of another shape, as another version may have made it, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from math import ceil, floor, fsum, isfinite, log10
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cyclery.common import formatting as text
from cyclery.common.errors import UserError
from cyclery.records import metrics
from cyclery.records.evidence import SCHEMA, Arm, Evidence

_LONG = 1e9
MINUS = "\u2212"
# Of arms that nothing was tried for in the runs that count.
UNTUNED = (
    "Tuning: no trials in these runs; how constants were chosen, and of which arms, stands under "
    "\u201cWhere we deviate\u201d."
)

# C0 and C1 controls (tab and newline aside) and the characters that reorder text around them.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_INTERVALS = ("ci95", "ci90", "naive95", "bca95")


def scrub(value: Any) -> Any:
    """Return a JSON value without NaN, lone surrogates, control or reordering characters.

    An interval with an open end becomes null: it has no place on an axis.
    """
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, str):
        return _UNSAFE.sub("", value.encode("utf-8", "replace").decode("utf-8"))
    if isinstance(value, dict):
        out = {scrub(str(key)): scrub(item) for key, item in value.items()}
        return out | {key: None for key in _INTERVALS if key in out and None in (out[key] or ())}
    if isinstance(value, list | tuple):
        return list(value) if _are_finite(value) else [scrub(item) for item in value]
    return value


def _are_finite(values: Sequence[Any]) -> bool:
    """Tell whether all values are finite numbers, as in the curves that are most of evidence."""
    try:
        return isfinite(fsum(values))
    except (TypeError, ValueError, OverflowError):
        return False


@cache
def _shape() -> TypeAdapter[Evidence]:
    return TypeAdapter(Evidence)


def complete(raw: Evidence) -> Evidence:
    """Return one part's evidence, scrubbed and of the declared shape.

    Raises `UserError` for another schema, a key that is missing, or an unknown verdict: drawing
    it could mislead.
    """
    data: Evidence = scrub(raw)
    if data.get("schema") != SCHEMA:
        raise UserError(f"evidence schema {data.get('schema')!r} is not {SCHEMA}: make it again")
    try:
        _shape().validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{at}]" if isinstance(at, int) else f".{at}" for at in first["loc"])
        raise UserError(
            f"evidence of {data.get('part')!r}: {where.lstrip('.')}: {first['msg']}. It was made "
            "by another version: delete the file and make it again with `cyclery evidence`."
        ) from None
    return data


def tried(arm: Arm) -> int:
    """Return how many trials an arm's tuning or search has; 0 where it has neither."""
    if "searched" in arm:
        return arm["searched"]["tried"]
    return len(arm["tuned"]["trials"]) if arm["tuned"] else 0


def trained_trials(arm: Arm) -> int:
    """Return how many trials were trained for an arm: those of each of its studies."""
    return tried(arm) * (len(arm["searched"]["studies"]) if "searched" in arm else 1)


class Slugs:
    """Names that are safe as file names, HTML ids and LaTeX labels, each given once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def make(self, *parts: str) -> str:
        """Return a new name of a-z, 0-9 and hyphens made of the parts."""
        text = "-".join(re.sub("[^a-z0-9]+", "-", part.lower()).strip("-")[:40] for part in parts)
        text = re.sub("-+", "-", text).strip("-") or "x"
        slug, count = text, 1
        while slug in self._given:
            count += 1
            slug = f"{text}-{count}"
        self._given.add(slug)
        return slug


def number(value: float | None, digits: int = 2, sign: bool = False) -> str:
    """Return a fixed-point number with a true minus, or a dash where there is none."""
    if value is None:
        return "\u2013"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:  # no "-0.00"
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def readable(value: float, digits: int, sign: bool = False) -> str:
    """Return a fixed-point number; one too long to be read as a power of ten."""
    return number(value, digits, sign) if abs(value) < _LONG else compact(value)


def compact(value: float | None) -> str:
    """Return up to four significant digits, powers of ten written out: 8\u00d710\u207b\u2075."""
    if value is None:
        return "\u2013"
    text = f"{value:.4g}"
    if "e" in text:
        mantissa, power = text.split("e")
        raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}×10{raised}" if mantissa != "1" else f"10{raised}"
    return text.replace("-", MINUS)


def amount(value: float | None) -> str:
    """Return a count in thousands, millions or billions with three digits: 1.47 M."""
    if value is None:
        return "\u2013"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g}\u00a0{unit}"
    return f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """Return a time in the unit a person would use."""
    if seconds is None:
        return "\u2013"
    return text.duration(seconds).replace(" ", "\u00a0")


def seed_list(seeds: Iterable[Any]) -> str:
    """Return seeds with runs of neighbours joined: 0-4, 7."""
    rest = sorted({int(s) for s in seeds if isinstance(s, int | float)})
    spans: list[list[int]] = []
    for seed in rest:
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a}\u2013{b}" for a, b in spans)


def is_share(name: str) -> bool:
    """Tell whether a metric is a fraction that tables show in percent."""
    return metrics.is_accuracy(name.removeprefix("log:"))


# Of quantities, and of what methods log that no metric is made of.
_NAMES = {
    "lr": "learning rate", "ema": "EMA decay", "batch": "batch size",
    "weight_decay_norm": "weight decay of norms and biases",
    "train_pseudo_correct": "share of pseudo-labels that are used and right",
    "train_pseudo_classes": "effective number of classes among the pseudo-labels",
    "train_clipped": "share of clipped updates", "train_scale": "scale of the loss",
}  # fmt: skip


def metric_name(name: str) -> str:
    """Return a metric or quantity in words: `test_accuracy@0.5` is test accuracy at 50 %."""
    base, _, share = name.partition("@")
    words = _NAMES.get(base) or metrics.words(base) or base.replace("_", " ")
    try:
        return (
            f"{words} at {float(share):.0%} of the run".replace("%", "\u00a0%") if share else words
        )
    except ValueError:
        return name


def round_places(
    limits: tuple[float, float], most: int, steps: Sequence[float] = (1, 2, 2.5, 5)
) -> list[float]:
    """Return round numbers within some limits, at equal steps, so that there are `most` steps."""
    low, high = limits
    finest = (high - low) / most
    powers = range(floor(log10(finest)), floor(log10(finest)) + 2)
    step = next(s * 10.0**p for p in powers for s in steps if s * 10.0**p >= finest * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def cut(text: str, limit: int) -> str:
    """Return a text short enough for a row of many: a row cannot break across pages."""
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def typeset(text: str) -> str:
    """Return a sentence with true minus signs before its numbers."""
    return re.sub(r"(?<![\w.-])-(?=\d)", MINUS, text)


def letter(index: int) -> str:
    """Return the key of the arm at this position: A, B, ... Z, AA, AB, ..."""
    first = letter(index // 26 - 1) if index >= 26 else ""
    return first + chr(ord("A") + index % 26)
