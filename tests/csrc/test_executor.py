"""The host executor itself: right kernels give right numbers, and each kind of fault is seen."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from emulated import CSRC, cuda_headers

KERNELS = r"""
#include "common/cuda.h"

using namespace seqkit;

// Each thread writes its number and reads its neighbour's.
template <bool kBarrier>
__global__ void neighbours(float* out) {
  SEQKIT_DYNAMIC_SHARED(float, shared);
  const int me = threadIdx.x, all = blockDim.x;
  shared[me] = float(me);
  if constexpr (kBarrier) __syncthreads();
  out[me] = shared[(me + 1) % all] + shared[(me + all - 1) % all];
}

template <bool kWait>
__global__ void copies(const float* in, float* out) {
  SEQKIT_DYNAMIC_SHARED(float, shared);
  const int me = threadIdx.x;
  copy_async_16(shared + 4 * me, in + 4 * me, me != 1);
  copy_async_commit();
  if constexpr (kWait) copy_async_wait<0>();
  __syncthreads();
  for (int i = 0; i < 4; ++i) out[4 * me + i] = shared[4 * me + i];
}

__global__ void divergent(float* out) {
  if (threadIdx.x < 16) __syncthreads();
  out[threadIdx.x] = warp_sum(1.0f);
}

__global__ void foreign_lane(float* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 16 + threadIdx.x);
}

__global__ void sums(float* out) { out[threadIdx.x] = warp_sum(float(threadIdx.x)) + warp_max(float(threadIdx.x)); }

// out [16, 8] = a [16, 16] b [16, 8], all in shared memory first; b is read through a transposed ldmatrix.
__global__ void product(const __half* a, const __half* b, float* out) {
  SEQKIT_DYNAMIC_SHARED(__half, shared);
  const int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) shared[i] = a[i];
  for (int i = lane; i < 256; i += 32) shared[256 + i] = i % 16 < 8 ? b[i / 16 * 8 + i % 16] : __half(0.0f);
  __syncthreads();
  uint32_t left[4], right[4];
  load_matrix_x4<false>(left, shared + lane % 16 * 16 + lane / 16 * 8);
  load_matrix_x4<true>(right, shared + 256 + lane % 16 * 16 + lane / 16 * 8);
  float d[4] = {};
  const uint32_t columns[2] = {right[0], right[1]};
  mma_16x8x16<__half>(d, left, columns);
  for (int i = 0; i < 4; ++i) out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

thread_local char message[512];

template <typename Launch>
const char* guarded(const Launch& launch) {
  try {
    launch();
    return "";
  } catch (const std::exception& error) {
    std::strncpy(message, error.what(), sizeof message - 1);
    return message;
  }
}

