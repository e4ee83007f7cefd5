"""The RandAugment of UDA, with the list of ops that it may draw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cyclery.augment import Images, Op, Stage
from cyclery.augment.policy import RandomPolicy, choices_for
from cyclery.common.errors import UserError, choices
from cyclery.models import Shape

Name = Literal[
    "autocontrast", "brightness", "colour", "contrast", "cutout", "equalize", "invert", "posterize",
    "rotate", "sharpness", "shear_x", "shear_y", "solarize", "translate_x", "translate_y",
]  # fmt: skip


@dataclass(frozen=True)
class Settings(Op):
    """Apply the RandAugment of UDA (Xie et al. 2020, arXiv 1904.12848, A.2), with all ops or some.

    A policy is an ordered pair of ops, each at a whole level of 1 to 9, all pairs as likely, and
    each op is applied with probability p: what `policy` does with `form: uda`, whose ops and ranges
    these are. `ops` says which of the 15 may be drawn; grey images have no colour op. The numbers
    that an image draws are the same whatever the list.
    """

    n: int = field(default=2, metadata={"doc": "rounds", "low": 1, "high": 16})
    p: float = field(
        default=0.5,
        metadata={"doc": "probability that a drawn op is applied", "above": 0.0, "high": 1.0},
    )
    ops: tuple[Name, ...] | None = field(
        default=None, metadata={"doc": "ops that may be drawn; null has all", "least": 1}
    )

    @property
    def columns(self) -> int:
        """Return 6 a round: op, gate, level, sign, and after all these the centres of cutouts."""
        return 6 * self.n

    def check(self, shape: Shape | None, where: str) -> None:
        """Raise a UserError where an op is named twice or does not suit the images."""
        if twice := sorted({name for name in self.ops or () if (self.ops or ()).count(name) > 1}):
            raise UserError(
                f"{where}.ops: must name each op once (found {choices(twice)} more than once)."
            )
        if shape is None:
            return
        if shape[0] not in (1, 3):
            raise UserError(f"{where}: images must have 1 or 3 channels (found {shape[0]}).")
        if shape[0] == 1 and "colour" in (self.ops or ()):
            raise UserError(f"{where}.ops: grey images have no op 'colour'; leave it out.")

    def stage(self, images: Images) -> Stage:
        """Return the rounds as one stage."""
        names = self.ops or choices_for("uda", images.shape[0])
        return RandomPolicy("uda", names, self.n, self.p, images)
