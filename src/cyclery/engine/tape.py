"""Record what a function computes on a CPU, and compute it again without Python around it.

A step of a small network costs more in Python, autograd and dispatch than in arithmetic. A tape
holds the kernels that one call has run, backward pass included, and runs them again on other
inputs: what a CUDA graph is on a GPU. So a function must not read a number off a tensor, and what
it keeps between calls it must change in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# These give a tensor over the memory of their first argument.
_VIEWS = frozenset(
    f"aten::{name}" for name in (
        "_unsafe_view", "alias", "as_strided", "detach", "expand", "permute", "select", "slice",
        "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
    )
)  # fmt: skip
# These give the host a number.
_READING = frozenset(
    f"aten::{name}" for name in ("_local_scalar_dense", "allclose", "equal", "is_nonzero")
)
# Torch's own bindings of these take the same arguments and cost half as much as the operator.
_BOUND = frozenset((
    "_unsafe_view", "add", "add_", "addcdiv_", "addcmul", "addcmul_", "amax", "as_strided",
    "baddbmm", "bernoulli_", "bmm", "clamp_max", "clamp_min", "copy_", "div", "div_", "eq", "exp",
    "expand", "gather", "index_select", "lerp", "lerp_", "log", "masked_fill", "mean", "mul",
    "mul_", "ne", "neg", "new_empty_strided", "new_zeros", "normal_", "permute", "pow",
    "reciprocal", "relu", "rsqrt", "scatter_add", "select", "sqrt", "squeeze", "sub", "sub_", "sum",
    "transpose", "unbind", "uniform_", "unsqueeze", "view",
))  # fmt: skip


class NotTaped(Exception):
    """The function cannot be taped; the text says why."""


class Tape:
    """The kernels of ``function(*inputs)``, which returns one tensor; call it with other inputs.

    The first call is made, for the record. ``bytes`` is what it allocated, views aside.
    ``wrong`` says of a kernel and its arguments why it may not be on this tape, if so.

    Raises:
        NotTaped: the function reads a number off a tensor, or calls a kernel that is wrong.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        inputs: Sequence[Tensor],
        wrong: Callable[[str, Any], str | None] = lambda name, args: None,
    ) -> None:
        recording = _Recording()
        with recording:
            result = function(*inputs)
        # By their ids: all tensors of the record live until it is written down.
        self._names = {id(x): f"in{i}" for i, x in enumerate(inputs)}
        self._kept: dict[str, Any] = {}
        self._lines: list[tuple[str, list[str], str]] = []
        self.bytes = 0
        for operation, args, kwargs, found in recording.calls:
            if why := wrong(operation._schema.name, args):
                raise NotTaped(why)
            self._write(operation, args, kwargs, found)
        code = _compiled(self._source(len(inputs), self._name(result)))
        self._replay = FunctionType(code, self._kept)
        del self._names, self._lines

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Compute again; the result is a new tensor."""
        # What was recorded is below autograd, so nothing is to be tracked.
        with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
            found: Tensor = self._replay(*inputs)
        return found

    def _write(self, operation: Any, args: Any, kwargs: dict[str, Any], found: Any) -> None:
        name = operation._schema.name
        if name in _READING:
            raise NotTaped("it reads a number off a tensor")
        if name.startswith("prim::"):
            return
        if name == "aten::detach":
            self._names[id(found)] = self._name(args[0])
            return
        several = isinstance(found, tuple | list)
        outputs = list(found) if several else [found]
        view = name in _VIEWS
        if view and self._name(args[0]) in self._kept:
            # A view of what stays where it is stays there, too.
            for each in outputs:
                self._name(each)
            return
        if name == "aten::lift_fresh":
            # A constant of the code, which may be changed in place afterwards.
            operation, kwargs = torch.ops.aten.clone.default, {}
        used: list[str] = []
        given = ", ".join(
            [self._text(x, used) for x in args]
            + [f"{key}={self._text(x, used)}" for key, x in kwargs.items()]
        )
        short = name.removeprefix("aten::")
        if short in _BOUND and isinstance(args[0], Tensor) and "out" not in kwargs:
            method = "view" if short == "_unsafe_view" else short
            call = f"{used[0]}.{method}({given.partition(', ')[2]})"
        else:
            call = f"{self._keep(operation)}({given})"
        targets = []
        for output in outputs:
            if not isinstance(output, Tensor) or id(output) in self._names:
                targets.append("_")
                continue
            self._names[id(output)] = f"v{len(self._names)}"
            targets.append(self._names[id(output)])
            if not view:
                self.bytes += output.numel() * output.element_size()
        target = ", ".join(targets) + ("," if several and targets else "")
        self._lines.append((f"{target or '_'} = {call}", used, target))

    def _source(self, inputs: int, result: str) -> str:
        """Return the code, which forgets every tensor after its last use."""
        lines = [f"    return {result}"]
        alive = {result, "_"}
        for line, used, target in reversed(self._lines):
            own = [name for name in target.replace(",", " ").split() if name not in alive]
            done = [name for name in dict.fromkeys([*used, *own]) if name not in alive]
            done = [name for name in done if name[0] == "v"]
            alive.update(done)
            if done:
                lines.append(f"    del {', '.join(done)}")
            lines.append(f"    {line}")
        given = ", ".join(f"in{i}" for i in range(inputs))
        return "\n".join([f"def replay({given}):", *reversed(lines)])

    def _text(self, value: Any, used: list[str]) -> str:
        """Return an argument as code, and add the tensors in it to ``used``."""
        if isinstance(value, Tensor):
            used.append(self._name(value))
            return used[-1]
        if isinstance(value, tuple | list):
            return f"[{', '.join(self._text(x, used) for x in value)}]"
        if value is None or isinstance(value, bool | int):
            return repr(value)
        return self._keep(value)

    def _name(self, tensor: Tensor) -> str:
        if id(tensor) not in self._names:
            self._names[id(tensor)] = self._keep(tensor)
        return self._names[id(tensor)]

    def _keep(self, value: Any) -> str:
        """Have a value under a name of its own; what is no tensor once."""
        name = f"k{len(self._kept)}"
        self._kept[name] = value
        return name


@lru_cache(maxsize=64)
def _compiled(source: str) -> CodeType:
    module = compile(source, "<tape>", "exec")
    # Of a module that defines one function; nothing is executed for it.
    [code] = [each for each in module.co_consts if isinstance(each, CodeType)]
    return code


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
        if func is torch.ops.aten.lift_fresh.default:
            # What it gives is its argument, which is kept as it was before it is changed.
            args = (args[0].clone(),)
        self.calls.append((func, args, kwargs or {}, found))
        return found
