"""Evidence made safe to draw: every key present, no control characters, no NaN.

The templates, tables and figures read only what `complete` returns, so a missing list or a null
is handled in one place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite
from typing import Any

from cyclery.common import formatting as text
from cyclery.common.errors import UserError, choices, nearest
from cyclery.records import metrics

Json = dict[str, Any]
SCHEMA = 1
VERDICTS = ("reproduced", "contradicted", "partly", "inconclusive", "not run")
DECIDED = VERDICTS[:3]
MINUS = "\u2212"

# C0 and C1 controls (tab and newline aside) and the characters that reorder text around them.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")

_INTERVAL = ("interval",)
_COMPARISON: Json = {
    "label": "", "experiment": "", "arm": "", "against": "", "chosen": "", "metric": "",
    "unit": "", "test": "", "margin": 0.0, "effect": None, "ci95": _INTERVAL, "ci90": _INTERVAL,
    "p": None, "p_holm": None, "n": 0, "sd": None, "verdict": "", "reason": "", "seeds": [],
    "differences": [], "keys": [], "against_metric": "", "bca95": _INTERVAL, "units": [],
    "left_out": [], "unequal_budget": "", "pooled": {}, "naive95": _INTERVAL,
    "printed": {"value": None, "unit": "", "source": "", "confidence": ""},
    "of_printed": {"share": None, "ci95": _INTERVAL}, "p_opposite_holm": None, "diverged": [],
    "look": {"number": 0, "of": 0, "seeds": 0, "planned": 0},
    "exploratory": {"seeds": [], "n": 0, "effect": None, "naive95": _INTERVAL},
    "fragile": [{"seeds": [], "verdict": ""}], "kind": "difference", "detail": "",
    "columns": [], "stated_effect": None, "seeds_for_power": None,
    "beside": {"p_sign_flip": None, "improvement": None, "iqm": []},
}  # fmt: skip
_CLAIM: Json = {
    "id": "", "statement": "", "source": "", "own_definition": "", "verdict": "not run",
    "reason": "", "planned_seeds": None, "n": 0, "seeds_to_settle": None, "seeds_for_power": None,
    "seconds_to_settle": None, "note": "", "comparisons": [_COMPARISON],
}  # fmt: skip
_ARM: Json = {
    "id": "", "label": "", "role": "", "own_definition": "", "n": 0, "units": None,
    "diverged": [{"seed": None, "step": None}], "metrics": {}, "images": None, "views": None,
    "updates": None, "seconds": None, "keys": [], "ancestors_images": None,
    "tuned": {"trials": [{"factors": {}, "val_accuracy": None, "values": [], "diverged": 0}],
              "chosen": {}, "seeds": [], "fallback": False},
}  # fmt: skip
_EXPERIMENT: Json = {
    "id": "", "title": "", "description": "", "selection_rule": "", "command": "", "settings": {},
    "arms": [_ARM],
    "curves": [{"arm": "", "metric": "", "epoch": [], "mean": [], "low": [], "high": [], "n": 0}],
    "schedules": [{"quantity": "", "arm": "", "epoch": [], "value": []}],
    "warnings": [], "not_run": {},
    "chain": [{"id": "", "arm": "", "label": "", "level": 0,
               "parents": [{"of": "", "label": "", "seeds": ""}]}],
}  # fmt: skip
_EVIDENCE: Json = {
    "schema": SCHEMA, "tier": "", "part": "", "title": "",
    "commands": {"part": "", "report": ""},
    "paper": {"id": "", "title": "", "authors": "", "year": None, "arxiv": "", "venue": "",
              "summary": "", "deviations": []},
    "claims": [_CLAIM], "experiments": [_EXPERIMENT],
    "ranges": [{"key": "", "label": "", "settings": {}, "seeds": [], "lr": [], "accuracy": [],
                "loss": [], "base": None, "max": None, "readings": {}, "flags": []}],
    "printed": [{"table": "", "dataset": "", "labels": "", "architecture": "", "method": "",
                 "metric": "", "value": None, "std": None, "runs": None, "source": "",
                 "confidence": ""}],
    "provenance": {"commits": [], "versions": [], "devices": [], "seeds": [], "records": 0,
                   "diverged": 0, "seconds": 0.0, "images": 0, "warnings": [], "made": ""},
}  # fmt: skip

# Under a table with a column of them.
BEFORE = (
    "Ancestors: samples that the runs which an arm descends from were trained on, each run once."
)


def scrub(value: Any) -> Any:
    """Return a JSON value without NaN, lone surrogates, control or reordering characters."""
    if isinstance(value, str):
        return _UNSAFE.sub("", value.encode("utf-8", "replace").decode("utf-8"))
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, dict):
        return {scrub(str(key)): scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item) for item in value]
    return value


def _fill(shape: Json, data: Any) -> Json:
    """Return `data` with the missing and null keys of `shape` filled in, at every depth."""
    data = data if isinstance(data, dict) else {}
    out = dict(data)
    for key, default in shape.items():
        value = data.get(key)
        if default is _INTERVAL:
            numbers = isinstance(value, list) and len(value) == 2 and None not in value
            out[key] = value if numbers else None
        elif isinstance(default, list) and default:
            out[key] = [_fill(default[0], item) for item in value or []]
        elif isinstance(default, dict) and default:
            out[key] = _fill(default, value)
        elif value is None:
            out[key] = default.copy() if isinstance(default, list | dict) else default
    return out


def complete(raw: Json) -> Json:
    """Return one part's evidence, scrubbed, with every key of the schema present.

    Raises `UserError` for an unknown schema or verdict: drawing either could mislead.
    """
    data = _fill(_EVIDENCE, scrub(raw))
    if data["schema"] != SCHEMA:
        raise UserError(f"evidence schema {data['schema']!r} is not {SCHEMA}: make it again")
    for claim in data["claims"]:
        for item in (claim, *claim["comparisons"]):
            if item["verdict"] not in (*VERDICTS, ""):
                raise UserError(
                    f"claim {claim['id']}: verdict {item['verdict']!r} is none of "
                    f"{choices(VERDICTS)}.{nearest(item['verdict'], VERDICTS)}"
                )
    return data


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


def before(arm: Json) -> str | None:
    """Return the samples that an arm's ancestors were trained on; None where it has none."""
    return amount(arm["ancestors_images"]) if arm["ancestors_images"] else None


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


def typeset(text: str) -> str:
    """Return a sentence with true minus signs before its numbers."""
    return re.sub(r"(?<![\w.-])-(?=\d)", MINUS, text)


def letter(index: int) -> str:
    """Return the key of the arm at this position: A, B, ... Z, AA, AB, ..."""
    first = letter(index // 26 - 1) if index >= 26 else ""
    return first + chr(ord("A") + index % 26)
