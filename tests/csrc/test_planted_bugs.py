"""Bugs planted in the attention kernel, one of each kind that a card might hide: the tests see every one."""

from pathlib import Path

import pytest
import torch
from conftest import SCHEDULES
from emulated import CSRC, ROOT, build
from test_attention import OPTIONS, SHAPES, Call, error_beyond

# What stands in csrc/attention/cuda.cu, and what the bug makes of it.
BUGS = {
    "missing_barrier": ("copy_async_wait<1>();\n    __syncthreads();", "copy_async_wait<1>();"),
    "missing_wait": ("copy_async_wait<1>();", ""),
    "tail_off_by_one": (
        "in.k_strides.row,\n                               scope.keys",
        "in.k_strides.row,\n                               scope.keys - 1",
    ),
    "wrong_lane": ("__shfl_xor_sync(kWholeWarp, all, 2)", "__shfl_xor_sync(kWholeWarp, all, 4)"),
    "uninitialised_read": (
        "load_tile<Number, kWidth, kColumns, kThreads>(v_tiles",
        "load_tile<Number, kWidth, kColumns - 1, kThreads>(v_tiles",
    ),
}


def fails(library: str, schedule: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether one of the tests' calls shows it."""
    monkeypatch.setenv("SEQKIT_SCHEDULE", schedule)
    call = Call(SHAPES["several tiles"], OPTIONS["causal lengths"], torch.float16)
    try:
        return error_beyond(call, torch.float16, getattr(torch.ops, library)) is not None
    except RuntimeError as error:
        return "executor:" in str(error)


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_seen(bug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (CSRC / "attention/cuda.cu").read_text()
    was, becomes = BUGS[bug]
    assert source.count(was) == 1
    (tmp_path / "cuda.cu").write_text(source.replace(was, becomes))
    planted = build(
        ROOT / "build/planted",
        name=f"seqkit_{bug}",
        ops=["attention"],
        sources={"attention/cuda.cu": tmp_path / "cuda.cu"},
    )
    torch.ops.load_library(str(planted))
    assert any(fails(f"seqkit_{bug}", schedule, monkeypatch) for schedule in SCHEDULES)
    assert not any(fails("seqkit_emulated", schedule, monkeypatch) for schedule in SCHEDULES)
