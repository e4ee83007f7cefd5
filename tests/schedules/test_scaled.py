"""A schedule with another peak."""

from __future__ import annotations

import numpy as np
import pytest

from cyclery import schedules
from cyclery.common.errors import UserError

CLOCK, _ = schedules.clock_for([10] * 5, 100)
COSINE = {"kind": "cosine", "peak": 0.3, "end": 0.03, "warmup_epochs": 1}


@pytest.mark.parametrize("peak", [0.1, 0.00455, 3.7])
def test_the_shape_stays_and_the_peak_is_the_value_itself(peak: float) -> None:
    found = schedules.column({"kind": "scaled", "of": COSINE, "peak": peak}, CLOCK)
    shape = schedules.column(COSINE, CLOCK)
    assert found.max() == peak
    np.testing.assert_allclose(found, shape * peak / shape.max(), rtol=1e-14)


def test_a_number_is_replaced() -> None:
    found = schedules.column({"kind": "scaled", "of": 0.7, "peak": 0.2}, CLOCK)
    assert (found == 0.2).all()


def test_what_is_nowhere_above_zero_has_no_peak() -> None:
    with pytest.raises(UserError, match="of: must be above 0 somewhere, to have a peak"):
        schedules.column({"kind": "scaled", "of": 0, "peak": 0.2}, CLOCK)


def test_a_batch_is_not_scaled() -> None:
    with pytest.raises(UserError, match=r"batch.kind: must be one of .*\(found 'scaled'\)"):
        schedules.epoch_batches({"kind": "scaled", "of": 10, "peak": 20}, 5)
