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
    refuse(out, resume=resume, overwrite=overwrite, beside=beside)
    identity = json.loads(json.dumps(identity))
    run = out / "run.json"
    if overwrite:
        for name in ("run.json", "state.pt", "metrics.jsonl", "curve.png"):
            (out / name).unlink(missing_ok=True)
        shutil.rmtree(out / "model", ignore_errors=True)
    elif resume and run.exists():
        before = _read(run)
        if before != {**identity, "finished": False}:
            changed = ", ".join(_changes(before, identity))
            raise InputError(
                f"{out} cannot be resumed: {changed} changed since. Load and give what the run began with, or start anew."
            )
    elif resume:
        log.warning("%s holds no run to go on with, so this one begins at step 0.", out)
    write_whole(run, json.dumps({**identity, "finished": False}, indent=2) + "\n")


def refuse(out: Path, *, resume: bool, overwrite: bool, beside: Collection[str] = ()) -> None:
    """InputError where a run must not be in this folder, whatever it is of; writes nothing. See `open_run`."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a folder for the run.")
    if resume and overwrite:
        raise InputError("resume goes on with a run and overwrite begins it anew; give one of them.")
    run = out / "run.json"
    held = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    if not run.exists():
        if held - set(beside):
            raise InputError(f"{out} is not empty and holds no run; choose another folder.")
    elif not overwrite:
        if _read(run)["finished"]:
            raise InputError(f"{out} holds a finished run; choose another folder, or overwrite it (--overwrite).")
        if (out / "state.pt").exists() and not resume:
            raise InputError(f"{out} holds an unfinished run; go on with it (--resume), or overwrite it (--overwrite).")


def _read(run: Path) -> dict[str, Any]:
    try:
        found = dict(json.loads(run.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{run} is not what a run wrote; choose another folder.") from error
    if "finished" not in found:
        raise InputError(f"{run} is not what a run wrote; choose another folder.")
    return found


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was, in words."""
    said = []
    for key, value in now.items():
        old = before.get(key)
        if old == value:
            continue
        if isinstance(old, dict) and isinstance(value, dict):
            inner = [each for each in value if old.get(each) != value[each]]
            shown = [f"{each} {old.get(each)}, now {value[each]}" for each in inner if len(str(value[each])) < 40]
            said.append(f"{key} ({'; '.join(shown)})" if shown else key)
        else:
            said.append(key)
    return said


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
