"""Evaluate networks on samples without augmentation; answers of parents before training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from cyclery.augment import Pipeline
from cyclery.engine.arithmetic import autocast
from cyclery.engine.metrics import fidelity, measure
from cyclery.engine.networks import Networks
from cyclery.engine.stream import Data, generator, origin
from cyclery.engine.teachers import Trained
from cyclery.models.layers import batch_norms
from cyclery.records.record import RunSettings, SplitChoice

BATCH = 1000


class Evaluation:
    """Evaluates the networks of a run on the parts of its split, given by name in ``ids``."""

    def __init__(
        self,
        settings: RunSettings,
        networks: Networks,
        data: Data,
        ids: dict[str, Tensor],
        plain: Pipeline,
    ) -> None:
        self._settings, self._networks, self._data = settings, networks, data
        self._ids, self._plain = ids, plain

    @torch.no_grad()
    def figures(self, part: str) -> Tensor:
        """Return the figures of every evaluated network, a row each: ``metrics.measure``."""
        labels = self._data.labels.index_select(0, self._ids[part])
        rows = [measure(self._logits(net, part), labels) for net in self._networks.evaluated]
        return torch.stack(rows)

    @torch.no_grad()
    def fidelity(self, part: str) -> Tensor:
        """Return how well the evaluated network copies the reference: ``metrics.fidelity``."""
        assert self._networks.reference is not None
        logits = self._logits(self._networks.evaluated[0], part)
        return fidelity(logits, self.outputs(self._networks.reference, self._ids[part]))

    @torch.no_grad()
    def outputs(self, net: nn.Module, ids: Tensor) -> Tensor:
        """Return the outputs of a network, in its present mode, for samples [N], float32."""
        return torch.cat(list(self._chunks(net, ids)))

    def rehearse(self) -> None:
        """Run once what the final figures need, which is not captured.

        So that the memory they need is held before other runs are admitted.
        """
        few = self._ids["train"][:BATCH]
        main, reference = self._networks.evaluated[0], self._networks.reference
        main.eval()
        self.outputs(main, few)
        main.train()
        if reference is not None:
            self.outputs(reference, few)

    @torch.no_grad()
    def measure_statistics(self) -> None:
        """Set batch norm's running statistics to those of the training samples.

        The statistics of two networks do not describe one between them.
        """
        norms = batch_norms(self._networks.models["main"])
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over all passes
        main, ids = self._networks.models["main"], self._ids["train"]
        # In passes of equal size, for each counts as much as another.
        for chunk in ids.tensor_split(-(-len(ids) // BATCH)) if norms else ():
            self.outputs(main, chunk)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        average = self._networks.models.get("ema", main)
        for buffer, measured in zip(average.buffers(), main.buffers(), strict=True):
            buffer.copy_(measured)

    def _logits(self, net: nn.Module, part: str) -> Tensor:
        """Return the logits [N, K] of a network in evaluation mode."""
        net.eval()
        logits = self.outputs(net, self._ids[part])
        net.train()
        return logits

    def _chunks(self, net: nn.Module, ids: Tensor) -> Iterator[Tensor]:
        for chunk in ids.split(BATCH):
            x = self._plain(self._data.images.index_select(0, chunk))
            with autocast(self._settings, ids.device):
                yield net(x.contiguous(memory_format=self._networks.format)).float()


class Begun(Protocol):
    """The attributes of a run that `Beginning` reads."""

    @property
    def settings(self) -> RunSettings:
        """Return its resolved settings."""

    @property
    def data(self) -> Data:
        """Return its dataset."""

    @property
    def ids(self) -> Mapping[str, Tensor]:
        """Return the ids of the parts of its split."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """Return its networks and teachers by name."""

    @property
    def parents(self) -> Mapping[str, Sequence[Trained]]:
        """Return the finished runs of its parents."""

    @property
    def evaluator(self) -> Evaluation:
        """Return the evaluator of its networks."""

    def split(self, settings: SplitChoice, seed: int) -> dict[str, np.ndarray[Any, Any]]:
        """Return the ids of the parts of a split of its data."""


class Beginning:
    """What a method's ``begin`` hook may use of a run before it is trained.

    ``ids`` [N] and ``y`` [N] are the labelled training samples.
    """

    def __init__(self, run: Begun) -> None:
        self._run = run
        self.ids = run.ids["train"]
        self.y = run.data.labels.index_select(0, self.ids)

    def generator(self, purpose: str) -> torch.Generator:
        """Return a generator of the run's own, on the CPU."""
        return generator(origin(self._run.settings), purpose)

    def answers(self, parent: str) -> Tensor:
        """Return a parent's log-probabilities [N, K] of the samples, not augmented."""
        return self._run.evaluator.outputs(self._run.models[parent], self.ids)

    def left_out(self, parent: str) -> Tensor:
        """Return which of the samples no member of a parent was trained on, bool [N]."""
        run, seen = self._run, torch.zeros(len(self._run.data.labels), dtype=torch.bool)
        for trained in run.parents[parent]:
            settings = trained.settings
            split = run.split(settings["split"], settings["seed"])
            seen[torch.from_numpy(split["train"])] = True
        return ~seen.to(self.ids.device).index_select(0, self.ids)
