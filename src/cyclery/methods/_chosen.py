"""Settings as hooks get them; reading a scheduled quantity from them is an error."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from cyclery.common.errors import UserError


class _Quantity:
    """Stands for a field that may follow a schedule, whose value is in ``row``."""

    def __init__(self, method: str, name: str) -> None:
        self._message = (
            f"method: {method!r} reads `settings.{name}`, which is not the value of the schedule; "
            f'read `row["{name}"]` in its step instead, a tensor that holds the value at this '
            "update (other functions of a method get no quantities)."
        )

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        # No AttributeError: `getattr` with a default would hide it.
        if instance is not None:
            raise UserError(self._message)
        return self

    def __set__(self, instance: Any, value: Any) -> None:
        """Take what the dataclass sets in vain."""


@cache
def guarded(method: str, kind: type, quantities: tuple[str, ...]) -> type:
    """Return a method's ``Settings`` as a class on which a quantity cannot be read."""
    static = [field.name for field in fields(kind) if field.name not in quantities]

    def values(settings: Any) -> tuple[Any, ...]:
        return tuple(getattr(settings, name) for name in static)

    def shown(settings: Any) -> str:
        pairs = zip(static, values(settings), strict=True)
        return f"{kind.__name__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    return type(
        kind.__name__,
        (kind,),
        {
            "__module__": kind.__module__,
            "__repr__": shown,
            "__eq__": lambda a, b: type(a) is type(b) and values(a) == values(b),
            "__hash__": lambda settings: hash(values(settings)),
            **{name: _Quantity(method, name) for name in quantities},
        },
    )
