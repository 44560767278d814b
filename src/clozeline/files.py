"""Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from clozeline.errors import InputError


def write_whole(path: Path, content: bytes | str) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never a part.

    Raises:
        InputError: the disk is full or the place cannot be written; what was there before is untouched.
    """
    with staged(path.parent) as stage:
        (stage / path.name).write_bytes(content.encode() if isinstance(content, str) else content)


ABANDONED = 3600.0
"""Seconds after which a staging folder is one that a killed process left behind."""


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder to write files in; when the block ends well they all move into `folder`, else none does.

    A folder that was not there appears in one step; in one that was, each file is replaced whole, one after the other.

    Raises:
        InputError: the disk is full or the place cannot be written; `folder` is as it was.
    """
    stage = None
    try:
        try:
            new = not folder.exists()
            beside = folder.parent if new else folder
            beside.mkdir(parents=True, exist_ok=True)
            _sweep(beside)
            stage = Path(tempfile.mkdtemp(prefix=".writing-", dir=beside))
            yield stage
            written = [path for path in stage.rglob("*") if path.is_file()]
            for path in written:
                _flush(path)
            if new:
                stage.chmod(beside.stat().st_mode & 0o777)  # mkdtemp's are for the owner alone
                os.rename(stage, folder)
            else:
                for path in written:
                    target = folder / path.relative_to(stage)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    os.replace(path, target)
            _flush(beside)
        finally:
            if stage is not None:
                shutil.rmtree(stage, ignore_errors=True)
    except InputError:
        raise
    except Exception as error:
        if (why := _why(error)) is None:
            raise
        raise InputError(f"Cannot write to {folder}: {why}. Nothing there was changed.") from error


def _sweep(folder: Path) -> None:
    """Remove staging folders that a killed process left behind."""
    for stage in folder.glob(".writing-*"):
        with contextlib.suppress(OSError):
            if time.time() - stage.stat().st_mtime > ABANDONED:
                shutil.rmtree(stage, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _why(error: Exception) -> str | None:
    """The reason in words where the file system is to blame, else None; safetensors and torch wrap it in errors."""
    number = error.errno if isinstance(error, OSError) else None
    if found := re.search(r"os error (\d+)|code: (\d+)", str(error)):
        number = int(found[1] or found[2])
    if number == errno.ENOSPC:
        return f"the disk is full ({os.strerror(number)})"
    if number is not None:
        return os.strerror(number)
    if "inline_container" in str(error) or "file write failed" in str(error):
        return "the disk is full, or the file may not grow"
    return str(error) if isinstance(error, OSError) else None
