"""Several processes of torchrun on this machine, and how a test ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

import clozeline as cl


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def environment() -> dict[str, str]:
    root = Path(cl.__file__).parents[1]
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }


def kill(out: Path) -> None:
    """Kill -9 whatever has this folder on its command line: torchrun puts its children into sessions of their own."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(out).encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
