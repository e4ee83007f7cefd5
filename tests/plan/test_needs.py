"""What jobs ask for: time and memory by the size of their runs, a GPU where the device is one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from factories.data import KNOWN
from factories.graph import Copy

from cyclery.common.errors import UserError
from cyclery.config.load import load
from cyclery.plan import resources
from cyclery.plan.snakemake_api import Graph


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def graph(copy: Copy, **config: Any) -> Graph:
    return Graph.of(load(copy.root, config))


def test_minutes_are_those_of_the_longest_process() -> None:
    least, slack = resources.LEAST_MINUTES, resources.SLACK
    assert resources.minutes([], 1) == least
    assert resources.minutes([600] * 8, 1) == least + slack * 80
    assert resources.minutes([600] * 8, 4) == least + slack * 20
    # A run is not divided among processes.
    assert resources.minutes([600], 8) == least + slack * 10


def test_memory_grows_with_processes_and_data_or_has_room_for_cuda() -> None:
    one, four = (resources.megabytes([KNOWN["digits"]], workers, gpu=False) for workers in (1, 4))
    assert four == one + 3 * resources.WORKER_MB
    pixels = math.ceil(resources.DATA_COPIES * 60_000 * 3072 / 1e6)
    on_gpu = resources.megabytes([KNOWN["cifar10"]], 1, gpu=True)
    assert on_gpu == resources.BASE_MB + resources.CUDA_MB + pixels


def test_a_shard_asks_for_more_where_its_runs_are_longer(copy: Copy) -> None:
    short = graph(copy).shard_minutes("tiny", "L0-0000", 1)
    copy.tier["base"]["epochs"] = 20_000
    copy.tier["images_per_second"] = {"bn_mlp": 10_000}
    copy.save()
    assert graph(copy).shard_minutes("tiny", "L0-0000", 1) > short
    assert graph(copy).shard_minutes("tiny", "L0-0000", 4) < graph(copy).shard_minutes(
        "tiny", "L0-0000", 1
    )
    assert graph(copy).range_minutes("tiny", 1) >= resources.LEAST_MINUTES


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({"device": "cpu"}, {}),
        ({"device": "cpu", "gres": "gpu:1"}, {}),
        ({"device": "cuda"}, {"gpu": 1}),
        ({"device": "cuda", "gres": "gpu:a100:1"}, {"gres": "gpu:a100:1"}),
    ],
)
def test_a_gpu_is_asked_for_once_and_only_where_the_device_is_one(
    copy: Copy, config: dict[str, Any], asked: dict[str, Any]
) -> None:
    assert graph(copy, **config).device_resources == asked


@pytest.mark.parametrize("gres", ["gpu", "gpu:2", "gpu:1 --mem=0", "mps:1", ""])
def test_other_requests_are_refused(copy: Copy, gres: str) -> None:
    with pytest.raises(UserError, match="gres: must be null, gpu:1 or gpu:MODEL:1"):
        graph(copy, gres=gres)
