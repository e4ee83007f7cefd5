"""Record what a function computes on a CPU, and compute it again without Python around it.

A step of a small network costs more in Python, autograd and dispatch than in arithmetic. A tape
holds the kernels that one call has run, backward pass included, and runs them again on other
inputs: what a CUDA graph is on a GPU. So a function must not read a number off a tensor, and what
it keeps between calls it must change in place.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._python_dispatch import TorchDispatchMode

# These give a tensor over the memory of their first argument.
_VIEWS = frozenset(
    f"aten::{name}" for name in (
        "_unsafe_view", "alias", "as_strided", "detach", "expand", "permute", "select", "slice",
        "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
    )
)  # fmt: skip
# Torch's own bindings of these take the same arguments and cost half as much as the operator.
_BOUND = frozenset((
    "_unsafe_view", "add", "add_", "addcdiv_", "addcmul", "addcmul_", "amax", "as_strided",
    "baddbmm", "bmm", "clamp_max", "clamp_min", "copy_", "div", "div_", "eq", "exp", "expand",
    "gather", "index_select", "lerp", "lerp_", "log", "masked_fill", "mean", "mul", "mul_",
    "ne", "neg", "new_empty_strided", "new_zeros", "permute", "pow", "reciprocal", "relu",
    "rsqrt", "scatter_add", "select", "slice", "sqrt", "squeeze", "sub", "sub_", "sum",
    "transpose", "unsqueeze", "view",
))  # fmt: skip


class NotTaped(Exception):
    """The function cannot be taped; the text says why."""


class Tape:
    """The kernels of ``function(*inputs)``, which returns one tensor; call it with other inputs.

    The first call is made, for the record; its inputs and all that it changes in place are left as
    it made them. ``bytes`` is what it allocated, views aside.

    Raises:
        NotTaped: the function reads a number off a tensor.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        recording = _Recording()
        with recording:
            result = function(*inputs)
        self._graph = graph = fx.Graph()
        # By their ids: all tensors of the record live until it is written down.
        self._nodes = {id(x): graph.placeholder(f"in{i}") for i, x in enumerate(inputs)}
        self._constants: list[Tensor] = []
        self._fixed: set[int] = set()
        self.bytes = 0
        for operation, args, kwargs, found in recording.calls:
            self._write(operation, args, kwargs, found)
        graph.output(self._node(result))
        graph.lint()
        self._run = fx.GraphModule(torch.nn.Module(), graph).forward
        del self._nodes, self._graph

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Compute again; the result is a new tensor."""
        # What was recorded is below autograd, so nothing is to be tracked.
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            found: Tensor = self._run(*inputs, *self._constants)
        return found

    def _write(self, operation: Any, args: Any, kwargs: dict[str, Any], found: Any) -> None:
        name = operation._schema.name
        if name in ("aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero"):
            raise NotTaped("it reads a number off a tensor")
        if name.startswith("prim::"):
            return
        if name == "aten::detach":
            self._nodes[id(found)] = self._node(args[0])
            return
        view = name in _VIEWS
        if view and (id(args[0]) in self._fixed or id(args[0]) not in self._nodes):
            # A view of what stays where it is stays there, too.
            self._keep(args[0])
            for each in _tensors(found):
                self._keep(each)
            return
        if name == "aten::lift_fresh":
            # A constant of the code, which may be changed in place afterwards.
            operation, kwargs = torch.ops.aten.clone.default, {}
        node = self._call(operation, args, kwargs)
        outputs = list(_tensors(found))
        for index, output in enumerate(outputs):
            if id(output) in self._nodes:
                continue
            own = node
            if isinstance(found, tuple | list):
                own = self._graph.call_function(operator.getitem, (node, index))
            self._nodes[id(output)] = own
            if not view:
                self.bytes += output.numel() * output.element_size()

    def _call(self, operation: Any, args: Any, kwargs: dict[str, Any]) -> fx.Node:
        name = operation._schema.name.removeprefix("aten::")
        positional = fx.node.map_aggregate(args, self._argument)
        named: Any = fx.node.map_aggregate(kwargs, self._argument)
        if name in _BOUND and operation._overloadname != "out":
            if name == "_unsafe_view":
                name = "view"
            if hasattr(Tensor, name) and isinstance(args[0], Tensor):
                return self._graph.call_method(name, positional, named)
        return self._graph.call_function(operation, positional, named)

    def _argument(self, value: Any) -> Any:
        return self._node(value) if isinstance(value, Tensor) else value

    def _node(self, tensor: Tensor) -> fx.Node:
        return self._nodes[id(tensor)] if id(tensor) in self._nodes else self._keep(tensor)

    def _keep(self, tensor: Tensor) -> fx.Node:
        """Make a tensor that stays where it is one of the constants."""
        if id(tensor) not in self._nodes:
            node = self._graph.placeholder(f"kept{len(self._constants)}")
            self._nodes[id(tensor)] = node
            self._constants.append(tensor)
            self._fixed.add(id(tensor))
        return self._nodes[id(tensor)]


class _Recording(TorchDispatchMode):
    """Notes every operation, its arguments and its results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, dict[str, Any], Any]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else torch would import its compiler, which takes a second.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, found))
        return found


def _tensors(found: Any) -> Any:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, tuple | list):
        for each in found:
            yield from _tensors(each)
