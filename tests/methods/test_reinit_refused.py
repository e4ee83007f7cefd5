"""Re-initialisation: settings and networks that do not fit are refused."""

from __future__ import annotations

from typing import Any

import pytest
from factories import engine as factory
from factories.threads import one_thread
from torch import nn

from cyclery.common.errors import UserError

_one_thread = pytest.fixture(autouse=True, scope="module")(one_thread)
Json = dict[str, Any]


@pytest.mark.parametrize(
    ("chosen", "more", "said"),
    [
        ({"early_stopping": True, "stages": 2}, {}, r"^early_stopping: must be false where there"),
        ({"stages": 25}, {"epochs": 6}, r"method\.stages: must be at most the 24 updates of the "),
        ({"reset": "last_block", "last": 3}, {}, r"method\.last: must be below the 3 blocks"),
        ({"reset": "layerwise"}, {"model_settings": {"hidden": [8]}}, r"method\.reset: layerwise "),
        ({"reset": "layerwise"}, {"model": "stochastic_depth"}, r"^model: blocks that drop out at"),
        ({"early_stopping": True, "stages": 1}, {"split": {"validation": 0}},
         r"^split\.validation: must be above 0"),
        ({"early_stopping": True, "stages": 1}, {"split": {"retrain": True}},
         r"^split\.retrain: must be false"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(chosen: Json, more: Json, said: str) -> None:
    more = {"lr": 0.1, "model_settings": {"hidden": [32, 24, 16]}, **more}
    if more.get("model") == "stochastic_depth":
        more["model_settings"] = {"depth": 8, "p_last": 0.5}
    with pytest.raises(UserError, match=said):
        run = factory.run(factory.settings("reinit", method_settings=chosen, **more))
        factory.finish(run)


def test_a_network_that_names_no_blocks_is_refused() -> None:
    from cyclery.models._classifier import blocks

    with pytest.raises(UserError, match=r"^model: Sequential does not say which blocks"):
        blocks(nn.Sequential(nn.Linear(2, 2)))
