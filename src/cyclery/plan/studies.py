"""Plan random searches: the study of an arm, its trials, and parents that hold out what it needs.

A study sees labelled and validation samples alone, whatever its arm's runs are trained on in the
end, and what it descends from does, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from cyclery import methods, schedules
from cyclery.common.errors import UserError, choices, nearest
from cyclery.config.models import Arm
from cyclery.config.resolve import DEFAULTS, budget
from cyclery.config.search import SEARCHED, Search, changes, configurations, texts
from cyclery.data.registry import Datasets
from cyclery.plan.model import ArmPlan, Parent
from cyclery.plan.model import Search as Searched
from cyclery.records.record import ArmSettings, StudyTrial

Resolve = Callable[[dict[str, Any]], ArmSettings]
COSTS = ("updates", "images", "views", "forwards")


def search(
    arm: ArmPlan, own: Arm, declared: Search, merged: dict[str, Any], resolve: Resolve,
    datasets: Datasets,
) -> Searched:  # fmt: skip
    """Return the search of an arm.

    Args:
        arm: The arm as declared.
        own: What its own layer says.
        declared: The experiment's search at this tier.
        merged: The arm's settings of all layers.
        resolve: Resolves such settings.
        datasets: Those of the project.

    Raises:
        UserError: the arm cannot be searched so; it begins with the key.
    """
    settings = held_out(arm.settings)
    _check(settings, declared, own)
    space = {**declared.space, **own.search_also}
    trials: list[StudyTrial] = []
    costs = []
    for values in configurations(space, declared.trials):
        given = with_values(merged, changes(values, declared.tied))
        try:
            found = held_out(resolve(given))
            costs.append(budget(found, datasets))
        except UserError as error:
            # The arm as declared was right.
            raise UserError(
                f"search.space: {texts(values)} does not suit the arm: {error}"
            ) from None
        trials.append({"values": values, "schedules": found["schedules"]})
    settings["draw"] = f"{settings['draw'] or ''}search"
    settings["evaluations"] = settings["epochs"]
    settings.pop("probes", None)
    settings["study"] = {
        "trials": trials,
        "grace_epochs": declared.grace_epochs,
        "reduction": declared.reduction,
        "last": declared.last,
    }
    part = _expected(settings["epochs"], declared.grace_epochs, declared.reduction)
    cost = {name: round(part * sum(each[name] for each in costs)) for name in COSTS}
    study = replace(
        arm,
        settings=settings,
        parents={name: _before(parent, datasets) for name, parent in arm.parents.items()},
        cost={**cost, "samples": max(each["samples"] for each in costs)},
        variant="search",
    )
    return Searched(study, settings["split"]["share"] if declared.per == "split" else None)


def held_out(settings: ArmSettings) -> ArmSettings:
    """Return settings whose validation samples are held out, even where the arm retrains."""
    split = {key: value for key, value in settings["split"].items() if key != "retrain"}
    return cast(ArmSettings, {**settings, "split": split})


def _before(parent: Parent, datasets: Datasets) -> Parent:
    """Return a parent for a study, which has seen no validation sample, nor have its ancestors."""
    return replace(parent, arm=_without(parent.arm, datasets))


def _without(arm: ArmPlan, datasets: Datasets) -> ArmPlan:
    parents = {name: _before(parent, datasets) for name, parent in arm.parents.items()}
    settings = held_out(arm.settings)
    if settings == arm.settings and parents == arm.parents:
        return arm
    cost = budget(settings, datasets)
    return replace(arm, settings=settings, parents=parents, cost=cost, variant="held-out")


def _check(settings: ArmSettings, declared: Search, own: Arm) -> None:
    if not settings["split"]["validation"]:
        raise UserError("split.validation: must be above 0 where arms are searched.")
    method = methods.load(settings["method"]["name"])
    chosen = method.chosen(settings["method"]["settings"])
    for name, choice in method.ignored(chosen).items():
        if name in own.search_also:
            raise UserError(
                f"search_also: nothing reads {name!r} with `{choice}` of the method; drop it."
            )
    if not method.classifies(chosen):
        raise UserError(
            "search: chooses by validation accuracy, but the method of this arm trains no head; "
            "set `searched: false` in the arm."
        )
    if declared.grace_epochs > settings["epochs"]:
        raise UserError(
            f"search.grace_epochs: must be at most {settings['epochs']}, the epochs of the arm "
            f"(found {declared.grace_epochs})."
        )
    if schedules.words(settings["schedules"]["lr"]):
        raise UserError(
            "lr: takes its bounds from a range test, and a search needs numbers; give some, or "
            "set `searched: false` in the arm."
        )
    if declared.per == "arm" and settings["split"]["choose"] == "blocks":
        raise UserError(
            "search.per: must be split where `split.choose` is blocks, for there is no block that "
            "no run has (found 'arm')."
        )


def with_values(merged: Mapping[str, Any], values: Mapping[str, float]) -> dict[str, Any]:
    """Return an arm's settings with the values of a trial.

    They replace numbers, and are the peaks of schedules.
    """
    found = dict(merged)
    method = dict(merged.get("method") or DEFAULTS["method"])
    declared = methods.load(method["name"])
    defaults = declared.settings_type()
    for name, value in values.items():
        own = name in declared.quantities
        if not own and name not in SEARCHED:
            known = sorted({*declared.quantities, *SEARCHED})
            raise UserError(
                f"search_also: the method {method['name']!r} has no quantity {name!r}."
                f"{nearest(name, known)} There are: {choices(known)}."
            )
        before = method.get(name, getattr(defaults, name)) if own else merged.get(name)
        before = DEFAULTS.get(name) if before is None else before
        if before is None:
            raise UserError(f"search.space.{name}: is not set in this arm; set it to any value.")
        if name == "batch":
            if isinstance(before, Mapping):
                raise UserError(
                    "batch: must be a number where a search draws it, not a schedule (found "
                    f"{before!r:.80})."
                )
            found[name] = int(value)
            continue
        spec = {"kind": "scaled", "of": before, "peak": value}
        (method if own else found)[name] = spec if isinstance(before, Mapping) else value
    return {**found, "method": method}


def _expected(epochs: int, grace: int, reduction: int) -> float:
    """Return about which part of all epochs halving trains: one trial in so many passes a rung."""
    done, part, total = 0, 1.0, 0.0
    rung = grace
    while done < epochs:
        total += part * (min(rung, epochs) - done)
        done, rung, part = min(rung, epochs), rung * reduction, part / reduction
    return total / epochs
