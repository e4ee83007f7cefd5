"""A SLURM on this machine: real daemons, with a configuration and folders of their own.

Two partitions, `cpu` and `gpu`, of one node. The GPUs are devices that every machine has, so that
SLURM counts and hands them out; nothing can be trained on them.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Daemons lie where only root looks.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
# Before a daemon's name: it ends with the process that started it, however that one ends, an
# interrupted worker of pytest-xdist included. Otherwise it would run on for ever.
WITH_PARENT = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
_TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")

_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that is requeued may start again when its credential has expired.
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
# Tests ask for jobs that ended long ago, where the machine is busy.
MinJobAge=3600
JobRequeue=1
KillWait=10
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# The node has what is said here, whatever the machine has.
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=64000 Gres=gpu:2
PartitionName=cpu Nodes={host} Default=YES State=UP
PartitionName=gpu Nodes={host} State=UP
"""


def missing() -> str | None:
    """Return why no SLURM can be started here, or None."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool, path=_PATH) is None]
    return f"{', '.join(lacking)} not installed (Debian: slurm-wlm, munge)" if lacking else None


def wait_for(what: Callable[[], object], seconds: float = 60) -> object:
    """Return the first true value of `what`, asked for again and again."""
    until = time.monotonic() + seconds
    while not (found := what()):
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:g} s in vain")
        time.sleep(0.1)
    return found


class Slurm:
    """A running SLURM; its commands work in `environment`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "spool", "bin"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        controller, node = _free_ports(2)
        self.conf = folder / "slurm.conf"
        self.conf.write_text(
            _CONF.format(folder=folder, host=host, user=getpass.getuser(), controller=controller,
                         node=node)
        )  # fmt: skip
        devices = ("/dev/null", "/dev/zero")
        (folder / "gres.conf").write_text("".join(f"Name=gpu File={d}\n" for d in devices))
        # Snakemake's plugin takes SLURM_CONF out of the environment of srun, which then looks for
        # the machine's own configuration.
        srun = folder / "bin" / "srun"
        real = shutil.which("srun", path=_PATH)
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {real} "$@"\n')
        srun.chmod(0o755)
        path = os.pathsep.join([str(folder / "bin"), _PATH])
        self.environment = {"SLURM_CONF": str(self.conf), "PATH": path}

    def start(self) -> None:
        """Start all daemons and wait until jobs can run."""
        options = ["--key-file=munge.key", "--socket=munge.sock", "--pid-file=munged.pid",
                   "--log-file=munged.log", "--seed-file=munged.seed"]  # fmt: skip
        self._daemon("munged", "--foreground", "--force", "--num-threads=2", *(
            option.replace("=", f"={self.folder}/", 1) for option in options
        ))  # fmt: skip
        try:
            wait_for((self.folder / "munge.sock").exists, 10)
            self._daemon("slurmctld", "-D", "-f", str(self.conf))
            self.start_node()
            wait_for(lambda: "idle" in self.run("sinfo", "-h", "-o", "%T", check=False), 40)
        except (TimeoutError, RuntimeError) as error:
            logs = "\n".join(p.read_text()[-2000:] for p in self.folder.glob("*.log"))
            raise RuntimeError(f"SLURM did not start: {error}\n{logs}") from None

    def start_node(self) -> None:
        """Start the node's daemon."""
        self._daemon("slurmd", "-D", "-f", str(self.conf))

    def _daemon(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [*WITH_PARENT, str(shutil.which(name, path=_PATH)), *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env={**os.environ, **self.environment},
            )  # fmt: skip

    def stop(self) -> None:
        """Cancel all jobs and end the daemons."""
        self.run("scancel", "--user", getpass.getuser(), check=False)
        with suppress(TimeoutError):
            wait_for(lambda: not self.run("squeue", "-h", check=False).strip(), 20)
        for name in ("slurmd", "slurmctld", "munged"):
            if daemon := self._daemons.get(name):
                daemon.terminate()
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def kill_node(self, jobs_too: bool) -> None:
        """Kill the node's daemon, and, as if the machine had gone, all that it started."""
        doomed = [self._daemons["slurmd"].pid]
        if jobs_too:
            doomed += self._processes_of_jobs()
        for pid in doomed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._daemons["slurmd"].wait()

    def give_up_node(self) -> None:
        """Let SLURM know at once that the node is gone, which it would find out by and by."""
        host = self.run("sinfo", "-h", "-N", "-o", "%N").split()[0]
        self.run("scontrol", "update", f"node={host}", "state=down", "reason=gone")

    def _processes_of_jobs(self) -> list[int]:
        """Return the processes of jobs, and those of SLURM that watch over them."""
        marks = (f"SLURM_CONF={self.conf}".encode(), str(self.folder / "spool").encode())
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if not entry.name.isdigit() or int(entry.name) == os.getpid():
                    continue
                words = (entry / "environ").read_bytes().split(b"\0")
                title = (entry / "cmdline").read_bytes()
                inside = marks[0] in words and any(w.startswith(b"SLURM_JOB_ID=") for w in words)
                if inside or (b"slurmstepd" in title and marks[0] in words):
                    found.append(int(entry.name))
        return found

    def run(self, *command: str, check: bool = True) -> str:
        """Return what a command of SLURM says."""
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def jobs(self, states: str = "pending,running,completing") -> list[str]:
        """Return the numbers of jobs in these states."""
        return self.run("squeue", "-h", "--states", states, "-o", "%i").split()

    def job(self, number: str) -> dict[str, str]:
        """Return what SLURM knows of a job."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def running() -> Iterator[Slurm]:
    """Yield a running SLURM, and end it and its jobs."""
    # The path of a socket may have 108 characters, and test folders can be deep.
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        slurm = Slurm(Path(folder))
        try:
            slurm.start()
            yield slurm
        finally:
            slurm.stop()