#define EXPORT extern "C" __attribute__((visibility("default"))) const char*
EXPORT run_neighbours(float* out, bool barrier) {
  return guarded([&] {
    if (barrier) {
      SEQKIT_LAUNCH((neighbours<true>), dim3(2), dim3(64), 256, nullptr, out);
    } else {
      SEQKIT_LAUNCH((neighbours<false>), dim3(2), dim3(64), 256, nullptr, out);
    }
  });
}
EXPORT run_copies(const float* in, float* out, bool wait) {
  return guarded([&] {
    if (wait) {
      SEQKIT_LAUNCH((copies<true>), dim3(1), dim3(32), 512, nullptr, in, out);
    } else {
      SEQKIT_LAUNCH((copies<false>), dim3(1), dim3(32), 512, nullptr, in, out);
    }
  });
}
EXPORT run_divergent(float* out) {
  return guarded([&] { SEQKIT_LAUNCH(divergent, dim3(1), dim3(32), 0, nullptr, out); });
}
EXPORT run_foreign_lane(float* out) {
  return guarded([&] { SEQKIT_LAUNCH(foreign_lane, dim3(1), dim3(32), 0, nullptr, out); });
}
EXPORT run_sums(float* out) { return guarded([&] { SEQKIT_LAUNCH(sums, dim3(1), dim3(32), 0, nullptr, out); }); }
EXPORT run_product(const __half* a, const __half* b, float* out) {
  return guarded([&] { SEQKIT_LAUNCH(product, dim3(1), dim3(32), 1024, nullptr, a, b, out); });
}
EXPORT run_too_large(float* out) {
  return guarded([&] { SEQKIT_LAUNCH(sums, dim3(1), dim3(2048), 0, nullptr, out); });
}
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("executor")
    source, library = folder / "kernels.cu", folder / "kernels.so"
    source.write_text(KERNELS)
    executor = Path(__file__).with_name("executor.h")
    flags = f"-O1 -std=c++20 -fPIC -shared -DSEQKIT_EMULATE=executor_test -w -I{CSRC} -isystem {cuda_headers()}"
    subprocess.run(
        ["g++", "-x", "c++", *flags.split(), "-include", str(executor), str(source), "-o", str(library), "-lpthread"],
        check=True,
    )
    loaded = ctypes.CDLL(str(library))
    for name in ("neighbours", "copies", "divergent", "foreign_lane", "sums", "product", "too_large"):
        getattr(loaded, f"run_{name}").restype = ctypes.c_char_p
    return loaded


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def neighbours(kernels: ctypes.CDLL, *, barrier: bool) -> bool:
    out = np.zeros(64, np.float32)
    assert kernels.run_neighbours(pointer(out), ctypes.c_bool(barrier)) == b""
    me = np.arange(64)
    return bool(np.array_equal(out, (me + 1) % 64 + (me - 1) % 64))


def test_executor_runs_a_block_with_barriers(kernels: ctypes.CDLL, schedule: str) -> None:
    assert neighbours(kernels, barrier=True)


def test_executor_shows_a_missing_barrier(kernels: ctypes.CDLL, schedule: str) -> None:
    assert not neighbours(kernels, barrier=False)  # what is not yet written is NaN


def copies(kernels: ctypes.CDLL, *, wait: bool) -> bool:
    given, out = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    assert kernels.run_copies(pointer(given), pointer(out), ctypes.c_bool(wait)) == b""
    given[4:8] = 0  # thread 1 says that it stands outside
    return bool(np.array_equal(out, given))


def test_executor_copies_in_the_background(kernels: ctypes.CDLL, schedule: str) -> None:
    assert copies(kernels, wait=True)


def test_executor_shows_a_missing_wait(kernels: ctypes.CDLL, schedule: str) -> None:
    assert copies(kernels, wait=False) == (schedule == "reverse")  # there the copies land at once


def test_executor_multiplies_as_a_tensor_core(kernels: ctypes.CDLL, schedule: str) -> None:
    random = np.random.default_rng(0)
    a, b = (random.integers(-8, 8, shape).astype(np.float16) for shape in ((16, 16), (16, 8)))
    out = np.zeros((16, 8), np.float32)
    assert kernels.run_product(pointer(a), pointer(b), pointer(out)) == b""
    assert np.array_equal(out, a.astype(np.float32) @ b.astype(np.float32))


def test_executor_reduces_over_a_warp(kernels: ctypes.CDLL, schedule: str) -> None:
    out = np.zeros(32, np.float32)
    assert kernels.run_sums(pointer(out)) == b""
    assert np.array_equal(out, np.full(32, 31 * 32 / 2 + 31))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divergent", b"deadlock: [warp 0 lane 0 at barrier 0]"),
        ("foreign_lane", b"a shuffle reads a lane outside its mask in block (0, 0, 0)"),
        ("too_large", b"a launch that a card would refuse"),
    ],
)
def test_executor_says_what_is_wrong(kernels: ctypes.CDLL, name: str, message: bytes) -> None:
    out = np.zeros(2048, np.float32)
    assert message in getattr(kernels, f"run_{name}")(pointer(out))
