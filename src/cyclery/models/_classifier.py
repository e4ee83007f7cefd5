"""``Classifier``: a network as a feature extractor and a head that returns logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from cyclery.common.errors import UserError
from cyclery.models.heads import linear


class Classifier(nn.Module):
    """Features [B, D] of images [B, C, H, W], and logits [B, classes] by ``head``.

    The parts that make features are set as attributes, such as ``net.body``; they follow each
    other in that order. A network that is no chain overrides ``features``.

    It begins with the linear head: ``cyclery.models.build`` puts another in its place, so that the
    parts before it have the same initial weights whatever the head.

    Where stages of layers end is said by ``stages``, the first one first: the name of the module
    that makes the last maps before an activation, and that of their norm (``_stages``).

    Args:
        width: D, the length of a feature vector, kept as ``width``.
        classes: how many there are.
    """

    stages: Mapping[str, str] = {}

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.width = width
        self.head = linear.build(linear.Settings(), width, classes)

    def chain(self) -> Iterator[nn.Module]:
        """Yield the modules that, one after another, make features; lists of layers taken apart.

        A network that overrides ``features`` says here which these are.
        """
        for name, part in self.named_children():
            if name != "head":
                yield from layers_of(part)

    def features(self, x: Tensor) -> Tensor:
        """Return the feature vectors [B, D] of images [B, C, H, W]."""
        for name, part in self.named_children():
            if name != "head":
                x = part(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, classes] of images [B, C, H, W]."""
        logits: Tensor = self.head(self.features(x))
        return logits


def layers_of(part: nn.Module) -> Iterator[nn.Module]:
    """Yield a module, or what a list of modules consists of."""
    if isinstance(part, nn.Sequential | nn.ModuleList):
        for layer in part:
            yield from layers_of(layer)
    else:
        yield part


def blocks(net: nn.Module) -> list[list[nn.Module]]:
    """Return the modules that make features in blocks, those next to the images first.

    A block begins with each module that has weights inside of it, as residual blocks have; in a
    network without such modules with each layer of weights. A module that is made of others but is
    ``one_layer`` counts as such a layer. What comes before the first belongs to
    it, and what follows a block to that one. The head is no part of them. A UserError where a
    network is no chain.
    """
    if not isinstance(net, Classifier):
        raise UserError(
            f"model: {type(net).__name__} does not say which blocks it consists of, in order; "
            "choose another network."
        )
    modules = list(net.chain())
    weighted = [any(p.ndim > 1 for p in module.parameters()) for module in modules]
    inside = [
        has and any(module.children()) and not getattr(module, "one_layer", False)
        for has, module in zip(weighted, modules, strict=True)
    ]
    starts = [i for i, begins in enumerate(inside if any(inside) else weighted) if begins]
    ends = [*starts[1:], len(modules)]
    return [modules[a:b] for a, b in zip([0, *starts[1:]], ends, strict=True)]


def head_of(net: nn.Module, classes: int) -> str | None:
    """Return the name of a network's own head, or None where it has none.

    In a network that is no ``Classifier``, as those of other packages, that is the last linear
    layer, if that gives the logits.
    """
    if isinstance(net, Classifier):
        return "head"
    layers = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear)]
    path, last = layers[-1] if layers else ("", None)
    return path if path and last is not None and last.out_features == classes else None


def put_head(net: nn.Module, make: Callable[[int], nn.Module], classes: int, where: str) -> None:
    """Put what ``make`` returns for a number of features in the place of a network's own head.

    A UserError, which begins with ``where``, if it has none.
    """
    if isinstance(net, Classifier):
        net.head = make(net.width)
        return
    if (path := head_of(net, classes)) is None:
        raise UserError(
            f"{where}: this network does not end in a linear layer of {classes} outputs, so no "
            "other head can take its place; leave `head` out, or choose another network."
        )
    last = net.get_submodule(path)
    assert isinstance(last, nn.Linear)
    net.set_submodule(path, make(last.in_features))
