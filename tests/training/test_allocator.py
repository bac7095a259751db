import ctypes
import platform
import sys

import pytest

from seqkit.training.allocator import keep_freed_memory

# The fields of glibc's `struct mallinfo2` (malloc.h), all size_t.
FIELDS = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_large_blocks_come_from_the_heap() -> None:
    assert keep_freed_memory()
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("glibc before 2.33 does not tell")
    libc.mallinfo2.restype = Mallinfo2
    mapped = libc.mallinfo2().hblks
    block = libc.malloc(96 << 20)
    try:
        assert libc.mallinfo2().hblks == mapped  # not a mapping of its own, which would go back to the system
    finally:
        libc.free(block)


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(name: object) -> None:
        raise AssertionError("no library must be opened")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert keep_freed_memory() is False


@pytest.mark.parametrize(("answer", "kept"), [(1, True), (0, False), (None, False)])
def test_the_answer_of_the_library_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, answer: int | None, kept: bool
) -> None:
    """mallopt gives 1 on success; musl has none."""
    library = object() if answer is None else type("Library", (), {"mallopt": lambda self, name, value: answer})()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert keep_freed_memory() is kept
