"""Make the streams of a run from what its method declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from cyclery.augment import Pipeline
from cyclery.engine.samplers import sampler
from cyclery.engine.stream import Data, Feed, origin
from cyclery.methods import Stream
from cyclery.methods._streams import FINEST, OWN, TRAIN
from cyclery.records.record import RunSettings


def pool(stream: Stream, ids: Mapping[str, Tensor]) -> Tensor:
    """Return the ids of a stream's pool; none yet where a hook fills it."""
    if stream.pool == OWN:
        return ids[TRAIN].new_empty(0)
    return ids[TRAIN if stream.pool == FINEST else stream.pool]


def pipeline(data: Data, spec: Sequence[Mapping[str, Any]]) -> Pipeline:
    """Return what makes a view of images, on their device."""
    manifest = data.manifest
    made = Pipeline(spec, data.shape, manifest["mean"], manifest["std"], manifest["max_value"])
    return made.to(data.images.device)


def feeds(
    settings: RunSettings,
    data: Data,
    ids: Mapping[str, Tensor],
    streams: Mapping[str, Stream],
    samples: int,
    batches: Sequence[int],
) -> dict[str, Feed]:
    """Return the streams that a method declares, each with its views."""
    weak = settings["augment"]
    specs = {"plain": [], "weak": weak, "strong": weak + settings["strong"],
             **settings.get("views", {})}  # fmt: skip
    pipelines = {kind: pipeline(data, spec) for kind, spec in specs.items()}
    found = {}
    for name, stream in streams.items():
        labelled = data.labelled_as(stream.pool, settings["split"], settings["seed"])
        found[name] = Feed(
            name,
            [(kind, pipelines[kind]) for kind in stream.views],
            labelled,
            pool(stream, ids),
            sampler(stream, labelled.labels, settings["mu"] or 1),
            samples=samples,
            batches=batches,
            origin=origin(settings),
            own=stream.pool == OWN,
        )
    return found
