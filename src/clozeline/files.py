"""Files that appear whole or not at all: written beside their place, flushed to the disk, then renamed; and locked ones."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows: two processes that share a folder may do the same work there twice
    fcntl = None  # type: ignore[assignment]

from clozeline.errors import InputError


def write_whole(path: Path, content: bytes | str) -> None:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never a part.

    Raises:
        InputError: the disk is full or the place cannot be written; what was there before is untouched.
    """
    with staged(path.parent) as stage:
        (stage / path.name).write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder to write files in; when the block ends well they all move into `folder`, else none does.

    Raises:
        InputError: the disk is full or the place cannot be written; `folder` is as it was.
    """
    stage = None
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stage = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder))
            yield stage
            written = [path for path in stage.rglob("*") if path.is_file()]
            for path in written:
                _flush(path)
            for path in written:
                target = folder / path.relative_to(stage)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
            _flush(folder)
        finally:
            if stage is not None:
                shutil.rmtree(stage, ignore_errors=True)
    except InputError:
        raise
    except Exception as error:
        if (why := _why(error)) is None:
            raise
        raise InputError(f"Cannot write to {folder}: {why}. Nothing there was changed.") from error


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[BinaryIO | None]:
    """A file that no other process locks until the block ends, or this process is killed; it is made where it is not there.

    wait: while another one has it; else None is given then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
        else:
            yield file


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
