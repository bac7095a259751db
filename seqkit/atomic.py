"""Files and folders that appear whole or not at all.

What is written goes to a temporary name beside its target, reaches the disk (fsync), and only then takes the target's
name. A reader never sees half a file, and a kill at any moment leaves the old version in place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from seqkit.errors import InputError


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; on leaving without an exception it becomes `path`.

    A device or a pipe, such as /dev/null, is written to as it is; a link's target is replaced, not the link.

    Raises:
        InputError: `path` is a folder, or the one that it is in is missing or cannot be written.
    """
    path = Path(path).resolve()
    if path.is_dir():
        raise InputError(f"{path}: path must be a file, got a folder")
    if path.exists() and not path.is_file():
        yield path
        return
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: path must be in a folder that can be written, got {error.strerror}") from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_permissions(0o666))  # mkstemp gives 0600 whatever the umask is
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, data: bytes) -> None:
    """Makes `data` the content of the file `path`, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder to fill; on leaving without an exception it becomes `path`, which must not exist or be empty.

    Raises:
        InputError: `path` holds something already, or its parent cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"{path}: folder must be new or empty, got one that holds something")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise InputError(f"{path}: path must be in a folder that can be written, got {error.strerror}") from error
    try:
        yield temporary
        temporary.chmod(_permissions(0o777))
        for file in sorted(temporary.rglob("*")):
            _sync(file)
        _sync(temporary)
        temporary.replace(path)  # POSIX: replaces an empty folder, refuses a full one
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _permissions(mode: int) -> int:
    """`mode` less the process's umask, which can be read only by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return mode & ~umask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
