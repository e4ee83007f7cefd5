"""Check the files of all components, used by an arm or not."""

from __future__ import annotations

from collections.abc import Callable

from cyclery import augment, methods, models, optim, probes, schedules
from cyclery.common.errors import UserError
from cyclery.data.readers import READERS
from cyclery.models import heads
from cyclery.records import metrics


def check_files() -> None:
    """Raise a UserError with a line for each invalid file of a component; of metrics the first.

    Metrics are read together, because no two may have one name.
    """
    kinds: list[tuple[tuple[str, ...], Callable[[str], object]]] = [
        (methods.names(), methods.load),
        (models.names(), models.settings_type),
        (heads.names(), heads.settings_type),
        (optim.names(), optim.settings_type),
        (augment.names(), augment.settings_type),
        (schedules.names(), schedules.settings_type),
        (probes.names(), probes.settings_type),
        (READERS.names(), READERS.load),
        (("all",), lambda _: metrics.declared()),
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
