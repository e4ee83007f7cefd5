"""Optimisers: one file each, found by its name.

A file declares ``Settings``, a frozen dataclass of what does not change with time (its fields each
have a default, and in their metadata a ``doc`` and perhaps limits: ``low`` and ``high`` inclusive,
``above`` and ``below`` exclusive), and ``Rule``, a ``flat.optimiser.Optimiser`` over all
parameters as one vector. Learning rate, momentum (beta1 of Adam) and both weight decays are
schedules and no settings. Files are found by their names, so adding one edits no list.

Planning reads the settings and knows no torch, so files take it from ``cyclery.common.lazy``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from cyclery.common.components import Components
from cyclery.common.errors import UserError
from cyclery.common.settings import read
from cyclery.optim.flat.optimiser import Optimiser

if TYPE_CHECKING:
    from cyclery.optim.flat.parameters import Vectors

_FILES = Components(
    __name__, "optimiser", (("Settings", "a frozen dataclass"), ("Rule", "an Optimiser"))
)


@cache
def names() -> tuple[str, ...]:
    """Return the names of all optimisers, sorted."""
    return _FILES.names()


@cache
def settings_type(name: str) -> type:
    """Return the settings of an optimiser, without importing torch.

    A UserError names the optimisers there are, or what is wrong with the file of this one.
    """
    settings, rule = _FILES.settings(name), _FILES.load(name).Rule
    if not (isinstance(rule, type) and issubclass(rule, Optimiser)):
        raise UserError(
            f"{_FILES.path(name)}: Rule must be a class that extends Optimiser of "
            "cyclery.optim.flat.optimiser."
        )
    return settings


def build(
    name: str,
    flat: Vectors,
    settings: Mapping[str, Any] | None = None,
    *,
    decay: bool = True,
    decay_norm: bool = True,
    rates: Mapping[str, float] | None = None,
    clip_values: Mapping[str, float] | None = None,
) -> Optimiser:
    """Return the optimiser ``name`` of the parameters in ``flat``.

    ``settings`` are those that differ from the defaults. ``decay`` and ``decay_norm`` are false
    where the decay of weights, or of biases and norms, is zero at all times. ``rates`` are factors
    of the learning rate by the names of parameters, 1 for the others, ``clip_values`` bounds on
    the entries of their gradients, none for the others. Raises a UserError for an unknown name or
    key and a value of the wrong type or out of range.
    """
    chosen: Any = read(settings_type(name), settings or {}, "optimiser")
    rule: Optimiser = _FILES.load(name).Rule(flat, chosen, decay=decay, decay_norm=decay_norm)
    if rates:
        from cyclery.optim.flat.rated import Rated

        rule = Rated(rule, flat, rates)
    if clip_values:
        from cyclery.optim.flat.bounded import Bounded

        rule = Bounded(rule, flat, clip_values)
    return rule
