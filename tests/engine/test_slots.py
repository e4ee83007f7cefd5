"""Slots on GPUs: never shared, freed by any death, spread, and kept from other users."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from factories.fault import Properties, note

from cyclery.common.errors import UserError
from cyclery.engine import slots
from cyclery.engine.slots import Pool, visible

SLOT = "a GPU slot left by a dead job (lock files alone, no GPU)"
START = """
import sys, time
from pathlib import Path
from cyclery.engine.slots import Pool
folder, devices, per_device, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:])
pool = Pool({index: str(index) for index in range(devices)}, per_device, folder)
"""
HOLD = f"""{START}
with pool.acquire() as index:
    print(index, flush=True)
    sys.stdin.readline()
"""
# Times are taken within the hold, so two that overlap were surely held at once.
HAMMER = f"""{START}
print("ready", flush=True)
sys.stdin.readline()
for _ in range(rounds):
    with pool.acquire(poll=0.001) as index:
        began = time.monotonic()
        time.sleep(0.004)
        print(index, began, time.monotonic())
"""


class Worker:
    """A process that runs one of the programs above."""

    def __init__(self, program: str, folder: Path, *numbers: int) -> None:
        command = [sys.executable, "-c", program, str(folder), *map(str, numbers)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> str:
        """Answer the process, and return what it says until it ends."""
        said, _ = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0
        return said


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def begin(program: str, *numbers: int) -> Worker:
        workers.append(Worker(program, tmp_path, *numbers))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def pool(folder: Path, devices: int, per_device: int = 1) -> Pool:
    return Pool({index: str(index) for index in range(devices)}, per_device, folder)


class Stop(Exception):
    pass


def at_look(number: int, act: Callable[[], None]) -> Callable[[], None]:
    """Return a pause that acts once, and stops the waiting if that did not help."""
    looks = iter(range(number + 20))

    def pause() -> None:
        look = next(looks, None)
        if look is None:
            raise Stop
        if look == number:
            act()

    return pause


def stop() -> None:
    raise Stop


@pytest.mark.parametrize(("devices", "per_device"), [(4, 1), (2, 2), (2, 1), (1, 1)])
def test_processes_never_share_a_slot(
    start: Callable[..., Worker], devices: int, per_device: int
) -> None:
    workers = [start(HAMMER, devices, per_device, 15) for _ in range(4)]
    assert [worker.line() for worker in workers] == ["ready"] * 4
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.write("\n")
        worker.process.stdin.flush()
    said = "".join(worker.go_on() for worker in workers)
    events = []
    for line in said.splitlines():
        index, began, ended = line.split()
        events += [(float(began), 1, int(index)), (float(ended), -1, int(index))]
    assert len(events) == 4 * 15 * 2
    held = [0] * devices
    for _, change, index in sorted(events):
        held[index] += change
        assert max(held) <= per_device


@pytest.mark.parametrize(("devices", "per_device"), [(4, 1), (2, 2)])
def test_four_processes_fill_four_slots(
    start: Callable[..., Worker], tmp_path: Path, devices: int, per_device: int
) -> None:
    holders = [start(HOLD, devices, per_device, 0) for _ in range(4)]
    assert sorted(int(holder.line()) for holder in holders) == sorted(
        list(range(devices)) * per_device
    )
    with pytest.raises(Stop), pool(tmp_path, devices, per_device).acquire(stop):
        pass
    holders[2].go_on()
    with pool(tmp_path, devices, per_device).acquire(stop):
        pass


def test_jobs_spread_over_the_devices(tmp_path: Path) -> None:
    with ExitStack() as stack:
        taken = [stack.enter_context(pool(tmp_path, 3, 2).acquire(stop)) for _ in range(6)]
    assert taken == [0, 1, 2, 0, 1, 2]


@pytest.mark.fault
def test_kill_9_frees_the_slot_for_who_waits(
    start: Callable[..., Worker],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    record_property: Properties,
) -> None:
    holder = start(HOLD, 1, 1, 0)
    assert holder.line() == "0"

    def kill() -> None:
        os.kill(holder.process.pid, signal.SIGKILL)
        holder.process.wait()

    caplog.set_level("INFO", "cyclery")
    with pool(tmp_path, 1).acquire(at_look(3, kill), poll=0.001) as index:
        assert index == 0
        assert holder.process.returncode == -signal.SIGKILL
    assert caplog.messages == ["waiting for a free GPU: 1 GPU x 1 job is taken"]
    note(record_property, SLOT, "whoever waits has it at once")


@pytest.mark.fault
def test_slots_of_a_machine_that_was_cut_are_free(
    start: Callable[..., Worker],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    record_property: Properties,
) -> None:
    """All that is left are the files of locks, whose processes are gone."""
    holders = [start(HOLD, 2, 2, 0) for _ in range(4)]
    assert [holder.line() for holder in holders].count("0") == 2
    for holder in holders:
        os.kill(holder.process.pid, signal.SIGKILL)
    for holder in holders:
        holder.process.wait()
    assert len(list(tmp_path.glob("*.lock"))) == 4
    with ExitStack() as stack:
        taken = [stack.enter_context(pool(tmp_path, 2, 2).acquire(stop)) for _ in range(4)]
        assert taken == [0, 1, 0, 1]
    assert caplog.messages == []
    assert len(list(tmp_path.glob("*.lock"))) == 4
    note(
        record_property, SLOT, "after a cut of all jobs their lock files hold nobody up", injected=4
    )


def test_waiting_ends_where_pause_raises_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "cyclery")
    two = pool(tmp_path, 2)
    with two.acquire(), two.acquire():
        assert caplog.messages == []
        with pytest.raises(Stop), two.acquire(at_look(2, stop), poll=0.001):
            pass
    assert caplog.messages == ["waiting for a free GPU: 2 GPUs x 1 job are taken"]
    with two.acquire(stop) as first, two.acquire(stop) as second:
        assert {first, second} == {0, 1}


def test_an_error_in_the_job_frees_the_slot(tmp_path: Path) -> None:
    with pytest.raises(KeyError), pool(tmp_path, 1).acquire():
        raise KeyError
    with pool(tmp_path, 1).acquire(stop) as index:
        assert index == 0


def test_jobs_with_other_masks_agree_on_the_gpu(tmp_path: Path) -> None:
    def masked(environment: dict[str, str], count: int) -> Pool:
        return Pool(visible(None, environment, lambda: count), 1, tmp_path)

    every = masked({}, 2)
    reverse = masked({"CUDA_VISIBLE_DEVICES": "1,0"}, 2)
    last = masked({"CUDA_VISIBLE_DEVICES": "1"}, 1)
    # GPU 1 is torch's 0 for both, so the second gets its other one.
    with last.acquire(stop) as of_last, reverse.acquire(stop) as of_reverse:
        assert (of_last, of_reverse) == (0, 1)
        with pytest.raises(Stop), every.acquire(stop):
            pass


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (None, ["0", "1", "2", "3"]),
        ("2,3", ["2", "3"]),
        ("3, 01", ["3", "1"]),
        ("1,-1,2", ["1"]),
        ("1,,2", ["1"]),
        ("1,no,2", ["1"]),
        ("1,GPU-8f,2", ["1"]),
        ("GPU-8f-1,GPU-03,2", ["GPU-8f-1", "GPU-03"]),
        ("MIG-GPU-8f/1/0,GPU-03", ["MIG-GPU-8f/1/0"]),
        # Of more than there are, CUDA takes those before the first that is not there.
        ("0,1,2,3,4,5", ["0", "1", "2", "3"]),
    ],
)
def test_visible_gpus_follow_cuda(mask: str | None, found: Sequence[str]) -> None:
    environment = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    assert visible(None, environment, lambda: 4) == dict(enumerate(found))


def test_configured_gpus_keep_torchs_numbers() -> None:
    assert visible([3, 1], {}, lambda: 4) == {1: "1", 3: "3"}
    mask = {"CUDA_VISIBLE_DEVICES": "6,4,5"}
    assert visible([5, 6, 7], mask, lambda: 3) == {0: "6", 2: "5"}


@pytest.mark.parametrize(
    ("configured", "mask", "count", "message"),
    [
        (None, None, 0, r"no GPU to train on: torch finds 0 GPUs\. Train on the CPU"),
        (None, "", 0, r"torch finds 0 GPUs, CUDA_VISIBLE_DEVICES is ''"),
        (None, "1,1", 0, r"CUDA_VISIBLE_DEVICES is '1,1'"),
        ([4, 5], None, 2, r"gpus: \[4, 5\] is not there; there is 0, 1 \(torch finds 2 GPUs\)"),
        ([0], "2,3", 2, r"there is 2, 3 \(torch finds 2 GPUs, CUDA_VISIBLE_DEVICES is '2,3'\)"),
        ([0], "-1", 0, r"there is none \(torch finds 0 GPUs"),
        # A UUID does not say which number the GPU has.
        ([0], "GPU-8f", 1, r"there is GPU-8f .*or leave `gpus` out"),
    ],
)
def test_no_gpu_left_says_what_there_is(
    configured: list[int] | None, mask: str | None, count: int, message: str
) -> None:
    environment = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    with pytest.raises(UserError, match=message):
        visible(configured, environment, lambda: count)


def test_names_of_gpus_are_safe_file_names(tmp_path: Path) -> None:
    with Pool({0: "MIG-GPU-8f/1/0"}, 1, tmp_path).acquire():
        assert [path.name for path in tmp_path.iterdir()] == ["MIG-GPU-8f_1_0.0.lock"]


def test_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = slots.folder({})
    assert first == slots.folder({}) and first.parent == tmp_path
    assert first.stat().st_mode & 0o777 == 0o700
    # Each SLURM job has its own GPUs, which may bear the same numbers.
    jobs = {slots.folder({"SLURM_JOB_ID": job}) for job in ("17", "18")}
    assert len({first, *jobs}) == 3


def hostile(path: Path, kind: str) -> None:
    """Put something in the place of the folder."""
    if kind == "file":
        path.touch()
    elif kind == "open":
        path.mkdir()
        path.chmod(0o777)
    else:
        target = path.with_name("elsewhere")
        if kind == "link":
            target.mkdir()
        path.symlink_to(target)


@pytest.mark.parametrize("kind", ["file", "open", "link", "dangling link"])
def test_a_hostile_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = slots.folder({})
    path.rmdir()
    hostile(path, kind)
    with pytest.raises(UserError, match=f"{path.name} must be a folder that only you can write to"):
        slots.folder({})


def test_the_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 123_456)  # Not who makes the folder.
    with pytest.raises(UserError, match="only you can write to"):
        slots.folder({})


def test_a_missing_temporary_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"cannot write .*gone"):
        slots.folder({})


def test_slots_need_no_torch() -> None:
    code = "import cyclery.engine.slots, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
