"""The CUDA kernels under AddressSanitizer: no access outside the tensors and the shared memory of a block.

The run-time library must be in the process before Python is, so the tests of the kernels run once more in another
process, under the random schedule.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulated import CSRC, ROOT, cuda_headers, cuda_ops

FOLDER = Path(__file__).parent

# Its last thread reads one number too far.
BEYOND = r"""
#include "common/cuda.h"

__global__ void shift(const float* in, float* out) { out[threadIdx.x] = in[threadIdx.x + 1]; }

extern "C" __attribute__((visibility("default"))) void run(int count) {
  float* const in = new float[count]();
  float* const out = new float[count]();
  SEQKIT_LAUNCH(shift, dim3(1), dim3(count), 0, nullptr, in, out);
  delete[] in;
  delete[] out;
}
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with AddressSanitizer in the process."""
    named = ("libasan.so", "libstdc++.so")
    libraries = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in named
    ]
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip("this compiler has no AddressSanitizer")
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "SEQKIT_SANITIZE": "1",
        "SEQKIT_SHAPE_CHECKS": "0",
    }
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment)


def test_kernels_stay_inside_their_memory() -> None:
    files = [str(FOLDER / f"test_{op}.py") for op in cuda_ops()]
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "not forward and not reverse", *files)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


def test_a_read_beyond_its_memory_is_seen(tmp_path: Path) -> None:
    source, library = tmp_path / "beyond.cu", tmp_path / "beyond.so"
    source.write_text(BEYOND)
    flags = f"-O1 -std=c++20 -fPIC -shared -fsanitize=address -DSEQKIT_EMULATE -w -I{CSRC} -isystem {cuda_headers()}"
    executor = str(FOLDER / "executor.h")
    command = ["g++", "-x", "c++", *flags.split(), "-include", executor, str(source), "-o", str(library), "-lpthread"]
    subprocess.run(command, check=True)
    done = run("-c", f"import ctypes; ctypes.CDLL({str(library)!r}).run(64)")
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
