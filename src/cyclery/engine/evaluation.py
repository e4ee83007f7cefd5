"""Evaluate networks on samples without augmentation; answers of parents before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from cyclery.augment import Pipeline
from cyclery.engine.arithmetic import autocast
from cyclery.engine.metrics import fidelity, measure
from cyclery.engine.networks import Networks
from cyclery.engine.stream import Data
from cyclery.models.layers import batch_norms, evaluating
from cyclery.records.record import RunSettings

T = TypeVar("T")
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

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._data.images.device

    @torch.no_grad()
    def figures(self, part: str) -> Tensor:
        """Return the figures of all that is evaluated, a row each: ``metrics.measure``."""
        labels = self._data.labels.index_select(0, self._ids[part])
        ids = self._ids[part]
        rows = [measure(self._logits(nets, ids), labels) for nets in self._networks.evaluated]
        return torch.stack(rows)

    @torch.no_grad()
    def fidelity(self, part: str) -> Tensor:
        """Return how well what is evaluated copies the reference: ``metrics.fidelity``."""
        assert self._networks.reference is not None
        ids = self._ids[part]
        logits = self._logits(self._networks.evaluated[0], ids)
        return fidelity(logits, self.outputs(self._networks.reference, ids))

    @torch.no_grad()
    def outputs(self, function: Callable[[Tensor], Tensor], ids: Tensor) -> Tensor:
        """Return what a network in its present mode, or a function, makes of samples [N]: float32.

        Samples are not augmented.
        """
        return torch.cat([found.float() for found in self._chunks(function, ids)])

    @torch.no_grad()
    def features(self, ids: Tensor) -> dict[str, Tensor]:
        """Return the feature vectors [N, D] of samples [N] by name, in evaluation mode."""
        nets = self._networks.evaluated[0]
        with evaluating(*nets.values()):
            found = list(self._chunks(lambda x: self._networks.features(nets, x), ids))
        return {name: torch.cat([each[name].float() for each in found]) for name in found[0]}

    def rehearse(self) -> None:
        """Run once what the final figures need, which is not captured.

        So that the memory they need is held before other runs are admitted.
        """
        few, reference = self._ids["train"][:BATCH], self._networks.reference
        self._logits(self._networks.evaluated[0], few)
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

    def _logits(self, nets: Mapping[str, nn.Module], ids: Tensor) -> Tensor:
        """Return the logits [N, K] of networks in evaluation mode for samples [N]."""
        with evaluating(*nets.values()):
            return self.outputs(lambda x: self._networks.predict(nets, x), ids)

    def _chunks(self, function: Callable[[Tensor], T], ids: Tensor) -> Iterator[T]:
        for chunk in ids.split(BATCH):
            x = self._plain(self._data.images.index_select(0, chunk))
            with autocast(self._settings, ids.device):
                yield function(x.contiguous(memory_format=self._networks.format))
