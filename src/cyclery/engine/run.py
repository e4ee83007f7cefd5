"""One run: a network, its data, its schedule table and a step that reads nothing from the host.

Everything that changes with time is a column of ``Table``; a step picks its row with a counter on
the device. A step draws only from the run's own generators and writes its scalars to a trace on
the device that is read once an epoch, so it can be captured and replayed.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclery import augment, methods, models, optim, schedules
from cyclery.data import splits
from cyclery.engine.metrics import figures
from cyclery.engine.stream import Stream, derive, generator
from cyclery.errors import UserError
from cyclery.models.layers import use_generator

EVALUATION_BATCH = 1000


class Diverged(Exception):
    """A loss, a logged scalar or the output of a run stopped being finite."""

    def __init__(self, update: int) -> None:
        super().__init__(f"not finite at update {update}")
        self.update = update


@dataclass(frozen=True)
class Data:
    """A prepared dataset on a device: images uint8 [N, C, H, W], labels int64 [N]."""

    images: Tensor
    labels: Tensor
    manifest: dict[str, Any]

    def to(self, device: torch.device) -> Data:
        """Return the dataset on ``device``."""
        return Data(self.images.to(device), self.labels.to(device), self.manifest)


@dataclass(frozen=True)
class Batch:
    """What a method sees: x float [B, C, H, W], y int64 [B], sample ids int64 [B]."""

    x: Tensor
    y: Tensor
    ids: Tensor


class Table:
    """The schedule table S[t, quantity] of a run, on its device."""

    def __init__(
        self,
        settings: dict[str, Any],
        samples: int,
        bounds: tuple[float, float] | None,
        device: torch.device,
    ) -> None:
        specs = dict(settings["schedules"])
        batches = schedules.epoch_batches(specs.pop("batch"), settings["epochs"], settings["seed"])
        self.clock, self.steps = schedules.clock_for(batches, samples)
        self.batches = [int(b) for b in batches]
        self.names = sorted(specs)
        self.columns = {
            name: schedules.column(specs[name], self.clock, settings["seed"], bounds)
            for name in self.names
        }
        table = np.stack([self.columns[name] for name in self.names], axis=1)
        self._table = torch.tensor(table, dtype=torch.float32, device=device)

    def row(self, update: Tensor) -> dict[str, Tensor]:
        """Return the 0-dim value of every quantity at the update that ``update`` [1] counts."""
        values = self._table.index_select(0, update).view(-1).unbind()
        return dict(zip(self.names, values, strict=True))


class Run:
    """A run in progress. Training goes epoch by epoch; state is whole between epochs."""

    def __init__(
        self,
        settings: dict[str, Any],
        data: Data,
        device: torch.device,
        bounds: tuple[float, float] | None = None,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        seed = settings["seed"]
        self.settings, self.data, self.device = settings, data, device
        set_arithmetic(settings, device)
        manifest = data.manifest
        chosen = splits.split(
            data.labels.cpu().numpy(),
            manifest["n_train"],
            manifest["classes"],
            settings["split"],
            seed,
        )
        self.ids = {name: torch.from_numpy(ids).to(device) for name, ids in chosen.items()}
        self.table = Table(settings, len(chosen["train"]), bounds, device)

        shape, kind = tuple(manifest["shape"]), settings["model"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "init"))
            net = models.build(kind["name"], kind["settings"], shape, manifest["classes"])
        if weights is not None:
            _start_from(net, weights)
        self.models: dict[str, nn.Module] = {"main": net.to(device)}
        # Convolutions of several channels are faster with channels last on a GPU.
        self.format = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        net.to(memory_format=self.format).train()
        self.flat = optim.Flat(net, channels_last=self.format is torch.channels_last)
        optimiser = settings["optimiser"]
        self.optimiser = optim.build(
            optimiser["name"],
            self.flat,
            optimiser["settings"],
            decay=bool(self.table.columns["weight_decay"].any()),
            decay_norm=bool(self.table.columns["weight_decay_norm"].any()),
        )
        self.method = methods.load(settings["method"]["name"])
        self.method_settings = self.method.settings_type(**settings["method"]["settings"])
        pixels = (shape, manifest["mean"], manifest["std"], manifest["max_value"])
        self.augment = augment.Pipeline(settings["augment"], *pixels).to(device)
        self.plain = augment.Pipeline([], *pixels).to(device)
        self.stream = Stream(
            self.ids["train"], self.augment.columns, max(self.table.batches), seed, device
        )
        # Extra draws of the method, and dropout inside networks, never touch the stream's.
        self.generator = generator(seed, "method", device)
        self.noise = generator(seed, "network", device)
        use_generator(net, self.noise)
        # Networks of other packages can only draw from torch's own generator.
        torch.manual_seed(derive(seed, "network"))

        self.epoch = 0
        self.update = torch.zeros(1, dtype=torch.int64, device=device)
        self._trace: Tensor | None = None
        # The figures after an epoch: the last evaluation on the way is the final one too.
        self._seen: tuple[int, dict[str, Any]] | None = None
        self.logged: list[str] = []
        self.curve: dict[str, list[float]] = {"epoch": [], "eval_epoch": []}

    @property
    def updates(self) -> int:
        """Updates of the whole run, those to come included."""
        return self.table.clock.updates

    @property
    def images(self) -> int:
        """Samples that the run has trained on so far, with repetition."""
        done = zip(self.table.steps[: self.epoch], self.table.batches, strict=False)
        return sum(int(steps) * size for steps, size in done)

    @property
    def finished(self) -> bool:
        """Say whether all epochs are done."""
        return self.epoch >= self.settings["epochs"]

    def step(self, size: int) -> None:
        """Train on the next ``size`` samples. Pure tensor code: no host number that changes."""
        row = self.table.row(self.update)
        ids, noise = self.stream.take(size)
        x = self.augment(self.data.images.index_select(0, ids), noise, row.get("magnitude"))
        batch = Batch(
            x.contiguous(memory_format=self.format), self.data.labels.index_select(0, ids), ids
        )
        self.flat.zero_grad()
        with self._autocast():
            loss, logs = self.method.step(
                self.models, batch, row, self.method_settings, self.generator
            )
        loss.backward()
        scalars = {"loss": loss.detach(), **{k: v.detach() for k, v in logs.items()}}
        if "clip_norm" in row:
            scalars["clipped"] = optim.clip_(self.flat, row["clip_norm"])
        self.optimiser.step(row)
        if self._trace is None:
            self.logged = list(scalars)
            self._trace = torch.zeros(self.updates, len(scalars), device=self.device)
        self._trace.index_copy_(0, self.update, torch.stack(list(scalars.values()))[None])
        self.update.add_(1)

    def train_epoch(self) -> None:
        """Train one epoch and append its mean scalars to the curve; Diverged where not finite."""
        first = int(self.table.steps[: self.epoch].sum())
        steps, size = int(self.table.steps[self.epoch]), self.table.batches[self.epoch]
        self.stream.begin_epoch()
        for _ in range(steps):
            self.step(size)
        values = self.trace(first, first + steps)
        self.epoch += 1
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise Diverged(first + int(bad.argmax()))
        self.curve["epoch"].append(self.epoch)
        for name, value in zip(self.logged, values.mean(axis=0), strict=True):
            self.curve.setdefault(f"train_{name}", []).append(float(value))

    def trace(self, first: int, last: int) -> np.ndarray[Any, Any]:
        """Return the logged scalars [last - first, logged] of these updates, float64."""
        assert self._trace is not None, "no step has been made"
        return self._trace[first:last].double().cpu().numpy()

    def evaluate(self, part: str) -> dict[str, Any]:
        """Return the figures on the ids of ``part`` (train, validation or test), in eval mode.

        Diverged where the network's output is not finite: the last update can do it, after the
        last loss was seen.
        """
        ids, net = self.ids[part], self.models["main"]
        net.eval()
        logits = []
        with torch.no_grad(), self._autocast():
            for chunk in ids.split(EVALUATION_BATCH):
                images = self.data.images.index_select(0, chunk)
                x = self.plain(images)
                logits.append(net(x.contiguous(memory_format=self.format)).float())
        net.train()
        found = figures(torch.cat(logits), self.data.labels.index_select(0, ids))
        if not math.isfinite(found["nll"]):
            raise Diverged(int(self.update) - 1)
        return found

    def evaluate_on_the_way(self) -> None:
        """Append an evaluation to the curve if this epoch is one of the run's evaluation points."""
        if self.epoch not in evaluation_epochs(self.settings):
            return
        found = self._figures()
        self.curve["eval_epoch"].append(self.epoch)
        for name in ("val_accuracy", "val_nll", "test_accuracy", "test_nll"):
            if name in found:
                self.curve.setdefault(name, []).append(found[name])

    def final(self) -> dict[str, Any]:
        """Return the figures of the last state: the selection rule is the last checkpoint."""
        count = torch.bincount(
            self.data.labels[self.ids["train"]], minlength=self.data.manifest["classes"]
        )
        return {**self._figures(), "train_class_count": count.tolist()}

    def _figures(self) -> dict[str, Any]:
        """Return the figures on the validation and test sets, as ``val_`` and ``test_``."""
        if self._seen is None or self._seen[0] != self.epoch:
            result: dict[str, Any] = {}
            for part, prefix in (("validation", "val"), ("test", "test")):
                if len(self.ids[part]):
                    result |= {f"{prefix}_{k}": v for k, v in self.evaluate(part).items()}
            self._seen = (self.epoch, result)
        return self._seen[1]

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the main network's parameters and buffers, by name, contiguous."""
        state = self.models["main"].state_dict()
        return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}

    def state(self) -> dict[str, Tensor]:
        """Return everything that the rest of the run depends on, between epochs."""
        tensors = {
            "flat": self.flat.data,
            "update": self.update,
            "method_generator": self.generator.get_state(),
            "network_generator": self.noise.get_state(),
            "cpu_rng": torch.get_rng_state(),
            **{f"stream.{k}": v for k, v in self.stream.state().items()},
            **{f"optimiser.{k}": v for k, v in self.optimiser.state().items()},
            **{f"buffer.{k}": v for k, v in self._buffers()},
        }
        if self.device.type == "cuda":
            tensors["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def load_state(self, state: dict[str, Tensor], epoch: int, curve: dict[str, Any]) -> None:
        """Continue where ``state`` was taken, after ``epoch`` epochs."""
        self.epoch, self.curve, self._seen = epoch, curve, None
        targets = {
            "flat": self.flat.data,
            "update": self.update,
            **{f"optimiser.{k}": v for k, v in self.optimiser.state().items()},
            **{f"buffer.{k}": v for k, v in self._buffers()},
        }
        with torch.no_grad():
            for name, tensor in targets.items():
                tensor.copy_(state[name])
        self.generator.set_state(state["method_generator"])
        self.noise.set_state(state["network_generator"])
        self.stream.load_state(
            {k.removeprefix("stream."): v for k, v in state.items() if k.startswith("stream.")}
        )
        torch.set_rng_state(state["cpu_rng"])
        if "cuda_rng" in state and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        for name, model in sorted(self.models.items()):
            for key, buffer in model.named_buffers():
                yield f"{name}.{key}", buffer

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings["precision"] == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def set_arithmetic(settings: dict[str, Any], device: torch.device) -> None:
    """Make the process compute as the settings say: threads, determinism, no TensorFloat-32."""
    if device.type == "cpu":
        # A run's last bits depend on its threads, so they never follow the job's cores.
        torch.set_num_threads(settings["threads"])
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(settings["deterministic"])
    torch.backends.cudnn.deterministic = settings["deterministic"]
    torch.backends.cudnn.benchmark = not settings["deterministic"]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def evaluation_epochs(settings: dict[str, Any]) -> set[int]:
    """Return after how many epochs a run is evaluated: evenly spread, the last one included."""
    epochs, count = settings["epochs"], settings["evaluations"]
    return {math.ceil(epochs * i / count) for i in range(1, count + 1)}


def _start_from(net: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a parent's weights; a UserError names what does not fit."""
    own = net.state_dict()
    wrong = sorted(
        name
        for name in own.keys() | weights.keys()
        if name not in own or name not in weights or own[name].shape != weights[name].shape
    )
    if wrong:
        raise UserError(
            f"init: the parent's weights do not fit this network (first: {wrong[0]}); parent and "
            "child need the same network, input shape and number of classes."
        )
    net.load_state_dict(weights)
