"""Types that readers share, and the error for a malformed raw file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cyclery.common.errors import UserError
from cyclery.data.dataset import Dataset

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


def bad(dataset: Dataset, index: int, what: str) -> UserError:
    """Return the error for a raw file that does not follow its format."""
    return UserError(f"{dataset.files[index].name} of {dataset.name} is not as expected: {what}.")
