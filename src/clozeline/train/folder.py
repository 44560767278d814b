"""The folder of a run: whose it is, the state in it that a stopped run goes on from, and Ctrl-C as a wish to stop."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import signal
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from clozeline.errors import InputError
from clozeline.files import write_whole
from clozeline.train.distributed import Group

log = logging.getLogger("clozeline")


def open_run(
    out: Path, whole: dict[str, Any], resume: bool, overwrite: bool, group: Group, *, beside: Collection[str] = ()
) -> dict[str, Any] | None:
    """Make `out` ready for this run; the saved state to go on from, or None to begin. Every process reads the state.

    beside: what may be there though no run has been.

    Raises:
        InputError: as `_prepare`; a damaged state; `out` is not the same folder in all processes.
    """
    if group.first:
        _prepare(out, whole, resume, overwrite, beside)
    group.told(None)
    state = out / "state.pt"
    found, damaged = None, None
    try:
        found = torch.load(state, map_location="cpu", weights_only=True) if resume and state.exists() else None
    except Exception as error:  # torch raises pickle, zip and runtime errors for a damaged file
        damaged = error
    seen: Any = None if found is None else (found["training"]["number"], found["losses"], found.get("epochs"))
    group.agree(f"saved run in {out}, a folder that they must share", ((out / "run.json").exists(), str(damaged), seen))
    if damaged is not None:
        raise InputError(f"{state} is damaged, so the run cannot go on; start anew (--overwrite).") from damaged
    return found


def _prepare(out: Path, identity: dict[str, Any], resume: bool, overwrite: bool, beside: Collection[str] = ()) -> None:
    """Make `out` ready for this run, or refuse it."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a folder for the run.")
    if resume and overwrite:
        raise InputError("resume goes on with a run and overwrite begins it anew; give one of them.")
    identity = json.loads(json.dumps(identity))
    run, state = out / "run.json", out / "state.pt"
    held = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    if held - set(beside) and not run.exists():
        raise InputError(f"{out} is not empty and holds no run; choose another folder.")
    if resume and not run.exists():
        log.warning("%s holds no run to go on with, so this one begins at step 0.", out)
    if overwrite:
        for name in ("run.json", "state.pt", "metrics.jsonl", "curve.png"):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "model", ignore_errors=True)
    elif run.exists():
        try:
            before = json.loads(run.read_text(encoding="utf-8"))
            finished = before.pop("finished")
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{run} is not what a run wrote; choose another folder.") from error
        if finished:
            raise InputError(f"{out} holds a finished run; choose another folder, or overwrite it (--overwrite).")
        if state.exists() and not resume:
            raise InputError(f"{out} holds an unfinished run; go on with it (--resume), or overwrite it (--overwrite).")
        if resume and before != identity:
            changed = ", ".join(key for key in identity if before.get(key) != identity[key])
            raise InputError(
                f"{out} cannot be resumed: {changed} changed since. Load and give what the run began with, or start anew."
            )
    write_whole(run, json.dumps({**identity, "finished": False}, indent=2) + "\n")


def finished(out: Path) -> bool:
    """Whether a folder holds a run that came to its end."""
    try:
        return bool(json.loads((out / "run.json").read_text(encoding="utf-8"))["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def machinery(device: torch.device, group: Group) -> dict[str, str]:
    """What may differ between two machines or two days, and changes the last digits of a step."""
    threads = torch.get_num_threads() if device.type == "cpu" else "-"
    found = {"torch": torch.__version__, "device": device.type, "threads": threads, "processes": group.size}
    return {name: str(value) for name, value in found.items()}


@contextlib.contextmanager
def interruptible() -> Iterator[list[bool]]:
    """A list that stops being empty at the first Ctrl-C; the second one interrupts as usual."""
    asked: list[bool] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may handle signals
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(True)
        signal.signal(signal.SIGINT, before)
        log.warning("Stopping after this step; press Ctrl-C again to stop at once.")

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
