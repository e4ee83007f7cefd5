"""Benchmark cases: networks, batches, methods, and who trains them.

A row of the benchmark is a ``Case`` in several ``Variant``s. A case becomes the settings of runs
of the engine and, for the hand-written loop, a plain ``task``: both train the same thing. Nothing
here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from cyclery.records.record import RunSettings

Json = dict[str, Any]

EPOCHS = 300  # more than a run trains in all turns; it fixes the length of the schedules
CLASSES = 10
TEST, VALIDATION = 2_000, 1_000
LEAST_LABELS = 4_000
MU = 7  # the usual number of unlabelled samples for each labelled one
RATE, MOMENTUM, DECAY, EMA_DECAY = 0.03, 0.9, 5e-4, 0.999


@dataclass(frozen=True)
class Method:
    """A method: what it is called in titles, its settings, and the quantities it has scheduled."""

    title: str
    settings: Json
    quantities: Json


METHODS = {
    "supervised": Method("", {}, {"temperature": 1.0}),
    "cyclical_focal": Method("cyclical focal loss", {"label_smoothing": 0.1}, {
        "eta": {"kind": "cycle", "easy": 1.0, "hard": 0.0, "factor": 4.0},
        "gamma_hc": 3.0, "gamma_pos": 2.0, "gamma_neg": 2.0,
    }),
    "kd": Method("KD", {}, {"temperature": 4.0, "soft": 0.9}),
    "fixmatch": Method("FixMatch", {}, {"temperature": 1.0, "threshold": 0.95, "weight": 1.0}),
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """Who trains: the loop, or runs of the engine, ``width`` of them side by side.

    ``capture`` and ``compiled`` are the engine's. In a ``pack`` the runs are stacked and train as
    one program. With ``processes`` each run has a process of its own, on one thread.
    """

    kind: str = "engine"
    precision: str = "fp32"
    capture: bool = False
    compiled: bool = False
    width: int = 1
    processes: bool = False
    pack: bool = False

    @property
    def name(self) -> str:
        """The name in tables and figures."""
        if self.kind == "loop":
            return f"loop {self.precision}"
        if self.processes:
            return f"engine, {self.width} process{'es' if self.width > 1 else ''}"
        if self.pack:
            return f"pack of {self.width}"
        if not self.capture:
            return f"engine eager {self.precision}"
        beside = f" x {self.width}" if self.width > 1 else ""
        return f"{'compiled' if self.compiled else 'captured'} {self.precision}{beside}"


LOOP = Variant("loop")
LOOPS = (LOOP, Variant("loop", "bf16"))
EAGER = Variant()
EAGER_BF16 = Variant(precision="bf16")


def packs(*widths: int) -> tuple[Variant, ...]:
    """Return packs of so many runs, each run computed in fp32."""
    return tuple(Variant(pack=True, width=width) for width in widths)


def captured(*widths: int) -> tuple[Variant, ...]:
    """Return the engine at its fastest but for torch.compile, at these widths."""
    return tuple(Variant(precision="bf16", capture=True, width=width) for width in widths)


def with_compile(*widths: int) -> tuple[Variant, ...]:
    """Return the engine at its fastest, at these widths."""
    return tuple(
        Variant(precision="bf16", capture=True, compiled=True, width=width) for width in widths
    )


@dataclass(frozen=True)
class Net:
    """A network and the images that it is measured on, (channels, height, width)."""

    title: str
    name: str
    settings: Json
    shape: tuple[int, int, int] = (3, 32, 32)


_DIGITS = (1, 8, 8)
BN_MLP = Net("BN-MLP 64-128-128-10", "bn_mlp", {"hidden": [128, 128]}, _DIGITS)
TEACHER = Net("64-256-256-10", "bn_mlp", {"hidden": [256, 256]}, _DIGITS)
CNN_16 = Net("small CNN, width 16, 8x8", "small_cnn", {"width": 16}, _DIGITS)
CNN_28 = Net("small CNN, width 16, 28x28", "small_cnn", {"width": 16}, (1, 28, 28))
WRN_10_1 = Net("WRN-10-1", "wrn", {"depth": 10, "width": 1}, _DIGITS)
CNN_32 = Net("small CNN, width 32", "small_cnn", {"width": 32})
WRN_28_2 = Net("WRN-28-2", "wrn", {"depth": 28, "width": 2})
RESNET_18 = Net("ResNet-18", "resnet18", {})


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        row: The name that ``--rows`` selects.
        net: The network.
        batch: Labelled samples in an update.
        steps: Updates in an epoch. A turn of the measurement is one epoch of every run.
        variants: Who is measured; the first is the loop that the others are compared with.
        method: One of ``METHODS``.
        mu: FixMatch's unlabelled samples for each labelled one.
        teacher: The network that teaches in KD, each run having one of its own.
        whole: Where it is above 0, a turn is a run of so many epochs from its start, evaluated
            after each of them.
        share: This row's part of the time.
    """

    row: str
    net: Net
    batch: int
    steps: int
    variants: tuple[Variant, ...]
    method: str = "supervised"
    whole: int = 0
    share: float = 1.0
    mu: int = 0
    teacher: Net | None = None

    @property
    def title(self) -> str:
        """The name in tables and figures."""
        text = f"{self.net.title}, batch {self.batch}"
        if self.mu:
            text += f" + {self.mu} x {self.batch}"
        if method := METHODS[self.method].title:
            text = f"{method}{f' from {self.teacher.title}' if self.teacher else ''}, {text}"
        if self.whole:
            text = f"whole run, {text}, evaluated {self.whole} times"
        if any(variant.processes for variant in self.variants):
            text += ", in processes"
        if any(variant.compiled for variant in self.variants):
            text += ", torch.compile"
        return text

    @property
    def images(self) -> int:
        """Images that pass the network in an update, all views counted."""
        return self.batch * (1 + 2 * self.mu)

    @property
    def epochs(self) -> int:
        """Epochs of a run."""
        return self.whole or EPOCHS

    @property
    def labels(self) -> int:
        """Labelled training images."""
        return LEAST_LABELS if self.mu else max(LEAST_LABELS, self.batch * self.steps)

    @property
    def manifest(self) -> Json:
        """What the engine knows of a prepared dataset."""
        channels = self.net.shape[0]
        return {
            "n_train": self.labels + TEST + VALIDATION,
            "classes": CLASSES,
            "shape": list(self.net.shape),
            "max_value": 16 if self.net.shape == _DIGITS else 255,
            "mean": [0.5] * channels,
            "std": [0.25] * channels,
        }

    @property
    def augment(self) -> list[Json]:
        """The weak view: a shift by an eighth of the side, and a flip of what is no digit."""
        shift = {"op": "shift", "size": self.net.shape[1] // 8}
        return [shift] if self.net.shape == _DIGITS else [{"op": "flip"}, shift]

    @property
    def strong(self) -> list[Json]:
        """What makes a view strong."""
        cutout = {"op": "cutout", "size": self.net.shape[1] // 2}
        return [{"op": "policy"}, cutout] if self.mu else []

    @property
    def ema_decay(self) -> float | None:
        """The decay of the averaged weights; a whole run has none."""
        return None if self.whole else EMA_DECAY

    def settings(self, variant: Variant, seed: int) -> RunSettings:
        """Return the resolved settings of a run of the engine."""
        method = METHODS[self.method]
        schedules: Json = {
            "lr": {"kind": "cosine_arc" if self.mu else "cosine", "peak": RATE},
            "momentum": MOMENTUM, "weight_decay": DECAY, "weight_decay_norm": 0.0,
            "batch": self.batch, **method.quantities,
        }  # fmt: skip
        if self.ema_decay:
            schedules["ema_decay"] = self.ema_decay
        pool = "all" if self.mu else None
        split = {"test": TEST, "validation": VALIDATION, "labels": self.labels, "unlabelled": pool}
        found = {
            "method": {"name": self.method, "settings": method.settings},
            "split": split,
            "model": {"name": self.net.name, "settings": self.net.settings},
            "optimiser": {"name": "sgd", "settings": {"nesterov": True}},
            "schedules": schedules,
            "augment": self.augment, "strong": self.strong, "mu": self.mu or None,
            "epoch_images": self.batch * self.steps, "ema_buffers": "shared",
            "epochs": self.epochs, "evaluations": self.whole or 1, "compile": variant.compiled,
            "init": None, "init_share": None, "draw": None,
            "precision": variant.precision, "deterministic": False, "threads": 1, "seed": seed,
        }  # fmt: skip
        # What names versions and contents of files is read by nothing here.
        return cast(RunSettings, found)

    def task(self, variant: Variant) -> Json:
        """Return the same for the hand-written loop, but for the ids."""
        method, teacher = METHODS[self.method], self.teacher
        return {
            **method.settings, **method.quantities,
            "net": {"name": self.net.name, "settings": self.net.settings},
            "teacher": teacher and {"name": teacher.name, "settings": teacher.settings},
            **{key: self.manifest[key] for key in ("classes", "max_value", "mean", "std")},
            "augment": self.augment, "strong": self.strong, "batch": self.batch, "mu": self.mu,
            "steps": self.steps, "updates": self.epochs * self.steps, "peak": RATE,
            "momentum": MOMENTUM, "decay": DECAY, "ema_decay": self.ema_decay,
            "bf16": variant.precision == "bf16", "seed": 0,
        }  # fmt: skip


def rows(device: str, cores: int, bf16: bool) -> list[Case]:
    """Return the rows for ``cpu`` or ``cuda``, the most important ones first.

    ``bf16`` says whether a CPU computes in it by itself.
    """
    return _on_cpu(cores, bf16) if device == "cpu" else _on_gpu()


def _on_cpu(cores: int, bf16: bool) -> list[Case]:
    # No graphs here. What trains side by side are packs, or processes, of one thread each.
    both, stacked = (LOOP, EAGER), (LOOP, EAGER, *packs(1, 4, 16))
    precisions = (*LOOPS, EAGER, *([EAGER_BF16] if bf16 else []))
    widths = [width for width in (1, 2, 4, 8) if width <= cores]
    processes = tuple(Variant(processes=True, width=width) for width in widths)
    return [
        Case("step/bn-mlp/50", BN_MLP, 50, 100, stacked, share=1.5),
        Case("focal/bn-mlp/50", BN_MLP, 50, 100, stacked, "cyclical_focal", share=1.5),
        Case("kd/bn-mlp/50", BN_MLP, 50, 100, stacked, "kd", share=1.5, teacher=TEACHER),
        Case("fixmatch/bn-mlp/32", BN_MLP, 32, 20, stacked, "fixmatch", share=1.5, mu=3),
        Case("step/small-cnn-16-28/64", CNN_28, 64, 15, precisions, share=1.5),
        Case("step/small-cnn-16/64", CNN_16, 64, 63, both),
        Case("step/wrn-10-1/64", WRN_10_1, 64, 30, both),
        Case("fixmatch/small-cnn-16/64", CNN_16, 64, 5, both, "fixmatch", share=1.5, mu=MU),
        Case("run/small-cnn-16/64", CNN_16, 64, 63, both, whole=2, share=2),
        Case("processes/small-cnn-16/64", CNN_16, 64, 100, (LOOP, *processes), share=2),
    ]


def _on_gpu() -> list[Case]:
    alone = (*LOOPS, EAGER, *captured(1))
    wider = (*alone, *captured(2, 4, 8))
    fast, faster = (*LOOPS, *with_compile(1, 4)), (*LOOPS, *with_compile(1, 8))
    return [
        Case("step/wrn-28-2/64", WRN_28_2, 64, 100, wider, share=3),
        Case("step/small-cnn/64", CNN_32, 64, 300, wider, share=2.5),
        Case("fixmatch/wrn-28-2/64", WRN_28_2, 64, 15, wider, "fixmatch", share=4, mu=MU),
        Case("step/wrn-28-2/512", WRN_28_2, 512, 25, wider, share=3),
        Case("step/resnet-18/512", RESNET_18, 512, 25, wider, share=3),
        Case("step/small-cnn/512", CNN_32, 512, 100, alone),
        Case("step/resnet-18/64", RESNET_18, 64, 100, alone),
        Case("run/wrn-28-2/64", WRN_28_2, 64, 100, (*LOOPS, EAGER, *captured(1, 4)), whole=4,
             share=2.5),
        Case("compiled/wrn-28-2/64", WRN_28_2, 64, 100, faster, share=1.5),
        Case("compiled/small-cnn/64", CNN_32, 64, 300, faster, share=1.5),
        Case("compiled/fixmatch/64", WRN_28_2, 64, 15, fast, "fixmatch", share=2, mu=MU),
        Case("compiled/wrn-28-2/512", WRN_28_2, 512, 25, fast, share=1.5),
        Case("compiled/resnet-18/512", RESNET_18, 512, 25, fast, share=1.5),
    ]  # fmt: skip
