"""Batched augmentation on the device: ``Pipeline`` applies a list of ops such as this one.

    [{"op": "shift", "size": 1}, {"op": "flip"}]

A file of this folder is an op, found by its name, so adding one needs no other edit. It declares a
frozen dataclass ``Settings`` that derives from ``Op``: its docstring, and the ``doc`` and limits in
the metadata of each field, are what the reference page and the JSON Schema say of it. It defines

- ``stage(images)``, which returns the ``Stage`` that changes a batch: a class whose call takes the
  images [B, C, H, W], the op's own uniform numbers ``u`` [B, columns] and the magnitude, and
  returns images of the same shape. It may change float images in place, uint8 ones never. Tensors
  that it needs it keeps with ``constant``, so that they move with the pipeline;
- ``columns``: how many uniform numbers in [0, 1) one image takes, 0 unless defined. Nothing else is
  drawn, so that a run's views depend on its generator alone; what wants more random values than
  that makes them of these, on the device;
- ``ON = "normalised"`` where it works on the finished float32 image, in which 0 is the mean pixel,
  as what covers a part does: only its like may follow. Any other op works on ``"pixels"``: uint8,
  or float32 after an op that left floats, in 0 to ``images.max_value``. One that leaves values up
  to another number says so in the ``max_value`` of its stage;
- ``needs_magnitude``: whether, as set, it reads the schedule ``magnitude``;
- ``check(shape, where)``, which raises a UserError where its values do not suit the images.

No shape may depend on data and nothing may be read back to the host, since a run is captured in a
CUDA graph. Files import torch lazily (``from cyclery.common.lazy import torch``), because planning
reads their settings. What several ops share lies in files whose names begin with ``_``.
"""

from __future__ import annotations

from cyclery.augment._files import check, names, ops, settings_type
from cyclery.augment._op import Images, Op, Stage, check_side
from cyclery.augment._pipeline import Pipeline

__all__ = ["Images", "Op", "Pipeline", "Stage", "check", "check_side", "names", "ops",
           "settings_type"]  # fmt: skip
