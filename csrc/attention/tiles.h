// Tiles of rows in a CUDA block's shared memory, and the two matrix products that attention is made of.
//
// A warp multiplies sixteen rows of its own with a tile that all warps share: on tensor cores for 16-bit numbers, by
// multiply-adds in float32 for floats. Both leave the result in the layout of mma_16x8x16 (common/cuda.h): of the
// columns 8 n to 8 n + 7, lane l holds in d[n] the columns 2 (l % 4) and the next, in row l / 4 (d[n][0], d[n][1]) and
// in row l / 4 + 8 (d[n][2], d[n][3]).
//
// A tile's rows are kWidth numbers long, a multiple of 128 bytes. Their 16-byte chunks are stored in an order that
// changes with the row (chunk ^ row % 8), so that eight rows read at one chunk, as ldmatrix does, meet eight banks.
#pragma once

#include "common/cuda.h"
#include "common/device.h"

namespace seqkit {
namespace {

template <typename Number>
constexpr int kPerChunk = 16 / static_cast<int>(sizeof(Number));

template <typename Number, int kWidth>
SEQKIT_DEVICE int tile_index(int row, int chunk) {
  static_assert(kWidth % (8 * kPerChunk<Number>) == 0);
  return row * kWidth + (chunk ^ (row & 7)) * kPerChunk<Number>;
}

// Rows in global memory.
template <typename Number>
struct RowsInMemory {
  const Number* first;
  int64_t stride;
  int count;     // rows that may be read
  int width;     // of a row
  bool chunked;  // every row starts at a multiple of 16 bytes and is as long
};

// Begins to load rows first .. first + kRows - 1; what lies outside becomes zero. Complete after copy_async_wait and a
// barrier.
template <typename Number, int kWidth, int kRows, int kThreads>
SEQKIT_DEVICE void load_tile(Number* tile, const RowsInMemory<Number>& rows, int first) {
  constexpr int kChunks = kWidth / kPerChunk<Number>;
  if (rows.chunked) {
#pragma unroll 4
    for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
      const int row = i / kChunks, chunk = i % kChunks, column = chunk * kPerChunk<Number>;
      const bool inside = first + row < rows.count && column < rows.width;
      copy_async_16(tile + tile_index<Number, kWidth>(row, chunk),
                    rows.first + (inside ? (first + row) * rows.stride + column : 0), inside);
    }
  } else {
#pragma unroll 1
    for (int i = threadIdx.x; i < kRows * kWidth; i += kThreads) {
      const int row = i / kWidth, column = i % kWidth;
      const bool inside = first + row < rows.count && column < rows.width;
      tile[tile_index<Number, kWidth>(row, column / kPerChunk<Number>) + column % kPerChunk<Number>] =
          inside ? rows.first[(first + row) * rows.stride + column] : from_float<Number>(0.0f);
    }
  }
}

// d += a bᵀ: a is rows `row` to `row + 15` of one tile, b the first 8 kBlocks rows of another.
template <typename Number, int kWidth, int kBlocks>
SEQKIT_DEVICE void multiply_transposed(float (&d)[kBlocks][4], const Number* a, int row, const Number* b) {
  const int lane = threadIdx.x % 32;
  if constexpr (sizeof(Number) == 2) {
#pragma unroll
    for (int k = 0; k < kWidth / 16; ++k) {
      uint32_t left[4];
      load_matrix_x4<false>(left, a + tile_index<Number, kWidth>(row + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int n = 0; n < kBlocks / 2; ++n) {
        uint32_t right[4];
        load_matrix_x4<false>(right,
                              b + tile_index<Number, kWidth>(16 * n + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
        mma_16x8x16<Number>(d[2 * n], left, {right[0], right[1]});
        mma_16x8x16<Number>(d[2 * n + 1], left, {right[2], right[3]});
      }
    }
  } else {
#pragma unroll 2
    for (int chunk = 0; chunk < kWidth / 4; ++chunk) {
      const float4 upper = load_4(a + tile_index<float, kWidth>(row + lane / 4, chunk));
      const float4 lower = load_4(a + tile_index<float, kWidth>(row + lane / 4 + 8, chunk));
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float4 right = load_4(b + tile_index<float, kWidth>(8 * n + lane % 4 * 2 + e, chunk));
          d[n][e] = dot_4(upper, right, d[n][e]);
          d[n][e + 2] = dot_4(lower, right, d[n][e + 2]);
        }
      }
    }
  }
}

// d += p b: p holds sixteen rows of 8 kInner numbers in the layout above, b is the first 8 kInner rows of a tile, from
// its chunk `first_chunk` on.
template <typename Number, int kWidth, int kInner, int kBlocks>
SEQKIT_DEVICE void multiply(float (&d)[kBlocks][4], const float (&p)[kInner][4], const Number* b, int first_chunk) {
  const int lane = threadIdx.x % 32;
  if constexpr (sizeof(Number) == 2) {
#pragma unroll
    for (int k = 0; k < kInner / 2; ++k) {
      // What a warp holds of a product is what it must hold of the left operand of the next.
      const uint32_t left[4] = {
          pack_pair<Number>(p[2 * k][0], p[2 * k][1]), pack_pair<Number>(p[2 * k][2], p[2 * k][3]),
          pack_pair<Number>(p[2 * k + 1][0], p[2 * k + 1][1]), pack_pair<Number>(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < kBlocks / 2; ++n) {
        uint32_t right[4];
        load_matrix_x4<true>(right,
                             b + tile_index<Number, kWidth>(16 * k + lane % 16, first_chunk + 2 * n + lane / 16));
        mma_16x8x16<Number>(d[2 * n], left, {right[0], right[1]});
        mma_16x8x16<Number>(d[2 * n + 1], left, {right[2], right[3]});
      }
    }
  } else {
#pragma unroll
    for (int k = 0; k < 8 * kInner; ++k) {
      const int holder = lane / 4 * 4 + k % 8 / 2;
      const float upper = __shfl_sync(kWholeWarp, p[k / 8][k % 2], holder);
      const float lower = __shfl_sync(kWholeWarp, p[k / 8][k % 2 + 2], holder);
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        const float* right = b + tile_index<float, kWidth>(k, first_chunk + 2 * n + lane % 4 / 2) + lane % 2 * 2;
        const float2 pair = load_2(right);
        d[n][0] = fmaf(upper, pair.x, d[n][0]);
        d[n][1] = fmaf(upper, pair.y, d[n][1]);
        d[n][2] = fmaf(lower, pair.x, d[n][2]);
        d[n][3] = fmaf(lower, pair.y, d[n][3]);
      }
    }
  }
}

// Writes the warp's sixteen rows, or as many as lie below `count`, times one factor for each of the lane's two rows.
template <typename Number, int kBlocks>
SEQKIT_DEVICE void write_rows(const float (&d)[kBlocks][4], Number* to, int64_t stride, int count, int width,
                              float upper_factor, float lower_factor) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    const float factor = half ? lower_factor : upper_factor;
    if (row >= count) continue;
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      const int column = 8 * n + lane % 4 * 2;
      const float first = d[n][2 * half] * factor, second = d[n][2 * half + 1] * factor;
      Number* at = to + row * stride + column;
      if (width % 2 == 0) {
        if (column < width) store_pair(at, first, second);
      } else {
        if (column < width) at[0] = from_float<Number>(first);
        if (column + 1 < width) at[1] = from_float<Number>(second);
      }
    }
  }
}

}  // namespace
}  // namespace seqkit
