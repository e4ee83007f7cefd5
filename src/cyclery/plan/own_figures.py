"""Figures that an arm has besides those of every run: of its probes, and of its method."""

from __future__ import annotations

from collections.abc import Collection

from cyclery import methods, probes
from cyclery.common.errors import UserError
from cyclery.config.components import resolved_probes
from cyclery.config.models import Paper, Tier
from cyclery.config.resolve import DEFAULTS, merge
from cyclery.config.settings import Settings
from cyclery.records import metrics
from cyclery.records.record import ArmSettings, Component


def own_figures(settings: ArmSettings) -> frozenset[str]:
    """Return the names of the figures of an arm's probes, and of those that its method measures.

    A UserError, which begins with the key, where such a name does not say its unit, or is both.
    """
    own = measured(settings["method"])
    found = probes.recorded(settings.get("probes", {}))
    for name in own:
        if name in found:
            raise UserError(
                f"probes.{found[name][0]}: {name!r} is a figure that the method measures already; "
                "choose another label."
            )
    return frozenset({*found, *own})


def measured(choice: Component) -> tuple[str, ...]:
    """Return the names of the figures that a method, as chosen, measures itself."""
    method = methods.load(choice["name"])
    found = tuple(method.measures(method.chosen(choice["settings"])))
    for name in found:
        if name in metrics.names("names"):
            raise UserError(
                f"method: `measures` of {method.name!r} has {name!r}, a figure of every run; "
                "choose another name."
            )
        if metrics.find(name) is None:
            raise UserError(
                f"method: `measures` of {method.name!r} has {name!r}, which does not end in the "
                "name of a metric, as test_fine_accuracy does, so its unit is unknown; rename it, "
                "or add a metric."
            )
    return found


def possible_figures(paper: Paper, tier: Tier) -> Collection[str]:
    """Return the figures that arms of a paper may have besides those of every run, at any tier.

    ``tier`` is the present one. Arms that are wrong have none here: that is said elsewhere.
    """
    found: set[str] = set()
    if not _measuring(paper, tier):
        # Nearly all papers: thousands of merged layers are saved.
        return found
    for experiment in paper.experiments.values():
        for own in experiment.tiers.values():
            for arm in experiment.arms.values():
                merged = merge([tier.base, paper.base, experiment.base, own.base, arm])
                method = {**(merged.get("method") or DEFAULTS["method"])}
                name = method.pop("name", None)
                try:
                    found |= probes.recorded(resolved_probes(merged.get("probes") or {}, "")).keys()
                    if name is not None:
                        declared = methods.load(name)
                        own_settings = {k: v for k, v in method.items()
                                        if k not in declared.quantities}  # fmt: skip
                        found |= set(declared.measures(declared.chosen(own_settings)))
                except (UserError, TypeError):
                    continue
    return found


def _measuring(paper: Paper, tier: Tier) -> bool:
    """Return whether any layer of a paper asks for a probe, or for a method that measures."""
    layers: list[Settings] = [tier.base, paper.base]
    for each in paper.experiments.values():
        layers += [each.base, *(own.base for own in each.tiers.values()), *each.arms.values()]
    names = {(layer.method or {}).get("name", DEFAULTS["method"]["name"]) for layer in layers}
    return any(layer.probes for layer in layers) or any(map(_measures, names))


def _measures(name: str) -> bool:
    """Return whether a method's file has figures of its own."""
    return methods.load(name).measures is not methods.USUAL["measures"]
