"""Settings of a split, declared once for configuration, planning and training.

Neither numpy nor torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cyclery.common.errors import UserError, choices
from cyclery.common.settings import checked, plain, read, read_layer
from cyclery.data import outliers
from cyclery.data.dataset import Dataset
from cyclery.data.split_parts import (
    Asymmetric,
    LongTail,
    OpenSet,
    Resolution,
    Symmetric,
    TwoLevel,
    check_coarse,
    check_levels,
    hierarchy,
    part,
)

# What the resolved split leaves out where it is as these say, so that it may be added to without
# another key for runs that ask nothing of it.
NOTHING: dict[str, Any] = {
    "part": None,
    "noise": None,
    "hierarchy": None,
    "hierarchy_order": True,
    "coarse": None,
    "open_set": None,
    "unlabelled_pool": None,
    "unlabelled_imbalance": None,
    "resolution": None,
    "retrain": False,
}


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
    choose: Literal["random", "first", "blocks"] = field(
        default="random",
        metadata={
            "doc": "`random` draws the training samples per seed, `first` takes the first ones in "
            "the official order of the dataset; `blocks` cuts each class, in that order, into "
            "blocks of `per_class` training samples and an even share of the validation samples "
            "behind them, and takes the block seed // share"
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
    part: Annotated[
        Any, checked(part, {"anyOf": [{"type": "integer", "minimum": 0}, {"const": "seed"}]})
    ] = field(
        default=None,
        metadata={
            "doc": "instead of `fold`, the only part that is trained on, 0 to folds - 1; `seed` "
            "takes seed modulo folds, so that with `share: folds` so many seeds in a row divide "
            "the samples of one split among them"
        },
    )
    noise: Symmetric | Asymmetric | None = field(
        default=None,
        metadata={"doc": "noise of the labels of training samples, drawn per seed; null has none"},
    )
    hierarchy: Annotated[
        Any,
        checked(
            hierarchy,
            {
                "anyOf": [
                    {"type": "string"},
                    {
                        "type": "array",
                        "items": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    },
                    {"type": "null"},
                ]
            },
        ),
    ] = field(
        default=None,
        metadata={
            "doc": "coarser levels above the classes: the name of a hierarchy that the dataset "
            "declares, or for each level, finer ones first, a list with the group of every class"
        },
    )
    hierarchy_order: Literal[True, "random"] = field(
        default=True,
        metadata={
            "doc": "`true` keeps the classes of each group, `random` deals classes to groups of "
            "the same sizes, drawn per seed: a placebo"
        },
    )
    coarse: tuple[int, ...] | None = field(
        default=None,
        metadata={
            "doc": "samples labelled only at level 2, 3, ... of the hierarchy, drawn after "
            "`labels` and as these are; they are unlabelled at finer levels",
            "low": 0,
        },
    )
    open_set: OpenSet | None = field(
        default=None,
        metadata={"doc": "known classes, and how many samples of others are among the unlabelled"},
    )
    unlabelled_pool: int | None = field(
        default=None,
        metadata={
            "doc": "size of the unlabelled pool, drawn stratified, with the labelled samples that "
            "`all` adds; null takes all there are; an open set has `open_set.pool` instead",
            "low": 1,
        },
    )
    unlabelled_imbalance: TwoLevel | LongTail | None = field(
        default=None,
        metadata={
            "doc": "class imbalance of the unlabelled samples, with the classes in the order of "
            "`imbalance`; as many as surely are there; labelled ones that `all` adds, and samples "
            "of unknown classes, are not counted"
        },
    )
    resolution: Resolution | None = field(
        default=None,
        metadata={"doc": "resolution of the images; null keeps the dataset's"},
    )
    retrain: bool = field(
        default=False,
        metadata={
            "doc": "whether an arm's runs train on the validation samples too, which only its "
            "search then holds out"
        },
    )

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other or leave the number of samples open."""
        self._check_rows()
        self._check_pools()

    def _check_rows(self) -> None:
        if self.labels is not None and self.per_class is not None:
            raise UserError(
                f"labels: must be null beside `per_class` {self.per_class} (found {self.labels})."
            )
        if self.labels is None and self.per_class is None:
            if self.choose != "random":
                raise UserError(
                    "choose: must be random where `labels` and `per_class` are null, for "
                    f"`{self.choose}` takes so many (found {self.choose!r})."
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
        if self.choose == "blocks":
            self._check_blocks()
        if self.retrain and (not self.validation or self.folds is not None):
            what = "without `validation`" if not self.validation else "beside `folds`"
            raise UserError(f"retrain: must be false {what} (found true).")
        if self.part is not None:
            self._check_part()
        elif (self.folds is None) != (self.fold is None) or (self.fold or 0) >= (self.folds or 1):
            allowed = "null" if self.folds is None else f"from 0 to {self.folds - 1}"
            found = "null" if self.fold is None else self.fold
            raise UserError(f"fold: must be {allowed} with this `folds` (found {found}).")

    def _check_blocks(self) -> None:
        for key in ("test", "labels", "imbalance"):
            if (found := getattr(self, key)) is not None:
                raise UserError(
                    f"{key}: must be null where `choose` is blocks, which are of the whole "
                    f"training set, with `per_class` samples of every class (found {found})."
                )

    def _check_part(self) -> None:
        if self.fold is not None:
            raise UserError(
                f"part: must be null beside `fold`, which trains on the other parts "
                f"(found {self.part!r})."
            )
        if self.folds is None:
            raise UserError(f"part: must be null without `folds` (found {self.part!r}).")
        if self.part != "seed" and self.part >= self.folds:
            raise UserError(
                f"part: must be from 0 to {self.folds - 1} with this `folds`, or seed "
                f"(found {self.part})."
            )

    def _check_pools(self) -> None:
        for key, value in (
            ("unlabelled_pool", self.unlabelled_pool),
            ("unlabelled_imbalance", self.unlabelled_imbalance),
            ("open_set.pool", self.open_set and self.open_set.pool),
            ("open_set.contamination", self.open_set and self.open_set.contamination),
        ):
            if value is not None and self.unlabelled is None:
                raise UserError(
                    f"{key}: must be null without `unlabelled`, the pool that it is about "
                    f"(found {value})."
                )
        if self.unlabelled_pool is not None and self.open_set is not None:
            raise UserError(
                "unlabelled_pool: must be null beside `open_set`, which has a `pool` of its own "
                f"(found {self.unlabelled_pool})."
            )
        without = "without `hierarchy`, which has the levels"
        if self.hierarchy is None and self.hierarchy_order == "random":
            raise UserError(f"hierarchy_order: must be true {without} (found 'random').")
        if self.hierarchy is None and self.coarse is not None:
            raise UserError(f"coarse: must be null {without} (found {list(self.coarse)}).")
        if self.coarse is not None and not isinstance(self.hierarchy, str):
            check_coarse(self.coarse, self.hierarchy, "coarse")

    def known(self, classes: int) -> tuple[int, ...]:
        """Return the known classes in ascending order, of all that the dataset has."""
        return tuple(sorted(self.open_set.classes)) if self.open_set else tuple(range(classes))

    def block(self, known: int) -> int:
        """Return the samples of each class in a block, of so many known classes."""
        return (self.per_class or 0) + self.validation // known

    def check_classes(self, classes: int) -> None:
        """Raise a UserError where settings name classes that a dataset of so many has not."""
        if self.open_set is not None:
            self.open_set.check(classes)
        known = self.known(classes)
        if self.choose == "blocks" and self.validation % len(known):
            raise UserError(
                f"split.validation: must be a multiple of {len(known)}, the classes, where "
                f"`choose` is blocks (found {self.validation})."
            )
        if self.noise is not None:
            self.noise.check(classes, known)
        if self.hierarchy is not None and not isinstance(self.hierarchy, str):
            check_levels(self.hierarchy, classes, known)


def parse(settings: Mapping[str, Any]) -> Split:
    """Return the settings of a split, in which null means the default.

    A UserError begins with the key, as ``split.labels``, and says what is allowed.
    """
    return read(Split, {key: v for key, v in settings.items() if v is not None}, "split")


def canonical(
    split: Split, dataset: Dataset, datasets: Mapping[str, Dataset] | None = None
) -> dict[str, Any]:
    """Return the resolved split as JSON has it, which enters the run keys.

    Of the settings in `NOTHING` those that say nothing are left out, a hierarchy stands with its
    levels instead of its name, known classes are in ascending order, and outliers of another of
    the ``datasets`` stand with its identity.
    """
    found: dict[str, Any] = plain(split)
    if isinstance(split.hierarchy, str):
        found["hierarchy"] = _declared(split.hierarchy, dataset)
        if split.coarse is not None:
            check_coarse(split.coarse, found["hierarchy"], "split.coarse")
    if split.open_set is not None:
        found["open_set"]["classes"] = sorted(split.open_set.classes)
        if split.open_set.outliers is None:
            split.open_set.check_unknown(dataset.classes)
        outliers.resolve(found["open_set"], dataset, datasets or {})
    if split.noise is not None and split.noise.rate == 0:
        found["noise"] = None
    if split.resolution is not None:
        sides = {split.resolution.stored, *split.resolution.shape(dataset.shape)[1:]}
        if sides == set(dataset.shape[1:]):
            found["resolution"] = None
    return {key: v for key, v in found.items() if key not in NOTHING or v != NOTHING[key]}


def _declared(name: str, dataset: Dataset) -> list[list[int]]:
    """Return the levels of a hierarchy that the dataset declares."""
    if name not in dataset.hierarchies:
        known = choices(dataset.hierarchies) or "of which there is none"
        raise UserError(
            f"split.hierarchy: must be one that the dataset {dataset.name} declares, {known}, or "
            f"lists (found {name!r:.80})."
        )
    return [list(level) for level in dataset.hierarchies[name]]


def without_unlabelled(split: dict[str, Any]) -> None:
    """Take what is said of unlabelled samples out of a resolved split, whose method has none."""
    split["unlabelled"] = None
    split.pop("unlabelled_pool", None)
    split.pop("unlabelled_imbalance", None)
    if "open_set" in split:
        split["open_set"] = {**split["open_set"], "pool": None, "contamination": None}
        split["open_set"].pop("outliers", None)


def class_count(settings: Mapping[str, Any], classes: int) -> int:
    """Return how many classes a network predicts: of an open set the known ones."""
    if settings.get("open_set") is None:
        return classes
    return len(parse(settings).known(classes))


def resolution(settings: Mapping[str, Any], shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return channels, height and width of the images that the network sees.

    Raises:
        UserError: the resolution does not fit the dataset's images, which have this shape.
    """
    wanted = parse(settings).resolution if settings.get("resolution") else None
    return shape if wanted is None else wanted.shape(shape)


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
