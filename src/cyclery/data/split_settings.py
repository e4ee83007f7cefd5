"""Settings of a split, declared once for configuration, planning and training.

Neither numpy nor torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.settings import read, read_layer


@dataclass(frozen=True, kw_only=True)
class TwoLevel:
    """Half of the classes, drawn per seed, hold more samples than the other half."""

    kind: Literal["two_level"] = field(metadata={"doc": "names this imbalance"})
    ratio: tuple[int, int] = field(
        metadata={
            "doc": "samples per class in the larger and in the smaller half, as in [5, 3]",
            "low": 1,
        }
    )

    def weights(self, classes: int) -> list[float]:
        """Return the share of every class, largest first."""
        heads = classes // 2
        more, fewer = self.ratio
        weights = [float(more)] * heads + [float(fewer)] * (classes - heads)
        return weights if more >= fewer else weights[::-1]

    def __str__(self) -> str:
        return f"two_level {self.ratio[0]}:{self.ratio[1]}"


@dataclass(frozen=True, kw_only=True)
class LongTail:
    """Exponential long tail: class k of K holds n_max * ratio^(k / (K - 1)) samples."""

    kind: Literal["long_tail"] = field(metadata={"doc": "names this imbalance"})
    ratio: float = field(
        metadata={"doc": "samples of the rarest class over the commonest", "above": 0, "high": 1}
    )

    def weights(self, classes: int) -> list[float]:
        """Return the share of every class, largest first."""
        return [self.ratio ** (k / max(1, classes - 1)) for k in range(classes)]

    def __str__(self) -> str:
        return f"long_tail {self.ratio:g}"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Which samples train, validate and test; a pure function of these and the seed."""

    test: int | None = field(
        default=None,
        metadata={
            "doc": "test samples drawn per seed; null where the dataset has a test set",
            "low": 1,
        },
    )
    validation: int = field(
        default=0,
        metadata={
            "doc": "validation samples, drawn stratified from the training set",
            "low": 0,
        },
    )
    labels: int | None = field(
        default=None,
        metadata={
            "doc": "training samples in total; null takes all that are left",
            "low": 1,
        },
    )
    per_class: int | None = field(
        default=None,
        metadata={
            "doc": "training samples of every class, under a long tail of the largest; excludes "
            "`labels`",
            "low": 1,
        },
    )
    choose: Literal["random", "first"] = field(
        default="random",
        metadata={
            "doc": "`random` draws the training samples per seed, `first` takes the first ones in "
            "file order"
        },
    )
    imbalance: TwoLevel | LongTail | None = field(
        default=None,
        metadata={"doc": "class imbalance of the training samples; null keeps the dataset's own"},
    )
    unlabelled: Literal["all", "rest"] | None = field(
        default=None,
        metadata={
            "doc": "pool of unlabelled samples: `all` training samples but validation and test, "
            "the labelled ones among them, or the `rest` without the labelled ones"
        },
    )
    share: int = field(
        default=1,
        metadata={
            "doc": "seeds in a row that share a split, which is drawn for seed // share: for runs "
            "whose parents belong to several seeds",
            "low": 1,
        },
    )
    folds: int | None = field(
        default=None,
        metadata={
            "doc": "parts that the training samples are divided into, each class evenly",
            "low": 2,
        },
    )
    fold: int | None = field(
        default=None,
        metadata={"doc": "the part that is left out of training, 0 to folds - 1", "low": 0},
    )

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or leave the number of samples open."""
        if self.labels is not None and self.per_class is not None:
            raise UserError(
                f"labels: must be null beside `per_class` {self.per_class} (found {self.labels})."
            )
        if self.labels is None and self.per_class is None:
            if self.choose == "first":
                raise UserError(
                    "choose: must be random where `labels` and `per_class` are null, for `first` "
                    "takes so many (found 'first')."
                )
            if self.imbalance is not None:
                raise UserError(
                    "imbalance: must be null where `labels` and `per_class` are, which it shares "
                    f"out (found {self.imbalance})."
                )
        if isinstance(self.imbalance, TwoLevel) and self.per_class is not None:
            raise UserError(
                "per_class: must be null with a two_level imbalance, which shares out `labels` "
                f"(found {self.per_class})."
            )
        if (self.folds is None) != (self.fold is None) or (self.fold or 0) >= (self.folds or 1):
            allowed = "null" if self.folds is None else f"from 0 to {self.folds - 1}"
            found = "null" if self.fold is None else self.fold
            raise UserError(f"fold: must be {allowed} with this `folds` (found {found}).")


def parse(settings: Mapping[str, Any]) -> Split:
    """Return the settings of a split, in which null means the default.

    A UserError begins with the key, as ``split.labels``, and says what is allowed.
    """
    return read(Split, {key: v for key, v in settings.items() if v is not None}, "split")


def check_layer(settings: Any, where: str) -> Any:
    """Return what one layer says of a split, as it is; a UserError says what is wrong with it."""
    given = settings
    if isinstance(settings, Mapping):
        # An unknown key is a mistake whatever it holds.
        given = {key: v for key, v in settings.items() if v is not None or not _known(key)}
    read_layer(Split, given, where)
    return settings


def _known(key: Any) -> bool:
    return key in Split.__dataclass_fields__
