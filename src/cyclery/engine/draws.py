"""Random numbers of a step where runs are stacked: each run draws from generators of its own.

A step draws once for all runs, from a stand-in, and gets what each run has drawn for itself.
Shapes: K runs; what a run has as [...] is [K, ...] here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import TransformType, get_interpreter_stack, is_batchedtensor

from cyclery.engine.tape import NotTaped
from cyclery.models.layers import Noise

Generators = Mapping[str, torch.Generator]
# By what makes a tensor of random numbers, what fills one with the same in less time.
_FILLING = {torch.rand: Tensor.uniform_, torch.randn: Tensor.normal_}
_EMPTY = (torch.empty, torch.empty_like, Tensor.new_empty)


class Draws:
    """What K runs draw in a step, each from its own of ``generators``.

    The step is given ``stand_ins``, by name. What it draws from one past ``made`` has moved it.
    """

    def __init__(self, generators: Sequence[Generators]) -> None:
        self.stand_ins = {name: torch.Generator() for name in generators[0]}
        self._of = {
            id(x): [each[name] for each in generators] for name, x in self.stand_ins.items()
        }
        self._still = torch.Generator().get_state()
        self._row: Tensor | None = None

    @property
    def generators(self) -> list[torch.Generator]:
        """Those of all runs."""
        return [each for every in self._of.values() for each in every]

    @property
    def moved(self) -> bool:
        """Whether numbers were drawn that are no run's own."""
        return not all(x.get_state().equal(self._still) for x in self.stand_ins.values())

    @contextmanager
    def taken(self, networks: Iterable[nn.Module], generators: Generators) -> Iterator[None]:
        """Inside, networks that draw from these generators draw from the stand-ins."""
        names = {id(drawn): name for name, drawn in generators.items()}
        noisy = [m for net in networks for m in net.modules() if isinstance(m, Noise)]
        before = [(m, m.generator) for m in noisy if id(m.generator) in names]
        try:
            for module, own in before:
                module.generator = self.stand_ins[names[id(own)]]
            yield
        finally:
            self._row = None
            for module, own in before:
                module.generator = own

    def begin(self, row: Tensor) -> None:
        """Have a tensor of which each run has its own: by it vmap is told of draws without any."""
        self._row = row

    def made(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return what a function of torch makes; where it draws, every run's own numbers.

        Raises:
            NotTaped: it draws in a way in which runs cannot draw for themselves.
        """
        if self._row is None:
            return func(*args, **kwargs)
        if func in _EMPTY and "out" not in kwargs:
            found = func(*args, **kwargs)
            if is_batchedtensor(found) or not found.is_contiguous():
                return found
            # Memory of each run's own, for it may be drawn into.
            return self._each(lambda: torch.empty(self._runs, *found.shape, dtype=found.dtype))
        generators = self._of.get(id(kwargs.get("generator")))
        if generators is None or isinstance(func, FunctionType):
            # If it draws at all, vmap refuses.
            return func(*args, **kwargs)
        given = {name: value for name, value in kwargs.items() if name != "generator"}
        if sum(level.key() == TransformType.Vmap for level in get_interpreter_stack()) > 1:
            raise NotTaped("a step draws random numbers inside of a `vmap` of its own")
        if "out" in given:
            raise NotTaped("a step draws random numbers into what `out=` names")
        if func in _FILLING:
            size = given.get("size", args)
            shape = size[0] if size and not isinstance(size[0], int) else size
            filled = partial(_filled, generators, _FILLING[func], shape, given.get("dtype"), [], {})
            return self._each(filled)
        if not func.__name__.endswith("_"):
            return self._each(partial(_made, generators, func, args, given), *args, *given.values())
        into, *others = args
        if into.stride() != torch.empty(into.shape, device="meta").stride():
            # Alone they would come in the order of its memory.
            raise NotTaped("a step draws random numbers into a tensor that is not contiguous")
        filled = partial(_filled, generators, func, into.shape, into.dtype, others, given)
        drawn = self._each(filled, *others, *given.values())
        try:
            return into.copy_(drawn)
        except RuntimeError as error:
            raise NotTaped(
                "a step draws random numbers into a tensor that its runs share; draw into one of "
                "`torch.empty`"
            ) from error

    @property
    def _runs(self) -> int:
        return len(next(iter(self._of.values())))

    def _each(self, make: Callable[..., Tensor], *given: Any) -> Any:
        return _OfRuns.apply(make, self._row, *[x for x in given if isinstance(x, Tensor)])


def _made(
    generators: Sequence[torch.Generator],
    func: Callable[..., Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *tensors: Sequence[Tensor],
) -> Tensor:
    """Return what a function makes with each generator, stacked.

    ``tensors`` are those among its arguments, of every run.
    """
    return torch.stack([func(*a, **k) for a, k in _arguments(generators, args, kwargs, tensors)])


def _filled(
    generators: Sequence[torch.Generator],
    fill: Callable[..., Tensor],
    shape: Sequence[int],
    dtype: torch.dtype | None,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *tensors: Sequence[Tensor],
) -> Tensor:
    """Return new memory [K, *shape], filled in place for each run as ``_made`` calls functions."""
    found = torch.empty(len(generators), *shape, dtype=dtype)
    every = _arguments(generators, args, kwargs, tensors)
    for own, (a, k) in zip(found.unbind(), every, strict=True):
        fill(own, *a, **k)
    return found


def _arguments(
    generators: Sequence[torch.Generator],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tensors: Sequence[Sequence[Tensor]],
) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    for place, generator in enumerate(generators):
        left = iter([every[place] for every in tensors])
        own = [next(left) if isinstance(x, Tensor) else x for x in args]
        named = {k: next(left) if isinstance(x, Tensor) else x for k, x in kwargs.items()}
        yield own, {**named, "generator": generator}


class _OfRuns(torch.autograd.Function):
    """What ``make`` makes [K, ...] of the tensors of every run, of which ``row`` is one."""

    @staticmethod
    def forward(make: Callable[..., Tensor], row: Tensor, *tensors: Tensor) -> Tensor:
        raise NotImplementedError("only runs that are stacked have it")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        """Keep nothing: within ``torch.func.grad`` it is a constant."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotTaped("a step differentiates what it draws, inside of `torch.func`")

    @staticmethod
    def vmap(
        info: Any, dims: Any, make: Callable[..., Tensor], row: Tensor, *tensors: Tensor
    ) -> Any:
        every = [
            [x] * info.batch_size if dim is None else x.movedim(dim, 0).unbind()
            for x, dim in zip(tensors, dims[2:], strict=True)
        ]
        return make(*every), 0
