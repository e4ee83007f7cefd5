"""Settings within a split: imbalance, label noise, parts, hierarchies, open sets, resolutions.

Neither numpy nor torch is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cyclery.common.errors import UserError
from cyclery.common.settings import checked
from cyclery.data.hierarchies import check_hierarchy

Levels = Sequence[Sequence[int]]


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


def _class_map(value: Any, where: str) -> dict[str, int]:
    """Return a map from class to class; its keys are text, as they are in JSON."""
    pairs = value.items() if isinstance(value, Mapping) else ()
    found = {
        int(key): to
        for key, to in pairs
        if isinstance(key, int | str) and not isinstance(key, bool) and str(key).isascii()
        and str(key).isdecimal() and len(str(key)) < 10
        and isinstance(to, int) and not isinstance(to, bool) and to >= 0
    }  # fmt: skip
    if not found or len(found) != len(value):
        raise UserError(
            f"{where}: must give classes for classes by their numbers, as in {{9: 1, 3: 5}} "
            f"(found {value!r:.80})."
        )
    return {str(key): found[key] for key in sorted(found)}


@dataclass(frozen=True, kw_only=True)
class Symmetric:
    """A wrong label is any other class, each as likely: its row of the confusion matrix is flat.

    A sample is wrong with the probability `rate`, whatever other samples are, so that a higher
    rate keeps the wrong labels of a lower one, and a larger training set those of a smaller one.
    """

    kind: Literal["symmetric"] = field(metadata={"doc": "names this noise"})
    rate: float = field(
        metadata={"doc": "probability of a wrong label, never the true one", "low": 0, "high": 1}
    )
    validation: bool = field(
        default=False, metadata={"doc": "whether labels of validation samples are noisy, too"}
    )

    def check(self, classes: int, known: Sequence[int]) -> None:
        """Raise a UserError where there is no other class."""
        if len(known) < 2:
            raise UserError(
                "split.noise: must be null, for there is no other class (found one class)."
            )


@dataclass(frozen=True, kw_only=True)
class Asymmetric:
    """A wrong label is the class that a map gives; labels of the classes outside it stay right."""

    kind: Literal["asymmetric"] = field(metadata={"doc": "names this noise"})
    rate: float = field(
        metadata={
            "doc": "probability of a wrong label for a sample of the classes that `map` names",
            "low": 0,
            "high": 1,
        }
    )
    map: Annotated[
        Any, checked(_class_map, {"type": "object", "additionalProperties": {"type": "integer"}})
    ] = field(metadata={"doc": "the wrong class for each class, as in {9: 1, 3: 5}"})
    validation: bool = field(
        default=False, metadata={"doc": "whether labels of validation samples are noisy, too"}
    )

    def check(self, classes: int, known: Sequence[int]) -> None:
        """Raise a UserError for a class that there is not, or that is mapped to itself."""
        for key, to in self.map.items():
            for each in (int(key), to):
                if each not in known:
                    raise UserError(
                        f"split.noise.map: must name classes {_of(classes, known)} (found {each})."
                    )
            if int(key) == to:
                raise UserError(
                    f"split.noise.map: must give another class for class {key}, for a wrong label "
                    "is not the true one; leave the class out to keep its labels."
                )


def _outliers(value: Any, where: str) -> dict[str, Any] | None:
    """Return which dataset outliers are of; of resolved settings with its identity and images."""
    if value is None:
        return None
    given = value if isinstance(value, Mapping) else {}
    known = {"dataset", "identity", "images"}
    if not isinstance(given.get("dataset"), str) or not known.issuperset(given):
        raise UserError(
            f"{where}: must name a dataset, as in {{dataset: digits}} (found {value!r:.80})."
        )
    return dict(given)


@dataclass(frozen=True, kw_only=True)
class OpenSet:
    """Only some classes are known; samples of others are met in the unlabelled pool alone.

    Those are of the dataset's further classes, or of another dataset.
    """

    classes: tuple[int, ...] = field(
        metadata={
            "doc": "the known classes by number, of which training, validation and test samples "
            "are; a network predicts these alone",
            "least": 2,
            "low": 0,
        }
    )
    pool: int | None = field(
        default=None,
        metadata={
            "doc": "size of the unlabelled pool, the same for every contamination; null takes all "
            "samples of the known classes",
            "low": 1,
        },
    )
    contamination: float | None = field(
        default=None,
        metadata={
            "doc": "share of the unlabelled pool that is of other classes; null takes all there "
            "are",
            "low": 0,
            "high": 1,
        },
    )
    outliers: Annotated[
        Any,
        checked(
            _outliers,
            {
                "type": ["object", "null"],
                "properties": {"dataset": {"type": "string"}},
                "required": ["dataset"],
                "additionalProperties": False,
            },
        ),
    ] = field(
        default=None,
        metadata={
            "doc": "another dataset, as in {dataset: digits}, whose training images are the "
            "samples of other classes, resized; further classes of the split's own are then left "
            "out; null takes samples of these"
        },
    )

    def __post_init__(self) -> None:
        """Refuse classes that stand twice, and a pool that nothing divides."""
        if len(set(self.classes)) < len(self.classes):
            twice = next(each for each in self.classes if self.classes.count(each) > 1)
            raise UserError(f"classes: must name each class once (found {twice} twice).")
        if self.pool is not None and self.contamination is None:
            raise UserError(
                f"contamination: must be a share where `pool` is given (found null with pool "
                f"{self.pool})."
            )
        if self.pool is None and self.contamination == 1:
            raise UserError(
                "pool: must be given with contamination 1, for no known class says how many "
                "samples there are (found null)."
            )

    def check(self, classes: int) -> None:
        """Raise a UserError unless classes are there, and some are unknown that a pool asks for.

        Of an open set whose outliers are other images a method may have no use for the pool.
        """
        for each in self.classes:
            if each >= classes:
                raise UserError(
                    f"split.open_set.classes: must be numbers of classes, 0 to {classes - 1} "
                    f"(found {each})."
                )
        if self.contamination is not None and self.outliers is None:
            self.check_unknown(classes)

    def check_unknown(self, classes: int) -> None:
        """Raise a UserError unless a class is left out."""
        if len(self.classes) == classes:
            raise UserError(
                f"split.open_set.classes: must leave out at least one of the {classes} classes, "
                "which is then unknown (found all)."
            )


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """Images are stored smaller, so that detail is lost, and enlarged to what the network sees."""

    stored: int = field(
        metadata={"doc": "side in pixels of the stored image, at most the dataset's", "low": 1}
    )
    input: int = field(
        metadata={
            "doc": "side in pixels of the image that the network sees, at least `stored`",
            "low": 1,
            "high": 4096,
        }
    )

    def shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return channels, height and width of what the network sees, for images of a shape.

        Raises a UserError that begins with the key where these have no such resolution.
        """
        channels, height, width = shape
        if height != width:
            raise UserError(
                f"split.resolution: must be null for images that are not square (found {height} x "
                f"{width} pixels)."
            )
        if self.stored > height:
            raise UserError(
                f"split.resolution.stored: must be at most {height}, the side of an image "
                f"(found {self.stored})."
            )
        if self.input < self.stored:
            raise UserError(
                f"split.resolution.input: must be at least `stored`, {self.stored} "
                f"(found {self.input})."
            )
        return channels, self.input, self.input


