"""What a method's hooks may use of a run: before and between updates, and when it is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclery.common.errors import UserError, choices
from cyclery.engine.evaluation import Evaluation
from cyclery.engine.metrics import named
from cyclery.engine.networks import Networks
from cyclery.engine.parts import holding
from cyclery.engine.stream import Data, Feed, generator, origin
from cyclery.engine.table import Table
from cyclery.engine.teachers import Trained
from cyclery.methods._streams import UNLABELLED
from cyclery.models.layers import evaluating
from cyclery.optim.flat.optimiser import Optimiser
from cyclery.records.record import RunSettings
from cyclery.schedules import Clock


@dataclass(frozen=True)
class Inside:
    """The pieces of a run that its hooks reach.

    ``dataset`` is all of it, ``data`` with the labels and classes that the run trains on.
    """

    settings: RunSettings
    data: Data
    ids: Mapping[str, Tensor]
    dataset: Data
    table: Table
    networks: Networks
    models: Mapping[str, nn.Module]
    parents: Mapping[str, Sequence[Trained]]
    feeds: Mapping[str, Feed]
    evaluator: Evaluation
    optimiser: Optimiser
    new_optimiser: Callable[[], Optimiser]


class Moment:
    """A run before the update ``update``, for `begin` and `event`; counted from 0.

    ``ids`` [N] and ``y`` [N] are the labelled training samples. What a hook changes it changes in
    place: parameters and buffers under ``torch.no_grad()``, and the rest by what is here.
    """

    def __init__(self, run: Inside, update: int = 0, began: bool = False) -> None:
        self._run, self.update, self._began = run, update, began
        self.ids = run.ids["train"]
        self.y = run.data.labels.index_select(0, self.ids)

    @property
    def epoch(self) -> int:
        """The epoch of the update, counted from 0; at the end of the run their number."""
        clock = self.clock
        return int(clock.epoch[self.update]) if self.update < clock.updates else clock.epochs

    @property
    def clock(self) -> Clock:
        """The clock of the run, as `events` gets it."""
        return self._run.table.clock

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator of the run's own for this moment, on the CPU."""
        return generator(origin(self._run.settings), self._purpose(purpose))

    def _purpose(self, name: str) -> str:
        # Each moment has draws of its own, whether the run was resumed on the way or not.
        return f"{name}@{self.update}" if self._began else name

    # Samples.

    def pool(self, name: str) -> Tensor:
        """Return the ids [N] of a part of the split, or of a pool: train, unlabelled, ..."""
        if name == "test":
            raise UserError("method: a hook must not see the test set; use validation.")
        return _pool(self._run, name)

    def labels(self, ids: Tensor) -> Tensor:
        """Return the labels [N] of samples; those of unlabelled ones are for measuring only."""
        return self._run.data.labels.index_select(0, ids)

    def fill(self, stream: str, ids: Tensor, labels: Tensor | None = None) -> None:
        """Make ids [N] the pool of a stream whose pool is ``own``, from the next epoch on.

        With ``labels`` [N] the stream has these, such as pseudo-labels, and is balanced by them.
        """
        if stream not in self._run.feeds:
            raise UserError(f"method: unknown stream {stream!r}; {choices(self._run.feeds)}.")
        ids = self._checked(stream, ids)
        for part in ("test", "validation"):
            if torch.isin(ids, self._run.ids[part]).any():
                raise UserError(
                    f"streams: {stream}: the method fills its pool with samples of the part "
                    f"{part}, which nothing may be trained on."
                )
        self._run.feeds[stream].fill(ids, labels, known=self.ids)

    def _checked(self, stream: str, ids: Any) -> Tensor:
        """Return ids [N] on the run's device; a UserError where they are no ids of samples."""
        count = len(self._run.data.labels)
        whole = isinstance(ids, Tensor) and ids.ndim == 1 and ids.dtype == torch.int64
        if not whole or (len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < count):
            shown = f"{list(ids.shape)}, {ids.dtype}" if isinstance(ids, Tensor) else repr(ids)[:80]
            raise UserError(
                f"streams: {stream}: the method fills its pool by ids [N] of samples, int64 from 0 "
                f"to {count - 1} (found {shown})."
            )
        return ids.to(self.ids.device)

    def images(self, ids: Tensor) -> Tensor:
        """Return samples [N] as networks see them, float32 [N, C, H, W], not augmented."""
        return self._run.evaluator.outputs(lambda x: x, ids)

    # What networks say of samples.

    def outputs(self, function: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
        """Return what a network or a function makes of samples [N], float32, not augmented.

        All networks are in evaluation mode meanwhile, those that a function calls, too.
        """
        own = [function] if isinstance(function, nn.Module) else []
        with evaluating(*self._run.models.values(), *own):
            return self._run.evaluator.outputs(function, ids)

    def answers(self, parent: str, ids: Tensor | None = None) -> Tensor:
        """Return a parent's log-probabilities [N, K] of samples, the labelled ones without ids."""
        return self.outputs(self._run.models[parent], self.ids if ids is None else ids)

    def left_out(self, parent: str) -> Tensor:
        """Return which of the samples no member of a parent was trained on, bool [N]."""
        run, seen = self._run, torch.zeros(len(self._run.data.labels), dtype=torch.bool)
        for trained in run.parents[parent]:
            settings = trained.settings
            split = run.dataset.split(settings["split"], settings["seed"])
            seen[torch.from_numpy(split["train"])] = True
        return ~seen.to(self.ids.device).index_select(0, self.ids)

    def accuracy(self, part: str = "validation") -> float:
        """Return the accuracy of what is evaluated, such as to choose between stages."""
        if part == "test":
            raise UserError("method: a hook must not choose by the test set; use validation.")
        if part not in ("validation", "train"):
            raise UserError(
                f"method: `moment.accuracy` is of validation or train, whose labels are known "
                f"(found {part!r:.80})."
            )
        if not len(self.pool(part)):
            if self._run.settings["split"].get("retrain"):
                raise UserError(
                    "split.retrain: must be false, for the method measures on the validation "
                    "samples."
                )
            raise UserError(f"split.{part}: must be above 0, for the method measures on it.")
        return named(self._run.evaluator.figures(part)[0].numpy(force=True))["accuracy"]

    # Weights and state.

    def drawn_again(self) -> Mapping[str, nn.Module]:
        """Return the trained networks with new initial weights, on the CPU, drawn for this moment.

        Each parameter comes from its own initialiser, and buffers are those of a new network.
        """
        return self._run.networks.drawn_again(self._purpose("init"))

    def forget(self, parts: Collection[str] = ("",)) -> None:
        """Make the optimiser's state that of a new one, for all parameters.

        Or for those of some parts, such as ``head`` (``cyclery.engine.parts``): then counters of
        steps go on.
        """
        nets, fresh = self._run.networks, self._run.new_optimiser().state()
        if isinstance(parts, str):
            raise UserError(
                "method: `moment.forget` takes a tuple of parts, as ('head',) "
                f"(found {parts!r:.80})."
            )
        held = holding("method: `moment.forget`", nets.flat.params, parts, nets.within)
        for name, value in self._run.optimiser.state().items():
            if "" in parts:
                value.copy_(fresh[name])
            elif value.shape == nets.flat.data.shape:
                new, own = nets.flat.views(fresh[name]), nets.flat.views(value)
                for parameter in held:
                    own[parameter].copy_(new[parameter])

    def restart_average(self) -> None:
        """Make the averaged weights, and their buffers, those of the trained networks."""
        for name, module in self._run.models.items():
            if name == "ema" or name.startswith("ema."):
                # In place, frozen ones too, which `event` may have changed.
                module.load_state_dict(
                    self._run.models[name.partition(".")[2] or "main"].state_dict()
                )


class Measured:
    """A run when it is evaluated, for `evaluate`; ``last`` is true at its end.

    ``update`` counts the updates that are done.
    """

    def __init__(self, run: Inside, update: int, last: bool) -> None:
        self._run, self.update, self.last = run, update, last

    def history(self, name: str) -> np.ndarray[Any, Any]:
        """Return the value of a quantity at every update that is done, float64 [update].

        ``name`` is that of a row's entry, or ``batch``.
        """
        table = self._run.table
        sizes = np.repeat(np.asarray(table.batches, np.float64), table.steps)
        columns = {"batch": sizes, **table.columns}
        if name not in columns:
            raise UserError(f"method: no quantity {name!r}; there are {choices(columns)}.")
        return columns[name][: self.update]

    def pool(self, name: str) -> Tensor:
        """Return the ids [N] of a part of the split: train, validation, test, unlabelled, ..."""
        return _pool(self._run, name)

    def labels(self, ids: Tensor) -> Tensor:
        """Return the labels [N] of samples."""
        return self._run.data.labels.index_select(0, ids)

    def true_labels(self, ids: Tensor) -> Tensor:
        """Return the labels [N] of samples without the noise that the split has."""
        data = self._run.data
        return (data.labels if data.true is None else data.true).index_select(0, ids)

    def outputs(self, function: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
        """Return what a network or a function makes of samples [N], float32, not augmented.

        All networks that are evaluated are in evaluation mode.
        """
        with evaluating(*self._run.networks.evaluated[0].values()):
            return self._run.evaluator.outputs(function, ids)

    def features(self, part: str, name: str = "features") -> Tensor:
        """Return the feature vectors [N, D] of a part's samples."""
        found = self._run.evaluator.features(self.pool(part))
        if name not in found:
            raise UserError(f"method: no features {name!r}; there are {choices(found)}.")
        return found[name]


def _pool(run: Inside, name: str) -> Tensor:
    """Return the ids [N] of a part of the split, or of a pool."""
    if name not in run.ids:
        if name == UNLABELLED:
            raise UserError(
                "split.unlabelled: the method looks at unlabelled samples; set it to all or rest."
            )
        raise UserError(f"method: no samples {name!r}; there are {choices(run.ids)}.")
    return run.ids[name]


def check_measured(method: str, declared: Sequence[str], found: Any) -> dict[str, float]:
    """Return the figures of `evaluate`; a UserError where they are not what `measures` says."""
    if not isinstance(found, Mapping):
        raise UserError(
            f"method: `evaluate` of {method!r} must return a dict (found {found!r:.80})."
        )
    for name, value in found.items():
        if name not in declared:
            raise UserError(
                f"method: `evaluate` of {method!r} returns {name!r}, which `measures` does not "
                f"declare (it declares {choices(declared) or 'nothing'})."
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"method: `evaluate` of {method!r} must return numbers (found {value!r:.80} as "
                f"{name!r})."
            )
    return {name: float(value) for name, value in found.items()}
