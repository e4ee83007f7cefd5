"""The settings of every augmentation: torch-free, so that planning can check and document them.

An augmentation of a run is a list such as ``[{"op": "shift", "size": 1}, {"op": "flip"}]``, applied
in that order to each image by itself. What an op does to an image follows from uniform numbers in
[0, 1) alone; ``columns`` says how many of them one image takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cyclery.common.errors import UserError, choices, nearest
from cyclery.common.settings import read
from cyclery.models.base import Shape

RANDAUGMENT_OPS = (
    "identity",
    "autocontrast",
    "brightness",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""What RandAugment chooses from on grey images; images of three channels add ``colour``."""


def randaugment_ops(channels: int) -> tuple[str, ...]:
    """Return the names of the ops that RandAugment chooses from on images of so many channels."""
    return (*RANDAUGMENT_OPS, "colour") if channels == 3 else RANDAUGMENT_OPS


_FIXMATCH_OPS = (*RANDAUGMENT_OPS, "equalize", "colour")
_UDA_OPS = (*_FIXMATCH_OPS[1:], "invert", "cutout")
POLICY_OPS: dict[str, tuple[str, ...]] = {
    "fixmatch_paper": _FIXMATCH_OPS,
    "fixmatch_code": _FIXMATCH_OPS,
    "uda": _UDA_OPS,
}
"""What each form of a policy chooses from on colour images; on grey ones all but ``colour``."""


def policy_ops(form: str, channels: int) -> tuple[str, ...]:
    """Return the names of the ops that a policy chooses from on images of so many channels."""
    return tuple(name for name in POLICY_OPS[form] if name != "colour" or channels == 3)


@dataclass(frozen=True)
class Op:
    """What all augmentations share."""

    LAST: ClassVar[bool] = False
    """True where the op covers part of the finished image, so that only its like may follow."""

    @property
    def columns(self) -> int:
        """Return how many uniform numbers one image takes."""
        raise NotImplementedError

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where values do not fit together or do not fit images of ``shape``."""


@dataclass(frozen=True)
class Shift(Op):
    """Move by a random whole number of pixels each way.

    The same as padding with ``size`` pixels on each side and cropping at random. The padding is
    black, or with ``reflect`` the image mirrored about its outermost pixels, which appear once.
    """

    size: int = field(metadata={"doc": "furthest move in pixels, each way", "low": 1})
    border: Literal["zero", "reflect"] = field(
        default="zero", metadata={"doc": "what comes in at the border"}
    )

    @property
    def columns(self) -> int:
        """Return 2: down and right."""
        return 2

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where the image could leave the frame."""
        _check_side(self.size, shape, f"{where}.size", below=True)


@dataclass(frozen=True)
class Flip(Op):
    """Mirror left and right."""

    p: float = field(default=0.5, metadata={"doc": "probability", "low": 0.001, "high": 1.0})

    @property
    def columns(self) -> int:
        """Return 1."""
        return 1


@dataclass(frozen=True)
class Cutout(Op):
    """Cover a square with the mean pixel (DeVries and Taylor 2017, arXiv 1708.04552).

    Its centre is drawn from all pixels, so that up to three quarters of it may lie outside. The
    fill is zero after normalisation, which is the mean pixel of the training images.
    """

    LAST = True
    size: int = field(metadata={"doc": "side of the square in pixels", "low": 1})
    p: float = field(default=1.0, metadata={"doc": "probability", "above": 0.0, "high": 1.0})

    @property
    def columns(self) -> int:
        """Return 2, or 3 where the square comes only with probability p."""
        return 2 if self.p == 1 else 3

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where the square is larger than the image."""
        _check_side(self.size, shape, f"{where}.size", below=False)


@dataclass(frozen=True)
class Erasing(Op):
    """Cover a rectangle with the mean pixel (Zhong et al. 2020, arXiv 1708.04896).

    Its area is uniform, its aspect log-uniform; it lies inside the image. Sides beyond the
    image's are cut to them, where other implementations draw again.
    """

    LAST = True
    p: float = field(default=0.5, metadata={"doc": "probability", "above": 0.0, "high": 1.0})
    area: tuple[float, float] = field(
        default=(0.02, 0.33),
        metadata={
            "doc": "least and greatest covered share of the image",
            "above": 0.0,
            "high": 1.0,
        },
    )
    aspect: tuple[float, float] = field(
        default=(0.3, 3.3), metadata={"doc": "least and greatest height / width", "above": 0.0}
    )

    @property
    def columns(self) -> int:
        """Return 5: presence, area, aspect, top, left."""
        return 5

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where a range is upside down."""
        for name, (low, high) in (("area", self.area), ("aspect", self.aspect)):
            if low > high:
                raise UserError(
                    f"{where}.{name}: the first number must be at most the second "
                    f"(found {[low, high]})."
                )


