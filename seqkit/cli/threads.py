"""The number of CPU threads."""

from __future__ import annotations

from seqkit.errors import InputError


def set_threads(count: int | None) -> None:
    """Tells torch, and with it seqkit's kernels, how many threads to use; None leaves it to torch.

    Raises:
        InputError: the count is not positive.
    """
    if count is None:
        return
    if count < 1:
        raise InputError(f"--threads: the count must be at least 1, got {count}")
    import torch

    torch.set_num_threads(count)
