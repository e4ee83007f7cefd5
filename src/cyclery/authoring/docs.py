"""Generate the JSON Schemas and the reference pages in docs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import BaseModel

from cyclery import augment, methods, models, optim, probes, schedules
from cyclery.authoring import headline, package_map, results_schema
from cyclery.common.errors import UserError
from cyclery.common.files import write_atomic
from cyclery.common.settings import declared, default
from cyclery.config import comparisons
from cyclery.config.load import datasets
from cyclery.config.models import (
    Arm,
    Claim,
    Config,
    Experiment,
    ExperimentTier,
    Paper,
    ParentRef,
    RangeTest,
    SeedRule,
    Tier,
)
from cyclery.config.plots import Plot
from cyclery.config.resolve import DEFAULTS, REQUIRED
from cyclery.config.schema import schema
from cyclery.config.search import Search, SearchTier, Span
from cyclery.config.settings import Settings
from cyclery.config.tables import BenchmarkTable, Line
from cyclery.data import split_parts
from cyclery.data.dataset import Content, DatasetFile, Package, RawFile
from cyclery.data.registry import Datasets
from cyclery.data.split_settings import Split
from cyclery.models import heads
from cyclery.records import metrics
from cyclery.schedules import RANGE_WORDS

log = logging.getLogger(__name__)
SCHEMAS = Path("workflow/schemas")
REFERENCE = Path("docs/configuration.md")
FILES: dict[str, type] = {
    "config": Config, "tier": Tier, "paper": Paper, "dataset": DatasetFile,
}  # fmt: skip
# The models of the page, in reading order, by heading.
MODELS: dict[str, type] = {
    "config/config.yaml": Config,
    "config/tiers/*.yaml": Tier,
    "config/papers/*.yaml": Paper,
    "config/datasets/*.yaml": DatasetFile,
    "Raw file": RawFile,
    "Python package": Package,
    "Content": Content,
    "Experiment": Experiment,
    "Arm": Arm,
    "Parent": ParentRef,
    "Seeds of a parent": SeedRule,
    "Tier of an experiment": ExperimentTier,
    "Settings": Settings,
    "Split": Split,
    "Imbalance: two_level": split_parts.TwoLevel,
    "Imbalance: long_tail": split_parts.LongTail,
    "Label noise: symmetric": split_parts.Symmetric,
    "Label noise: asymmetric": split_parts.Asymmetric,
    "Open set": split_parts.OpenSet,
    "Resolution": split_parts.Resolution,
    "Range test": RangeTest,
    "Search": Search,
    "Search of a tier": SearchTier,
    "Span": Span,
    "Claim": Claim,
    "Comparison": comparisons.Comparison,
    "Printed effect": comparisons.PrintedEffect,
    "Against the best of several": comparisons.BestOf,
    "Against a constant": comparisons.Constant,
    "Interaction": comparisons.Interaction,
    "Trend": comparisons.Trend,
    "Rank correlation": comparisons.RankCorrelation,
    "Flatness": comparisons.Flatness,
    "Benchmark table": BenchmarkTable,
    "Line of a table": Line,
    "Plot": Plot,
}
# What a key holds, where that has its own section.
LINKS = {
    ("Tier", "base"): "Settings",
    ("DatasetFile", "files"): "Raw file",
    ("DatasetFile", "package"): "Python package",
    ("DatasetFile", "content"): "Content",
    ("Paper", "base"): "Settings",
    ("Paper", "experiments"): "Experiment",
    ("Paper", "claims"): "Claim",
    ("Paper", "tables"): "Benchmark table",
    ("Paper", "plots"): "Plot",
    ("Plot", "x"): "Metrics",
    ("Plot", "y"): "Metrics",
    ("BenchmarkTable", "rows"): "Line of a table",
    ("BenchmarkTable", "columns"): "Line of a table",
    ("BenchmarkTable", "metric"): "Metrics",
    ("Line", "of"): "Line of a table",
    ("Experiment", "base"): "Settings",
    ("Arm", "parents"): "Parent",
    ("ParentRef", "seeds"): "Seeds of a parent",
    ("Experiment", "range"): "Range test",
    ("Experiment", "search"): "Search",
    ("Experiment", "tiers"): "Tier of an experiment",
    ("Experiment", "arms"): "Arm",
    ("ExperimentTier", "base"): "Settings",
    ("ExperimentTier", "range"): "Range test",
    ("ExperimentTier", "search"): "Search of a tier",
    ("Search", "space"): "Span",
    ("Settings", "dataset"): "Datasets",
    ("Settings", "split"): "Split",
    ("Split", "noise"): "Label noise: symmetric",
    ("Split", "open_set"): "Open set",
    ("Split", "resolution"): "Resolution",
    ("Settings", "model"): "Networks",
    ("Settings", "head"): "Heads",
    ("Settings", "method"): "Methods",
    ("Settings", "optimiser"): "Optimisers",
    ("Settings", "augment"): "Augmentations",
    ("Settings", "lr"): "Schedules",
    ("Settings", "batch"): "Schedules",
    ("Settings", "magnitude"): "Schedules",
    ("Settings", "momentum"): "Schedules",
    ("Settings", "weight_decay"): "Schedules",
    ("Settings", "weight_decay_norm"): "Schedules",
    ("Settings", "clip_norm"): "Schedules",
    ("Claim", "comparisons"): "Comparison",
    ("Comparison", "metric"): "Metrics",
    ("Comparison", "printed"): "Printed effect",
    ("Comparison", "interaction"): "Interaction",
    ("Comparison", "trend"): "Trend",
    ("Comparison", "rank_correlation"): "Rank correlation",
    ("Comparison", "flatness"): "Flatness",
}
INTRODUCTION = """\
# Configuration reference