@dataclass(frozen=True)
class RandAugment(Op):
    """Apply n ops, drawn with replacement, at one magnitude (Cubuk et al. 2020, arXiv 1909.13719).

    Magnitude 10 means: enhancement factors 1 +- 0.9, 4 of 8 bits, solarising every pixel, full
    autocontrast, rotation by 30 degrees, shear by 0.3, moves by 0.3 of the side; 0 leaves the image
    as it is, for every op, and all between is in proportion. Signs are drawn. Uncovered pixels are
    black. Between pixels it interpolates: on 8x8 images the nearest pixel would hide most
    magnitudes.
    """

    n: int = field(default=2, metadata={"doc": "ops per image", "low": 1, "high": 16})
    m: float | None = field(
        default=None,
        metadata={
            "doc": "fixed magnitude, 0 to 10; null: the schedule `magnitude`",
            "low": 0.0,
            "high": 10.0,
        },
    )

    @property
    def columns(self) -> int:
        """Return n: each number chooses an op and its sign."""
        return self.n


@dataclass(frozen=True)
class Policy(Op):
    """Apply the RandAugment of the semi-supervised papers: n rounds, each with an op of its own.

    In each round an image draws one op, evenly and with replacement, and applies it with
    probability p at a level and, where it is geometric, with a sign of its own. The ops are PIL's,
    bit for bit, on whole grey levels 0..255, to which other images are scaled first.

    ``fixmatch_paper`` has the ranges that FixMatch prints (Sohn et al. 2020, arXiv 2001.07685,
    appendix), levels uniform and continuous: enhancement factors 0.05 to 0.95, 4 to 8 bits,
    solarising from any grey level, rotation up to 30 degrees, shear up to 0.3, moves up to 0.3 of
    the side. ``fixmatch_code`` has its 14 ops as the published code does, at a whole level m of 1
    to 9: factors 0.1 + 0.18 m, 4 to 1 bits, solarising from 256 - 25.6 m, rotation by 3 m degrees,
    shear by 0.03 m, moves by m pixels. ``uda`` has the same ranges on the 15 ops of UDA's code (Xie
    et al. 2020, arXiv 1904.12848): with invert, and cutout of a square of 2 m pixels, but without
    identity. Pixel counts are for sides of 32, and in proportion, rounded down, for others. Grey
    images have no colour op.

    Pixels that a geometric op uncovers and the hole of UDA's cutout become zero after
    normalisation, unless autocontrast, equalize, invert, posterize or solarize follows, which makes
    plain pixels of them, as it makes a transparent image opaque in both published codes.
    """

    form: Literal["fixmatch_paper", "fixmatch_code", "uda"] = field(
        default="fixmatch_paper", metadata={"doc": "ops and their ranges"}
    )
    n: int = field(default=2, metadata={"doc": "rounds", "low": 1, "high": 16})
    p: float = field(
        default=0.5,
        metadata={"doc": "probability that a drawn op is applied", "above": 0.0, "high": 1.0},
    )

    @property
    def columns(self) -> int:
        """Return 4 a round: op, gate, level, sign; after these 2 a round for UDA's cutout."""
        return (6 if self.form == "uda" else 4) * self.n

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where the images are neither grey nor in three colours."""
        if shape is not None and shape[0] not in (1, 3):
            raise UserError(f"{where}: images must have 1 or 3 channels (found {shape[0]}).")


OPS: dict[str, type[Op]] = {
    "shift": Shift,
    "flip": Flip,
    "cutout": Cutout,
    "erasing": Erasing,
    "randaugment": RandAugment,
    "policy": Policy,
}


def check(
    spec: Sequence[Mapping[str, Any]], shape: Shape | None = None, where: str = "augment"
) -> list[Op]:
    """Return the settings of each op of ``spec``, defaults filled in, without importing torch.

    ``shape`` (channels, height, width), if given, must suit the ops; ``where`` begins every
    message. Raises a UserError that names the op, the key, the value and what is allowed.
    """
    if not isinstance(spec, list | tuple):
        raise UserError(f"{where}: must be a list of ops (found {spec!r:.80}).")
    ops: list[Op] = []
    for index, entry in enumerate(spec):
        op = _check_entry(entry, f"{where}[{index}]", shape)
        if ops and ops[-1].LAST and not op.LAST:
            raise UserError(
                f"{where}[{index}]: {entry['op']} cannot follow {spec[index - 1]['op']}: cutout "
                "and erasing cover part of the finished image; put them last."
            )
        ops.append(op)
    return ops


def needs_magnitude(ops: Sequence[Op]) -> bool:
    """Return whether the ops read the schedule ``magnitude``."""
    return any(isinstance(op, RandAugment) and op.m is None for op in ops)


def _check_entry(entry: Any, where: str, shape: Shape | None) -> Op:
    if not isinstance(entry, Mapping) or "op" not in entry:
        raise UserError(f"{where}: must be a mapping with the key 'op' (found {entry!r:.80}).")
    name = entry["op"]
    if name not in OPS:
        raise UserError(f"{where}: unknown op {name!r}.{nearest(name, OPS)} Ops: {choices(OPS)}.")
    where = f"{where} {name}"
    op = read(OPS[name], {key: value for key, value in entry.items() if key != "op"}, where)
    op.check(shape, where)
    return op


def _check_side(size: int, shape: Shape | None, where: str, below: bool) -> None:
    side = min(shape[1:]) if shape else None
    if side is not None and (size > side or (below and size == side)):
        raise UserError(
            f"{where}: must be {'below' if below else 'at most'} the image's side, {side} pixels "
            f"(found {size})."
        )
