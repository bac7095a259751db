// What every cuda.cu is written with: one source for nvcc (sm_80 and later) and for the host executor of the tests.
//
// With -DSEQKIT_EMULATE the file is compiled by the host's compiler after tests/csrc/executor.h, which runs each CUDA
// thread as a fiber; that is how kernels are tested where there is no card. So a kernel takes shared memory from
// SEQKIT_DYNAMIC_SHARED alone (the executor poisons it), starts through SEQKIT_LAUNCH, and writes machine instructions
// nowhere but here.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#ifndef SEQKIT_EMULATE
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

#ifdef SEQKIT_EMULATE
#define SEQKIT_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(::executor::shared_memory())
#define SEQKIT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), ::executor::launch((grid), (block), (shared_bytes), &kernel, std::make_tuple(__VA_ARGS__)))
#else
#define SEQKIT_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(128) unsigned char seqkit_shared_memory[]; \
  T* name = reinterpret_cast<T*>(seqkit_shared_memory)
// A block may use more than 48 KiB of shared memory only after it has asked for it. The kernel may hold commas of
// template arguments if it stands in parentheses.
#define SEQKIT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                 \
  do {                                                                                                                \
    auto* seqkit_kernel = &kernel;                                                                                    \
    if ((shared_bytes) > 48 * 1024) {                                                                                 \
      cudaFuncSetAttribute(reinterpret_cast<const void*>(seqkit_kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, \
                           static_cast<int>(shared_bytes));                                                           \
    }                                                                                                                 \
    seqkit_kernel<<<(grid), (block), (shared_bytes), static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__);               \
  } while (0)
#endif

namespace seqkit {

// What the last launch said: null, or the error's text. Every launch is followed by it.
inline const char* launch_error() {
#ifdef SEQKIT_EMULATE
  return nullptr;  // the executor throws
#else
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
#endif
}

#define SEQKIT_DEVICE __device__ __forceinline__

template <typename E>
SEQKIT_DEVICE float to_float(E value) {
  if constexpr (std::is_same_v<E, float>) {
    return value;
  } else if constexpr (std::is_same_v<E, __half>) {
    return __half2float(value);
  } else {
    return __bfloat162float(value);
  }
}

template <typename E>
SEQKIT_DEVICE E from_float(float value) {
  if constexpr (std::is_same_v<E, float>) {
    return value;
  } else if constexpr (std::is_same_v<E, __half>) {
    return __float2half_rn(value);
  } else {
    return __float2bfloat16_rn(value);
  }
}

// Two numbers in one register, the first in the low half: how the tensor cores take them.
template <typename E>
SEQKIT_DEVICE uint32_t pack_pair(float low, float high) {
  uint32_t bits;
  if constexpr (std::is_same_v<E, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    std::memcpy(&bits, &pair, sizeof bits);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    std::memcpy(&bits, &pair, sizeof bits);
  }
  return bits;
}

// Two numbers to an address that is a multiple of their size.
template <typename E>
SEQKIT_DEVICE void store_pair(E* to, float low, float high) {
  if constexpr (std::is_same_v<E, float>) {
    *reinterpret_cast<float2*>(to) = float2{low, high};
  } else {
    *reinterpret_cast<uint32_t*>(to) = pack_pair<E>(low, high);
  }
}

// Sixteen bytes to a global address that is a multiple of it, in one instruction: of four members the compiler may make
// four.
SEQKIT_DEVICE void store_16(void* global, uint4 value) {
#ifdef SEQKIT_EMULATE
  std::memcpy(global, &value, sizeof value);
#else
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};\n" ::"l"(global), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
#endif
}

SEQKIT_DEVICE float2 load_2(const float* from) { return *reinterpret_cast<const float2*>(from); }
SEQKIT_DEVICE float4 load_4(const float* from) { return *reinterpret_cast<const float4*>(from); }

