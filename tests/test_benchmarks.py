"""`benchmarks/gpu.py`, as far as it can be known without a card: it finds the ops right, and a wrong one wrong."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from seqkit.ops import library

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/gpu.py"
needs_native = pytest.mark.skipif(not library.is_built("attention"), reason="the native library is not built")


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_gpu", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@needs_native
def test_gpu_benchmark_finds_the_ops_right() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--device", "cpu", "--tiny"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@needs_native
def test_gpu_benchmark_finds_a_wrong_op(gpu: ModuleType) -> None:
    calls = 0

    def call(x: torch.Tensor) -> list[torch.Tensor]:
        nonlocal calls
        calls += 1
        wrong = library.backend("attention") == "native"
        return [x * 2 + (1e-3 if wrong else 0.0), x * calls if wrong and unstable else x]

    case = gpu.Case("planted", [torch.ones(3, dtype=torch.float64)], call)
    unstable = False
    assert "result 0 has the error 1.0e-03" in gpu.check(case, torch.float32, "cpu", repeats=2)
    unstable = True
    assert gpu.check(case, torch.float32, "cpu", repeats=2) == "another result when it is repeated"


def test_gpu_benchmark_without_a_card_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "gpu.py: torch must see a CUDA device, got none; --device cpu tries the script out\n"
