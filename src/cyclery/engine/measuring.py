"""The figures of a run: at its evaluation points, and of its last state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cyclery.common.errors import UserError, choices
from cyclery.engine.cohort import Task
from cyclery.engine.cuda import fetch
from cyclery.engine.evaluation import BATCH
from cyclery.engine.failures import Diverged
from cyclery.engine.globals import Globals
from cyclery.engine.hooks import Inside, Measured, check_measured
from cyclery.engine.metrics import Figures, named, prefixed
from cyclery.engine.replay import Replays
from cyclery.methods import Method
from cyclery.models.layers import evaluating
from cyclery.probes import Features, check_labels, needs, recorded
from cyclery.probes import measure as measure_probe
from cyclery.records.record import Figure, RunSettings

PARTS = {"validation": "val", "test": "test"}
# What of an evaluation on the way is a curve.
CURVES = tuple(f"{raw}{part}_{name}" for raw in ("", "raw_") for part in PARTS.values()
               for name in ("accuracy", "nll"))  # fmt: skip


class Measuring:
    """Measures what is evaluated of a run, and what its method measures besides.

    ``beside`` returns the figures on a part where a pack measures them, else None.
    """

    def __init__(
        self,
        run: Inside,
        method: Method,
        replays: Replays,
        beside: Callable[[str], Task[np.ndarray[Any, Any] | None]],
    ) -> None:
        self._run, self._method, self._replays, self._beside = run, method, replays, beside
        self._chosen = method.chosen(run.settings["method"]["settings"])
        self._classifies = method.classifies(self._chosen)
        for name in method.keeps(self._chosen):
            if name not in run.networks.evaluated[0]:
                raise UserError(
                    f"method: `keeps` of {method.name!r} has {name!r}, which `modules` does not "
                    f"make (it makes {choices(run.networks.evaluated[0])})."
                )
        self._probes = run.settings.get("probes", {})
        self._parts = {part: end for part, end in PARTS.items() if len(run.ids[part])}
        self._globals = Globals(method.name, run.evaluator.device)
        # The figures after an epoch: the last evaluation on the way is the final one too.
        self._seen: tuple[int, dict[str, Figure]] | None = None

    @property
    def any(self) -> bool:
        """Whether an evaluation was made."""
        return self._seen is not None

    def forget(self) -> None:
        """Forget the last evaluation, for the run is in another state."""
        self._seen = None

    def prepare(self) -> None:
        """Capture the evaluations, where anything is captured; try what probes are measured on."""
        if self._probes:
            # At the start: it would be too late at the end of a long run.
            ids = self._run.ids["train"]
            # Where runs share a GPU, with as many as a pass has at the end, for its memory.
            self._features(ids[: BATCH if self._replays.on else 2])
            labels = self._run.data.labels.index_select(0, ids).numpy(force=True)
            for label, probe in self._probes.items():
                check_labels(probe, labels, self._run.settings["seed"], f"probes.{label}")
        for part in self._parts if self._classifies else ():
            # An evaluation changes nothing: once is enough for libraries to choose.
            self._replays.record(part, partial(self._run.evaluator.figures, part), times=1)
        if self._replays.on:
            self._run.evaluator.rehearse()

    def evaluation(self, part: str, update: int) -> Task[dict[str, Figures]]:
        """Return the figures of what is evaluated, the first as ``""``, the second as ``raw_``.

        Diverged, before ``update``, where an output is not finite.
        """
        vectors = yield from self._beside(part)
        if vectors is None:
            found = self._replays.call(part, partial(self._run.evaluator.figures, part))
            vectors = yield from fetch(found)
        figures = [named(vector) for vector in vectors]
        if not all(math.isfinite(each["nll"]) for each in figures):
            raise Diverged(update - 1)
        return dict(zip(("", "raw_"), figures, strict=False))

    def on_the_way(
        self, epoch: int, update: int, curve: Mapping[str, Sequence[float]]
    ) -> Task[dict[str, float]]:
        """Return what of an evaluation goes to the curves; ``curve`` has those before it."""
        found = yield from self._figures(epoch, update)
        curves = {name: value for name in CURVES if isinstance(value := found.get(name), float)}
        own = self._own(update, last=False)
        for name, value in own.items():
            if math.isnan(value) and self._run.networks.flat.data.isfinite().all():
                raise UserError(
                    f"method: `evaluate` of {self._method.name!r} returns nan as {name!r}, though "
                    "all weights are finite; it must leave out what cannot be had."
                )
            if not math.isfinite(value):
                raise Diverged(update - 1)
        yield from self._check_weights(update)
        before = set(self._method.measures(self._chosen)) & curve.keys()
        if curve["eval_epoch"] and own.keys() != before:
            [name, *_] = sorted(own.keys() ^ before)
            raise UserError(
                f"method: `evaluate` of {self._method.name!r} returns {name!r} at some evaluations "
                "on the way and not at others, which is no curve; return it at each of them, or at "
                "none (`measured.last`)."
            )
        return curves | own

    def final(self, epoch: int, update: int) -> Task[dict[str, Figure]]:
        """Return the figures of the last state: the selection rule is the last checkpoint."""
        run, found = self._run, dict((yield from self._figures(epoch, update)))
        yield from self._check_weights(update)
        if self._classifies:
            vectors = yield from self._beside("train")
            if vectors is None:
                vectors = yield from fetch(run.evaluator.figures("train"))
            fitted = named(vectors[0])
            found |= {f"train_{key}": fitted[key] for key in ("accuracy", "nll", "ece")}
        if self._classifies and run.networks.reference is not None:
            for part, prefix in {**self._parts, "train": "train"}.items():
                vector = yield from fetch(run.evaluator.fidelity(part))
                names = (f"{prefix}_agreement", f"{prefix}_kl")
                found |= dict(zip(names, vector.tolist(), strict=True))
        found |= self._own(update, last=True)
        labels = run.data.labels.index_select(0, run.ids["train"]).cpu()
        count = torch.bincount(labels, minlength=run.data.classes)
        # A figure that is not finite is none; those on the way have ended the run.
        finite = {k: _finite(v) if isinstance(v, float) else v for k, v in found.items()}
        return {**finite, "train_class_count": count.tolist()}

    def probes(self) -> dict[str, float | None]:
        """Return what probes measure of the final features, by the names of a record.

        Features are extracted once for all of them. Diverged where one is not finite.
        """
        run, wanted = self._run, {part for each in self._probes.values() for part in needs(each)}
        parts = [part for part in ("train", *self._parts, *wanted) if len(run.ids.get(part, ()))]
        used = {each["of"] for each in self._probes.values()}
        vectors = {}
        for part in dict.fromkeys(parts):
            found = self._features(run.ids[part])
            # Off the device at once, for other runs may need its memory.
            vectors[part] = {name: found[name].cpu() for name in used}
        labels, own = (
            {part: each[run.ids[part]].numpy(force=True) for part in vectors}
            for each in (run.data.labels, run.dataset.labels)
        )
        if not all(x.isfinite().all() for each in vectors.values() for x in each.values()):
            raise Diverged(run.table.clock.updates - 1)
        classes, seed = run.data.classes, run.settings["seed"]
        measured = {}
        for label, probe in self._probes.items():
            x = {part: each[probe["of"]].numpy(force=True) for part, each in vectors.items()}
            measured[label] = measure_probe(probe, Features(x, labels, classes, seed, own))
        names = recorded(self._probes).items()
        figures = {name: measured[label].get(figure) for name, (label, figure) in names}
        return {name: _finite(value) for name, value in figures.items()}

    def _check_weights(self, update: int) -> Task[None]:
        """Raise Diverged where weights are not finite: without a head no figure would show it."""
        if not self._classifies:
            finite = yield from fetch(self._run.networks.flat.data.isfinite().all()[None])
            if not finite.all():
                raise Diverged(update - 1)

    def _features(self, ids: Tensor) -> dict[str, Tensor]:
        """Return the features [N, D] of samples [N]; a UserError where a probe's are not there."""
        found = self._run.evaluator.features(ids)
        for label, probe in self._probes.items():
            if (of := probe["of"]) not in found:
                raise UserError(
                    f"probes.{label}.of: the method {self._method.name!r} has no features {of!r} "
                    f"(it has {choices(found)})."
                )
            if found[of].ndim != 2:
                raise UserError(
                    f"probes.{label}.of: {of!r} must be a vector for each sample (found the shape "
                    f"{list(found[of].shape)})."
                )
        return found

    def _own(self, update: int, last: bool) -> dict[str, float]:
        """Return what the method measures itself."""
        declared = self._method.measures(self._chosen)
        if not declared:
            return {}
        measured = Measured(self._run, update, last)
        nets, *trained = self._run.networks.evaluated
        raw = {f"raw.{name}": net for each in trained for name, net in each.items()}
        models = {**self._run.models, **raw, **nets}
        self._globals.mark()
        # It may call a network itself, which must not change batch norm's statistics.
        with torch.no_grad(), evaluating(*models.values()):
            found = self._method.evaluate(models, measured, self._chosen)
        self._globals.check("`evaluate`", "take numbers from a generator with a seed of its own")
        return check_measured(self._method.name, declared, found)

    def _figures(self, epoch: int, update: int) -> Task[dict[str, Figure]]:
        """Return the figures on the validation and test sets, as ``val_`` and ``test_``."""
        if self._seen is None or self._seen[0] != epoch:
            result: dict[str, Figure] = {}
            for part, prefix in self._parts.items() if self._classifies else ():
                found = yield from self.evaluation(part, update)
                for raw, figures in found.items():
                    result |= prefixed(figures, f"{raw}{prefix}_")
            self._seen = (epoch, result)
        return self._seen[1]


def _finite(value: float | None) -> float | None:
    """Return a number, None where it is not finite, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None


def evaluation_epochs(settings: RunSettings) -> set[int]:
    """Return after how many epochs a run is evaluated: evenly spread, the last one included."""
    epochs, count = settings["epochs"], settings["evaluations"]
    return {math.ceil(epochs * i / count) for i in range(1, count + 1)}
