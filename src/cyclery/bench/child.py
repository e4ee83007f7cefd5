"""Child process that trains one contender; see ``children``."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    """Train an epoch, and another one for every line that is read."""
    given = json.loads(sys.argv[1])
    # What a job imports, whether this contender needs it or not.
    import torch

    from cyclery.bench.children import read
    from cyclery.bench.contenders import contenders
    from cyclery.engine import train  # noqa: F401

    torch.set_num_threads(1)
    case, _ = read(given)
    with contenders(case, torch.device(given["device"])) as each:
        [(_, train_epoch)] = each
        train_epoch()
        while True:
            print(json.dumps({"at": time.monotonic(), "memory": peak()}), flush=True)
            if not sys.stdin.readline():
                return
            train_epoch()


def peak() -> int:
    """Return the most memory that this process has taken, in bytes."""
    try:
        # What getrusage says on Linux is inherited from the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
