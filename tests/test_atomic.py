import contextlib
import stat
from pathlib import Path

import pytest

from seqkit.atomic import atomic_file, atomic_folder, write_atomically
from seqkit.errors import InputError


def test_write_atomically_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_atomic_file_keeps_the_old_version_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with contextlib.suppress(RuntimeError), atomic_file(path) as temporary:
        temporary.write_bytes(b"ha")
        assert path.read_bytes() == b"old"
        raise RuntimeError("midway")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_names_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="path must be in a folder that can be written"):
        write_atomically(tmp_path / "none" / "a", b"")


def test_write_atomically_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="path must be a file, got a folder"):
        write_atomically(tmp_path, b"")
    assert list(tmp_path.iterdir()) == []


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with contextlib.suppress(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    target.mkdir()  # an empty one may stand there
    with atomic_folder(target) as temporary:
        (temporary / "whole").write_text("x")
        assert list(target.iterdir()) == []
    assert [file.name for file in target.iterdir()] == ["whole"]
    with pytest.raises(InputError, match="folder must be new or empty"), atomic_folder(target):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