def part(value: Any, where: str) -> int | str:
    """Return the part of the training samples that is trained on, or `seed`."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not whole and value != "seed":
        raise UserError(f"{where}: must be a whole number from 0, or seed (found {value!r:.80}).")
    found: int | str = value
    return found


def hierarchy(value: Any, where: str) -> str | tuple[tuple[int, ...], ...]:
    """Return a hierarchy: the name of one of the dataset's, or the group of every class by level.

    Raises a UserError for what is neither, or no tree.
    """
    if isinstance(value, str):
        return value
    levels = value if isinstance(value, list | tuple) else ()
    whole = levels and all(
        isinstance(level, list | tuple)
        and level
        and all(isinstance(g, int) and not isinstance(g, bool) and g >= 0 for g in level)
        for level in levels
    )
    if not whole:
        raise UserError(
            f"{where}: must be a name, or for each level, finer ones first, a list with the group "
            f"of every class (found {value!r:.80})."
        )
    return tuple(tuple(level) for level in levels)


def check_levels(levels: Levels, classes: int, known: Sequence[int]) -> None:
    """Raise a UserError unless levels, finer ones first, are a tree above all, and known classes.

    Every level must tell some of the known classes apart.
    """
    try:
        check_hierarchy(levels, classes, "split.hierarchy")
        if len(known) < classes:
            above = "split.hierarchy above the known classes"
            check_hierarchy(restricted(levels, known), len(known), above)
    except ValueError as error:
        raise UserError(str(error)) from None
    if len({levels[-1][each] for each in known}) < 2:
        raise UserError(
            f"split.hierarchy[{len(levels) - 1}]: must have at least 2 groups, for one tells "
            "nothing (found 1)."
        )


def check_coarse(coarse: Sequence[int], levels: Sequence[Any], where: str) -> None:
    """Raise a UserError unless there is a number for each coarser level."""
    if len(coarse) != len(levels):
        raise UserError(
            f"{where}: must have a number for each of {len(levels)} coarser levels of `hierarchy` "
            f"(found {len(coarse)})."
        )


def restricted(levels: Levels, known: Sequence[int]) -> list[list[int]]:
    """Return the levels above the known classes alone, groups numbered anew in their order."""
    found = []
    for level in levels:
        kept = [level[each] for each in known]
        numbers = {group: number for number, group in enumerate(sorted(set(kept)))}
        found.append([numbers[group] for group in kept])
    return found


def _of(classes: int, known: Sequence[int]) -> str:
    """Return in words which classes may be named."""
    if len(known) == classes:
        return f"from 0 to {classes - 1}"
    return f"of the open set's, {', '.join(map(str, known))}"
