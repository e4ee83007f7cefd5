"""Images, and pipelines that leave them on their scale."""

from __future__ import annotations

import torch

from cyclery.augment import Pipeline

DIGITS, FASHION, CIFAR, WIDE = (1, 8, 8), (1, 28, 28), (3, 32, 32), (1, 12, 20)


EVERYTHING = [
    {"op": "shift", "size": 2},
    {"op": "flip"},
    {"op": "policy", "form": "uda"},
    {"op": "randaugment"},
    {"op": "cutout", "size": 4, "p": 0.5},
    {"op": "erasing"},
]


def images(batch: int, shape=CIFAR, max_value: int = 255, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, max_value + 1, (batch, *shape), dtype=torch.uint8, generator=generator)


def raw(spec, shape=CIFAR, max_value: int = 255) -> Pipeline:
    """A pipeline whose normalisation gives the pixel values themselves."""
    return Pipeline(spec, shape, [0.0] * shape[0], [1 / max_value] * shape[0], max_value)


def captured(pipeline: Pipeline, *given: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
    """Return on the CPU what a pipeline, captured on zeros, makes of inputs on a CUDA device."""
    pipeline = pipeline.to("cuda")
    inputs = [torch.zeros_like(one).cuda() for one in given]
    stream = torch.cuda.Stream()
    torch.use_deterministic_algorithms(deterministic)
    try:
        with torch.cuda.stream(stream):
            pipeline(*inputs)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            out = pipeline(*inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    for target, source in zip(inputs, given, strict=True):
        target.copy_(source)
    graph.replay()
    torch.cuda.synchronize()
    return out.cpu()
