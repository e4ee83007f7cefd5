"""Check the files of all components, used by an arm or not."""

from __future__ import annotations

from collections.abc import Callable

from cyclery import methods, models, optim
from cyclery.common.errors import UserError
from cyclery.models import heads


def check_files() -> None:
    """Raise a UserError with a line for each component whose file is invalid."""
    kinds: list[tuple[tuple[str, ...], Callable[[str], object]]] = [
        (methods.names(), methods.load),
        (models.names(), models.settings_type),
        (heads.names(), heads.settings_type),
        (optim.names(), optim.settings_type),
    ]
    problems = []
    for names, read in kinds:
        for name in names:
            try:
                read(name)
            except UserError as error:
                problems.append(str(error))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