// What the second cache holds: the first one of a multiprocessor does not see what others add by atomics.
SEQKIT_DEVICE float load_past_l1(const float* from) {
#ifdef SEQKIT_EMULATE
  return *from;
#else
  return __ldcg(from);
#endif
}

// sum + a . b, in the order of the four numbers.
SEQKIT_DEVICE float dot_4(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// d += a b on a warp's tensor core: a is 16 x 16 by rows, b 16 x 8 by columns, d 16 x 8. Lane l holds of d the columns
// 2 (l % 4) and the next, in row l / 4 (d[0], d[1]) and in row l / 4 + 8 (d[2], d[3]).
template <typename E>
SEQKIT_DEVICE void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef SEQKIT_EMULATE
  executor::mma_16x8x16<E>(d, a, b);
#else
  if constexpr (std::is_same_v<E, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

// Four 8 x 8 matrices of 16-bit numbers from shared memory: lane l gives the address of row l % 8 of matrix l / 8, 16
// bytes aligned to 16, and receives in r[m] the pair 2 (l % 4) of row l / 4 of matrix m (of its transpose).
template <bool kTransposed>
SEQKIT_DEVICE void load_matrix_x4(uint32_t (&r)[4], const void* row) {
#ifdef SEQKIT_EMULATE
  executor::load_matrix_x4<kTransposed>(r, row);
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
#endif
}

// Begins to copy 16 bytes into shared memory, or zeros when not `inside` (then `global` is not read, but must be a
// valid address). Both addresses are multiples of 16.
SEQKIT_DEVICE void copy_async_16(void* shared, const void* global, bool inside) {
#ifdef SEQKIT_EMULATE
  executor::copy_async(shared, global, 16, inside ? 16 : 0);
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = inside ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(global), "r"(bytes) : "memory");
#endif
}

SEQKIT_DEVICE void copy_async_commit() {
#ifdef SEQKIT_EMULATE
  executor::copy_async_commit();
#else
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

// Waits until at most kPending of this thread's committed groups are under way; a barrier then shows them to others.
template <int kPending>
SEQKIT_DEVICE void copy_async_wait() {
#ifdef SEQKIT_EMULATE
  executor::copy_async_wait(kPending);
#else
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kPending) : "memory");
#endif
}

// a * b, rounded before it is added to anything: a multiply-add that the compiler may fuse or not would make two
// kernels round differently where they must agree.
SEQKIT_DEVICE float rounded_product(float a, float b) {
#ifdef SEQKIT_EMULATE
  return a * b;
#else
  return __fmul_rn(a, b);
#endif
}

constexpr unsigned kWholeWarp = 0xffffffffu;

// The sum and the maximum over a warp, in every lane; the order of the additions is fixed.
SEQKIT_DEVICE float warp_sum(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kWholeWarp, value, distance);
  return value;
}

// The sums of kCount numbers over a warp, a power of two up to 32: lane l gets that of number l / (32 / kCount). Half
// of what is left is handed over at each distance, so that eight sums take nine shuffles, not forty.
template <int kCount>
SEQKIT_DEVICE float warp_sums(float (&values)[kCount]) {
#pragma unroll
  for (int left = kCount, distance = 16; left > 1; left /= 2, distance /= 2) {
    const bool upper = threadIdx.x & static_cast<unsigned>(distance);
#pragma unroll
    for (int i = 0; i < left / 2; ++i) {
      const float mine = upper ? values[i + left / 2] : values[i], other = upper ? values[i] : values[i + left / 2];
      values[i] = mine + __shfl_xor_sync(kWholeWarp, other, distance);
    }
  }
#pragma unroll
  for (int distance = 16 / kCount; distance > 0; distance /= 2) {
    values[0] += __shfl_xor_sync(kWholeWarp, values[0], distance);
  }
  return values[0];
}

SEQKIT_DEVICE float warp_max(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, distance));
  }
  return value;
}

}  // namespace seqkit
