"""Lazy imports of torch and pydantic.

Config validation, planning and the run store read the settings of every method, and importing
torch costs seconds. Modules that those steps import take ``torch`` and ``F`` from here instead, and
pydantic, which a job that finds all its runs in the store never needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pydantic as pydantic
    import torch as torch
    import torch.nn.functional as F
else:

    class _Lazy:
        """Stand in for a module until its first attribute is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)
            return value

    pydantic = _Lazy("pydantic")
    torch = _Lazy("torch")
    F = _Lazy("torch.nn.functional")

__all__ = ["F", "pydantic", "torch"]