Generated by `make docs` from the models in `src/cyclery/config` and the settings of schedules,
networks, heads, methods, optimisers, augmentations and probes; edit those.

A run's [settings](#settings) come from five layers, each of which may set any of them: the tier,
the paper, the experiment, the experiment's entry for the tier, and the arm. The later one holds.
`cyclery check` says what is wrong with a configuration, `cyclery plan` what it would cost. For
completion in an editor, begin a file with
`# yaml-language-server: $schema=../../workflow/schemas/paper.schema.yaml` (or `dataset`,
`tier`, `config`).
"""
METRICS = """\
Each is a file of `src/cyclery/records/metrics`. A name that ends in `@` is a curve and takes a
fraction of the run, as in `test_accuracy@0.5`: its value at the evaluation nearest to that. Of a
curve of accuracy the ends `_median20` and `_mean20` take the median and mean of the last 20
evaluations, but of no more than their last quarter. `log:` before a name is its natural logarithm,
so that differences are ratios. `raw_` is the trained network where the averaged is evaluated.
Figures that a probe or a method names are of the metric that their name ends in: an arm's probe
`few` gives `test_few_accuracy`. A number that they are taken at comes last, as in `recall_at_4`."""
PROBES = """\
What is measured of a trained network's features, which are extracted once, without augmentation.
[Writing a method](writing-a-method.md#a-probe-is-one-file) says how to add one."""


def write(root: Path, check: bool) -> None:
    """Write those documents below ``root`` that are not current; ``check`` refuses them instead.

    Raises:
        UserError: with ``check``, some are not current.
    """
    stale = {
        root / path: text
        for path, text in documents(root).items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text
    }
    if check and stale:
        names = ", ".join(str(path.relative_to(root)) for path in stale)
        raise UserError(f"not current: {names}; run `make docs`")
    for path, text in stale.items():
        write_atomic(path, text)
        log.info("%s: written", path)


def documents(root: Path) -> dict[Path, str]:
    """Return the text of every generated document of a project by its path below ``root``."""
    known = datasets(root)
    found = {
        SCHEMAS / f"{name}.schema.yaml": _yaml(schema(model, known))
        for name, model in FILES.items()
    }
    found |= results_schema.schemas()
    found[REFERENCE] = "\n".join(_reference(known)).rstrip() + "\n"
    if (root / "pyproject.toml").exists():
        found[package_map.PAGE] = package_map.page(root)
        found[headline.PAGE] = headline.page(root)
    return found


def _yaml(found: dict[str, Any]) -> str:
    """Return a JSON Schema as YAML, in which Snakemake's catalog and its users read it."""
    head = "# Made by `make docs`; edit the models and settings that it is made from.\n"
    return head + yaml.safe_dump(found, sort_keys=False, width=100, allow_unicode=True)


def _reference(known_datasets: Datasets) -> Iterator[str]:
    yield INTRODUCTION
    components: dict[str, tuple[str, Mapping[str, type]]] = {
        "Schedules": (
            "A quantity is a number, or `kind` with the keys of that kind. Where a key takes a "
            "number, the learning rate also takes `range.base` and `range.max`, the bounds that "
            "the range test finds. Every kind takes the key `clock`: with `update`, its default, "
            "the value is new at every update; with `epoch`, the value at the first update of an "
            "epoch is held through the epoch.",
            schedules.kinds(),
        ),
        "Networks": ("", {name: models.settings_type(name) for name in models.names()}),
        "Heads": ("", {name: heads.settings_type(name) for name in heads.names()}),
        "Methods": ("", {name: methods.load(name).settings_type for name in methods.names()}),
        "Optimisers": ("", {name: optim.settings_type(name) for name in optim.names()}),
        "Augmentations": ("", augment.ops()),
        "Probes": (PROBES, {name: probes.settings_type(name) for name in probes.names()}),
    }
    for title in (*MODELS, *components, "Metrics", "Datasets"):
        yield f"- [{title}](#{_anchor(title)})"
    yield ""
    for title, model in MODELS.items():
        yield from (f"## {title}", "", _sentence(model.__doc__), "")
        yield from _model(model)
    for title, (text, known) in components.items():
        yield from (f"## {title}", "")
        if text:
            yield from (text, "")
        for name, kind in known.items():
            yield from _component(name, kind, title)
    yield from _metrics()
    yield from _datasets(known_datasets)


def _metrics() -> Iterator[str]:
    yield from ("## Metrics", "", METRICS, "")
    yield "| metric | in a claim | measured in | better | meaning |"
    yield "| --- | --- | --- | --- | --- |"
    for name, metric in metrics.declared().items():
        curves = (f"{curve}@" for curve in metric.curve_names)
        finals = (each for each in metric.finals if not each.endswith(tuple(metrics.RULES)))
        used = ", ".join(f"`{each}`" for each in (*finals, *curves, *metric.range_names))
        used += " (range test)" if metric.of_range_test else ""
        used += f"names that end in `_{name}`" if metric.by_ending else ""
        yield (
            f"| {name} | {used} | {metric.unit.words} | {metric.better or '-'} "
            f"| {_cell(metric.doc)} |"
        )
    yield ""


@dataclass(frozen=True)
class _Key:
    """A key as the page shows it."""

    name: str
    default: str
    doc: str
    options: str
    limits: Mapping[str, Any]


def _keys(kind: Any) -> Iterator[_Key]:
    """Yield the keys of a model of a file, or of a settings dataclass."""
    if issubclass(kind, BaseModel):
        for name, info in kind.model_fields.items():
            value = MISSING if info.is_required() else info.get_default(call_default_factory=True)
            shown = "required" if value is MISSING else _text(value)
            yield _Key(name, shown, info.description or "", _options(info.annotation), {})
        return
    hints = get_type_hints(kind)
    for name, item in declared(kind).items():
        value = default(item)
        shown = "required" if value is MISSING else _text(value)
        yield _Key(name, shown, item.metadata.get("doc", ""), _options(hints[name]), item.metadata)


def _model(model: type) -> Iterator[str]:
    inherited = set(Settings.model_fields) if model is Arm else set()
    yield from ("| key | default | meaning |", "| --- | --- | --- |")
    for key in _keys(model):
        if key.name in inherited:
            continue
        default, meaning = key.default, _meaning(key)
        if model is Settings:
            default = "required" if key.name in REQUIRED else _default(DEFAULTS.get(key.name))
        if link := LINKS.get((model.__name__, key.name)):
            meaning += f" ([{link}](#{_anchor(link)}))"
        yield f"| `{key.name}` | {default} | {meaning} |"
    if inherited:
        yield from ("", "and every key of [Settings](#settings).")
    yield ""


def _component(name: str, kind: type, title: str) -> Iterator[str]:
    text = kind.__doc__
    if title == "Methods":
        method = methods.load(name)
        text = f"{method.title}. {method.own_definition or ''}"
    yield from (f"### {name}", "", _sentence(text), "")
    quantities = methods.load(name).quantities if title == "Methods" else ()
    keys = [key for key in _keys(kind) if (title, key.name) != ("Schedules", "clock")]
    if not keys:
        yield from ("No settings.", "")
        return
    yield from ("| key | default | meaning |", "| --- | --- | --- |")
    for key in keys:
        meaning = _meaning(key)
        if key.name in quantities:
            meaning += "; may follow a [schedule](#schedules)"
        yield f"| `{key.name}` | {key.default} | {meaning} |"
    yield ""


def _meaning(key: _Key) -> str:
    """Return what a key means, its limits, and the words that it may be but for explained ones."""
    meaning = _cell(key.doc)
    named = [option.strip("`") in meaning for option in key.options.split(", ")]
    # The default needs no explanation.
    if key.options and named.count(False) > 1:
        meaning += f": {key.options}" if meaning else key.options
    limits = ", ".join(
        f"{sign} {key.limits[name]:g}"
        for name, sign in (("low", ">="), ("above", ">"), ("high", "<="), ("below", "<"))
        if name in key.limits
    )
    return f"{meaning} ({limits})" if limits else meaning


def _datasets(known: Datasets) -> Iterator[str]:
    yield from ("## Datasets", "")
    yield "| name | title | classes | shape | train | test | licence |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in known:
        # A folder is not looked at: the page is the same wherever it lies.
        d = known.declared(name)
        counts = (d.classes, d.train, d.test)
        classes, train, test = ("-" if count is None else f"{count:,}" for count in counts)
        shape = " x ".join(map(str, d.shape))
        yield (
            f"| `{name}` | {_cell(d.title)} | {classes} | {shape} | {train} | {test} "
            f"| {_cell(d.licence)} |"
        )


def _options(annotation: Any) -> str:
    """Return the words that an annotation allows, or nothing where it is no choice of words."""
    if get_origin(annotation) is Literal:
        words = get_args(annotation)
        # Its words are explained once, and one word is no choice.
        plain = len(words) < 2 or words == RANGE_WORDS
        return "" if plain else ", ".join(f"`{word}`" for word in words)
    found = [_options(arg) for arg in get_args(annotation)]
    return next((text for text in found if text), "")


def _default(value: Any) -> str:
    """Return a default of ``cyclery.config.resolve`` as it would be written."""
    return f"`{value['name']}`" if isinstance(value, dict) and "name" in value else _text(value)


def _text(value: Any) -> str:
    if value is None or isinstance(value, BaseModel) or value in ({}, [], ""):
        return "-"
    if isinstance(value, str):
        return f"`{_cell(value)}`"
    shown = list(value) if isinstance(value, tuple) else value
    return f"`{_cell(json.dumps(shown))}`"


def _anchor(title: str) -> str:
    """Return the anchor that a Markdown heading gets."""
    kept = (c for c in title.lower() if c.isalnum() or c in " -_")
    return "".join(kept).replace(" ", "-")


def _sentence(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").split())


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
