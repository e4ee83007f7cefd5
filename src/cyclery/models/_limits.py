"""Upper limits on the size of a network, which catch typing errors."""

from __future__ import annotations

from cyclery.common.errors import UserError

MOST_LAYERS = 2000
# Weights, gradients, momentum and averages of so many take 16 GB in single precision.
MOST_WEIGHTS = 1_000_000_000


def check_depth(depth: int, step: int, extra: int, named: str, where: str) -> None:
    """Raise a UserError unless ``depth`` is ``step * n + extra`` with n >= 1, and not too large."""
    if not step + extra <= depth <= MOST_LAYERS or (depth - extra) % step:
        raise UserError(
            f"{where}.depth: must be {step}n + {extra}, such as {named}, and at most "
            f"{MOST_LAYERS} (found {depth})."
        )


def check_among(value: int, allowed: tuple[int, ...], where: str) -> None:
    """Raise a UserError unless ``value`` is one of the numbers ``allowed``."""
    if value not in allowed:
        raise UserError(f"{where}: must be one of {', '.join(map(str, allowed))} (found {value}).")


def check_weights(count: int, where: str, key: str) -> None:
    """Raise a UserError where a network has too many weights, of which ``count`` is an estimate."""
    if count > MOST_WEIGHTS:
        raise UserError(
            f"{where}.{key}: makes a network of about {count:.1e} weights; at most "
            f"{MOST_WEIGHTS:.0e} can be trained, so lower it."
        )
