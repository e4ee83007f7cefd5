"""What searches found, from the records of their studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

from cyclery.plan.model import ArmPlan
from cyclery.records.record import ArmSettings, RunRecord, StudyRecord
from cyclery.records.searches import Searched, SearchedStudy

Studies = Mapping[str, StudyRecord]


def searched(arm: ArmPlan, seeds: Iterable[int], studies: Studies) -> Searched | None:
    """Return the studies of an arm that are done; None where nothing searches its values."""
    if arm.search is None:
        return None
    study, found = arm.search.arm, dict[str, SearchedStudy]()
    for seed in seeds:
        [at] = arm.search.seeds(seed)
        record = studies.get(key := study.key(at))
        if record is not None:
            entry = found.setdefault(key, {
                "seeds": [], "trials": record["trials"], "chosen": record["chosen"],
                "views": record["views"], "seconds": record["seconds"],
            })  # fmt: skip
            entry["seeds"].append(seed)
    chosen = study.settings["study"]
    return {
        "per": "arm" if arm.search.share is None else "split",
        "epochs": study.settings["epochs"],
        "grace_epochs": chosen["grace_epochs"],
        "reduction": chosen["reduction"],
        "last": chosen["last"],
        "tried": len(chosen["trials"]),
        "studies": list(found.values()),
    }


def choices(found: Searched) -> dict[int, dict[str, float]]:
    """Return the values that each seed of an arm was to take; none where they are as declared."""
    return {
        seed: study["trials"][study["chosen"]]["values"] if study["chosen"] is not None else {}
        for study in found["studies"] for seed in study["seeds"]
    }  # fmt: skip


def leave_out_others(
    arm: ArmPlan, taken: Mapping[int, Mapping[str, float]], runs: dict[str, RunRecord]
) -> None:
    """Remove records of runs that were trained with an outdated choice of what tunes them.

    ``taken`` has the factors, or the values, that each seed of the arm is to have.
    """
    for seed, values in taken.items():
        record = runs.get(key := arm.key(seed))
        if record and record["inputs"].get("tuned") != values:
            # No file has this status.
            runs[key] = {**record, "status": "of another tuning"}  # type: ignore[typeddict-item]


def shown(arm: ArmPlan, found: Searched) -> ArmPlan:
    """Return an arm with the values that all of its runs took; what differs is left out."""
    assert arm.search is not None
    trials = arm.search.arm.settings["study"]["trials"]
    taken = [
        trials[each["chosen"]]["schedules"] if each["chosen"] is not None
        else arm.settings["schedules"]
        for each in found["studies"]
    ]  # fmt: skip
    own = arm.settings["schedules"]
    if taken:
        own = {q: spec for q, spec in taken[0].items() if all(t[q] == spec for t in taken)}
    # Batches say how long an epoch is.
    own = {**own, "batch": own.get("batch", arm.settings["schedules"]["batch"])}
    return replace(arm, settings=cast(ArmSettings, {**arm.settings, "schedules": own}))
