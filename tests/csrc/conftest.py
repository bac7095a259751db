"""The CUDA kernels as operators on CPU tensors, `torch.ops.seqkit_emulated.*`, under three schedules."""

import os

import pytest
import torch
from emulated import ROOT, build, cuda_headers

SCHEDULES = ("forward", "reverse", "random:1")


@pytest.fixture(scope="session", autouse=True)
def emulated() -> None:
    """Builds and loads the library once."""
    if cuda_headers() is None:
        pytest.skip("CUDA is not installed: its headers are needed to compile the kernels for the host")
    sanitize = os.environ.get("SEQKIT_SANITIZE") == "1"  # test_sanitizer.py
    torch.ops.load_library(str(build(ROOT / ("build/sanitized" if sanitize else "build/emulated"), sanitize=sanitize)))


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which thread of a block runs next."""
    monkeypatch.setenv("SEQKIT_SCHEDULE", request.param)
    return str(request.param)
