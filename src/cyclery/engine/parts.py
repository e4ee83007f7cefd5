"""Parts of a run's networks: parameters and buffers by how their names begin.

A part is ``features`` (all of the network but its head), ``head``, a module inside the network
(``stem``, ``blocks.0``), a module that the method adds (``projector``) or one inside that
(``projector.0``). Names have the module of the run first: ``main.stem.weight``. This imports no
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import combinations

from cyclery.common.errors import UserError, choices, nearest

FEATURES, HEAD = "features", "head"
# Parts that every network has; what they are depends on where its head is.
USUAL = (FEATURES, HEAD)
NOTHING_LEFT = "frozen: nothing is left to train; freeze fewer parts."

Within = Callable[[str, str], bool]


def within(name: str, part: str, head: str = HEAD) -> bool:
    """Return whether a name lies in a part; all do in the empty one.

    ``head`` is the name of the head inside the network. What is inside the network may also be
    named with ``main.`` before it.
    """
    module, _, inner = name.partition(".")
    if module == "main" and part in USUAL:
        return inner != "" and begins(inner, head) == (part == HEAD)
    return not part or begins(name, part) or (module == "main" and begins(inner, part))


def begins(name: str, start: str) -> bool:
    """Return whether a name is ``start`` or lies in the module of that name."""
    return f"{name}.".startswith(f"{start}.")


def holding(key: str, names: Iterable[str], parts: Iterable[str], within: Within) -> set[str]:
    """Return the names that lie in any of the parts; a UserError for a part that holds none."""
    names, found = set(names), set()
    for part in parts:
        held = {name for name in names if within(name, part)}
        if not held:
            known = {*USUAL, *(inner for name in names for inner in _modules(name))}
            raise UserError(
                f"{key}: nothing here is {part!r} or in it.{nearest(part, known)} "
                f"Parts: {choices(known)}."
            )
        found |= held
    return found


def factors(
    rates: Mapping[str, float], names: Iterable[str], frozen: Iterable[str], within: Within
) -> dict[str, float]:
    """Return the factor of each trained parameter's learning rate that is not 1, by its name."""
    found = numbers("rates", rates, names, frozen, within)
    return {name: factor for name, factor in found.items() if factor != 1}


def numbers(
    key: str,
    given: Mapping[str, float],
    names: Iterable[str],
    frozen: Iterable[str],
    within: Within,
) -> dict[str, float]:
    """Return the number of each trained parameter that lies in a part which has one, by its name.

    Where a part lies within another one, the inner one counts. A UserError, which begins with the
    key, for parts that hold no trained parameter, or that overlap in another way.
    """
    names = set(names)
    held = {part: holding(key, names, [part], within) - set(frozen) for part in given}
    for part, own in held.items():
        if not own:
            what = "rate" if key == "rates" else "gradient"
            raise UserError(f"{key}: {part!r} is frozen, so it has no {what}; drop one of them.")
    for one, two in combinations(held, 2):
        if held[one] & held[two] and not (held[one] < held[two] or held[two] < held[one]):
            raise UserError(
                f"{key}: {one!r} and {two!r} overlap, and neither lies within the other; name "
                "parts that are apart, or one inside the other."
            )
    found: dict[str, float] = {}
    for part in sorted(held, key=lambda part: -len(held[part])):
        found |= dict.fromkeys(held[part], given[part])
    return found


def _modules(name: str) -> Iterable[str]:
    """Yield what may be named as a part for one parameter: at most two modules deep."""
    module, *inner = name.split(".")[:-1]
    if module != "main":
        yield module
    if inner:
        yield ".".join(inner[:2]) if module == "main" else f"{module}.{inner[0]}"
        if module == "main":
            yield inner[0]
