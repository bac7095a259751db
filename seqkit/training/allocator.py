"""Keeps freed memory in the process while a model trains or decodes on the CPU.

A training step frees every activation, a decoding step its caches, and asks for the same sizes again. glibc gives
large blocks back to the system each time, and the system clears each page anew: a tenth of a small Transformer's
time. Told to keep them, it does not.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to serve large blocks from its heap and not to shrink it; False where there is no glibc."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    return all(mallopt(name, value) == 1 for name, value in settings)
