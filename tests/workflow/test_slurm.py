"""The graph through profiles/slurm on a real SLURM: its results, and what becomes of lost jobs."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import slurm as slurm_factory
from factories.graph import Copy
from factories.slurm import Slurm, wait_for

pytestmark = [
    pytest.mark.skipif(slurm_factory.missing() is not None, reason=slurm_factory.missing() or ""),
    # The first of them waits for what the module sets up too.
    pytest.mark.timeout(900),
]

RECORDS = "results/smoke/records/tiny/L0-0000.jsonl"
OPTIONS = ["--slurm-init-seconds-before-status-checks", "1", "--max-threads", "2",
           "--latency-wait", "10"]  # fmt: skip
# Asks for the state of its jobs twice a second. The plugin asks ten seconds later each time that
# none has ended, which suits people's jobs; those of tests take seconds, and a test would wait.
SNAKEMAKE = """
import asyncio, sys
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
RemoteExecutor.sleep = lambda executor: asyncio.sleep(0.5)
sys.exit(main())
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    with slurm_factory.running() as started:
        yield started


class Clustered(Copy):
    """A copy that is also run on the cluster."""

    def __init__(self, folder: Path, slurm: Slurm | None = None) -> None:
        super().__init__(folder)
        self.slurm = slurm

    def submit(self, *arguments: str, device: str = "cpu") -> subprocess.Popen[str]:
        """Start Snakemake with the profile; its jobs go to the cluster."""
        assert self.slurm is not None
        command, environment = self.command(
            *arguments, "--workflow-profile", "profiles/slurm", *OPTIONS,
            "--config", f"device={device}",
        )  # fmt: skip
        # The number of jobs is the profile's; cores are those of each job.
        at = command.index("--cores")
        command = [sys.executable, "-c", SNAKEMAKE, *command[3:at], *command[at + 2 :]]
        return subprocess.Popen(
            command, cwd=self.root, env={**environment, **self.slurm.environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def on_cluster(self, *arguments: str, expect: int = 0) -> str:
        return ended(self.submit(*arguments), expect)

    def job(self) -> str:
        """Return the number of the job that the cluster runs, when a run of it is half done."""
        assert self.slurm is not None
        wait_for(lambda: list((self.root / "results/store").rglob("resume.safetensors")), 90)
        [number] = self.slurm.jobs("running")
        return number


def ended(process: subprocess.Popen[str], expect: int = 0) -> str:
    try:
        output, _ = process.communicate(timeout=500)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(output[-4000:]) from None
    assert process.returncode == expect, output[-4000:]
    return output


def submitted(output: str) -> list[str]:
    """Return the numbers of jobs that Snakemake submitted."""
    return re.findall(r"submitted with SLURM jobid (\d+)", output)


def lengthened(copy: Copy) -> None:
    """Make one job of runs that are long enough to be disturbed halfway."""
    experiment = copy.paper["experiments"]["other"]
    copy.paper["experiments"] = {"other": experiment}
    copy.paper["claims"] = {"T-2": copy.paper["claims"]["T-2"]}
    copy.tier["base"]["epochs"] = 400
    copy.save()
    copy.write("config/config.yaml", {"tier": "smoke", "device": "cpu", "resume_seconds": 0})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Return a copy whose long runs were trained on this machine, without a cluster."""
    copy = Copy(tmp_path_factory.mktemp("local"))
    lengthened(copy)
    copy.snakemake(RECORDS)
    return copy


@pytest.fixture
def long(tmp_path: Path, slurm: Slurm, undisturbed: Copy) -> Clustered:
    """Return a copy with the same long runs to train, and its data prepared."""
    copy = Clustered(tmp_path, slurm)
    lengthened(copy)
    data = "results/data"
    shutil.copytree(undisturbed.root / data, copy.root / data)
    return copy


@pytest.fixture(scope="module")
def reproduced(
    tmp_path_factory: pytest.TempPathFactory, slurm: Slurm
) -> tuple[Clustered, Clustered, str]:
    """Return a paper reproduced on this machine and on the cluster, and what the latter said."""
    local, cluster = (
        Clustered(tmp_path_factory.mktemp(name), slurm) for name in ("local", "cluster")
    )
    for copy in (local, cluster):
        arms: dict[str, Any] = copy.paper["experiments"]["main"]["arms"]
        # A second level: its job takes the weights that another job left in the store.
        arms["student"] = {"method": {"name": "kd"}, "parents": {"teacher": "plain"}}
        copy.save()
    local.snakemake("tiny")
    return local, cluster, cluster.on_cluster("tiny")


def test_a_job_runs_on_the_cluster(
    reproduced: tuple[Clustered, Clustered, str], slurm: Slurm
) -> None:
    _, cluster, output = reproduced
    # All others wait for the data.
    job = slurm.job(submitted(output)[0])
    assert (job["JobState"], job["Partition"], job["Requeue"]) == ("COMPLETED", "cpu", "1")
    assert job["TimeLimit"] == "00:30:00" and "mem=4000M" in job["TRES"]
    assert "gpu" not in job["TRES"]
    assert (cluster.root / "results/data/digits.json").exists()


def test_results_are_those_of_this_machine(
    reproduced: tuple[Clustered, Clustered, str], slurm: Slurm
) -> None:
    local, cluster, output = reproduced
    jobs = [slurm.job(number) for number in submitted(output)]
    # Data, range test, two levels of training, evidence.
    assert [job["JobState"] for job in jobs] == ["COMPLETED"] * 5
    assert {job["Partition"] for job in jobs} == {"cpu"}
    expected = local.figures()
    # Five arms of two seeds, and a range test.
    assert len(expected) == 11 and cluster.figures() == expected
    for claim, found in cluster.evidence().items():
        said = local.evidence()[claim]
        assert (found["verdict"], found["n"]) == (said["verdict"], said["n"])
    again = cluster.on_cluster("tiny")
    assert "Nothing to be done" in again and not submitted(again)


@pytest.mark.slow
def test_a_cancelled_job_goes_on_with_the_next_command(long: Clustered, undisturbed: Copy) -> None:
    assert long.slurm is not None
    process = long.submit(RECORDS, "--retries", "0")
    long.slurm.run("scancel", long.job())
    assert "SLURM status is: 'CANCELLED'" in ended(process, expect=1)
    assert not (long.root / RECORDS).exists()
    long.on_cluster(RECORDS)
    assert "resumed after epoch" in log(long)
    assert long.figures() == undisturbed.figures()


def test_a_requeued_job_goes_on(long: Clustered, undisturbed: Copy) -> None:
    assert long.slurm is not None
    process = long.submit(RECORDS)
    number = long.job()
    long.slurm.run("scontrol", "requeue", number)
    assert submitted(ended(process)) == [number]
    assert long.slurm.job(number)["Restarts"] == "1"
    assert "resumed after epoch" in log(long)
    assert long.figures() == undisturbed.figures()


@pytest.mark.slow
@pytest.mark.parametrize(
    "jobs_too",
    [pytest.param(False, id="daemon"), pytest.param(True, id="machine")],
)
def test_a_node_that_goes_and_comes_back(
    long: Clustered, undisturbed: Copy, jobs_too: bool
) -> None:
    assert long.slurm is not None
    process = long.submit(RECORDS)
    number = long.job()
    long.slurm.kill_node(jobs_too)
    if jobs_too:
        long.slurm.give_up_node()
    long.slurm.start_node()
    assert submitted(ended(process)) == [number]
    # A job outlives its node's daemon; one that went with the machine is started again.
    assert long.slurm.job(number)["Restarts"] == str(int(jobs_too))
    assert ("resumed after epoch" in log(long)) == jobs_too
    assert long.figures() == undisturbed.figures()


@pytest.mark.slow
def test_jobs_of_a_killed_snakemake_run_on(long: Clustered, undisturbed: Copy) -> None:
    slurm = long.slurm
    assert slurm is not None
    process = long.submit(RECORDS)
    first = long.job()
    process.kill()
    process.communicate()
    # On a slow machine the first job would end before there is a second.
    slurm.run("scontrol", "suspend", first)
    long.snakemake("--unlock")
    process = long.submit(RECORDS)
    wait_for(lambda: slurm.jobs("pending,running"), 120)
    slurm.run("scontrol", "resume", first)
    # Its job waits for what the first is training, and finds it done.
    [second] = submitted(ended(process))
    ends = {slurm.job(number)["JobState"] for number in (first, second)}
    assert second != first and ends == {"COMPLETED"}
    assert long.trained() == 0
    assert long.figures() == undisturbed.figures()


def log(copy: Copy) -> str:
    """Return the log of the job that trained."""
    return (copy.root / "results/smoke/logs/records/tiny/L0-0000.log").read_text()


@pytest.mark.parametrize(
    ("gres", "request_"), [(None, "gres:gpu:1"), ("gpu:1", "gres:gpu:1")], ids=["gpus", "gres"]
)
def test_a_job_on_a_gpu_asks_for_one(long: Clustered, gres: str | None, request_: str) -> None:
    assert long.slurm is not None
    long.slurm.run("scontrol", "update", "partition=gpu", "state=down")
    try:
        long.write("profiles/slurm/cluster.yaml", {"device": "cuda", "gres": gres})
        process = long.submit(RECORDS, device="cuda")
        [number] = wait_for(lambda: long.slurm.jobs("pending"), 30)
        job = long.slurm.job(number)
        # Interrupted, Snakemake takes its jobs back.
        process.send_signal(signal.SIGINT)
        ended(process, expect=1)
        assert wait_for(lambda: long.slurm.job(number)["JobState"] == "CANCELLED", 20)
    finally:
        long.slurm.run("scontrol", "update", "partition=gpu", "state=up")
    assert job["Partition"] == "gpu"
    where = "TresPerNode" if gres else "TresPerJob"
    assert job[where] == request_
    assert {"TresPerNode", "TresPerJob"} & job.keys() == {where}
