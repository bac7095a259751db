// The packing and the tiles of matmul.h; compiled for machines with AMX alone.
#ifdef __AMX_BF16__
#include <immintrin.h>

#include <cstdint>

#include "matmul/matmul.h"

namespace {

using seqkit::kDepthBlock;
using seqkit::kRowBlock;
using seqkit::kStrip;
using seqkit::kStripBits;
using seqkit::kStripStep;
using seqkit::Lines;
using seqkit::SplitProduct;

constexpr int kTile = 16 * 32;  // bfloat16 of a tile
constexpr int kParts = 3;       // hi, mid, lo of a half stand one after the other, then those of the other half
constexpr int64_t kHalf = kParts * kTile;

inline int64_t steps_of(int64_t depth) { return (depth + kStripStep - 1) / kStripStep; }

// ---- packing ----

// Three bfloat16 that sum to a float, each in the upper half of its lane.
struct Split {
  __m512i part[kParts];
};

inline __m512i rounded(__m512 x) {
  const __m512i bits = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
  return _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000)));
}

inline Split split(__m512 x) {
  const __m512i hi = rounded(x);
  const __m512 rest = _mm512_sub_ps(x, _mm512_castsi512_ps(hi));
  const __m512i mid = rounded(rest);
  return {{hi, mid, _mm512_castps_si512(_mm512_sub_ps(rest, _mm512_castsi512_ps(mid)))}};
}

// The larger magnitude of each lane, as bits: NaN is above infinity.
typedef int32_t Lanes __attribute__((vector_size(64)));
inline __m512i larger(__m512i largest, __m512 x) {
  const Lanes a = (Lanes)largest, b = (Lanes)_mm512_castps_si512(x) & 0x7fffffff;
  return (__m512i)(a > b ? a : b);
}

constexpr int kTooLarge = 0x5b800000;  // 2^56

// The upper halves of two vectors: those of the first, then those of the second.
inline __m512i one_after_the_other(__m512i first, __m512i second) {
  alignas(64) static constexpr uint16_t kOdd[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                    33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
  return _mm512_permutex2var_epi16(first, _mm512_load_si512(kOdd), second);
}

// The upper halves of two vectors, lane by lane.
inline __m512i side_by_side(__m512i even, __m512i odd) {
  return _mm512_or_si512(_mm512_srli_epi32(even, 16),
                         _mm512_and_si512(odd, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

inline __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

inline void keep(uint16_t* to, __m512i bits) { _mm512_store_si512(to, bits); }

// Exchanges the two axes of a tile of 16 x 16 pairs: [lines][pairs] <-> [pairs][lines][2].
void transpose(uint16_t* tile) {
  __m512i x[16], y[16];
  for (int i = 0; i < 16; ++i) x[i] = _mm512_load_si512(tile + 32 * i);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
    y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
    y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
    y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    keep(tile + 32 * i, _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88));
    keep(tile + 32 * (i + 8), _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd));
    keep(tile + 32 * (i + 4), _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88));
    keep(tile + 32 * (i + 12), _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd));
  }
}

// Packs 16 lines from `first` on, 32 steps from `start` on, and gives the largest magnitudes.
template <bool kStepsAdjoin>
__m512i pack_half(const Lines& lines, int64_t first, int64_t start, uint16_t* to, __m512i largest) {
  const int64_t lines_left = lines.count - first, steps_left = lines.depth - start;
  const float* from = lines.data + first * lines.line + start * lines.step;
  for (int i = 0; i < 16; ++i) {
    __m512 x, y;
    if constexpr (kStepsAdjoin) {  // vector i is line i
      const int64_t left = i < lines_left ? steps_left : 0;
      x = _mm512_maskz_loadu_ps(first_lanes(left), from + i * lines.line);
      y = _mm512_maskz_loadu_ps(first_lanes(left - 16), from + i * lines.line + 16);
    } else {  // vector i is a pair of steps
      const __mmask16 mask = first_lanes(lines_left);
      x = _mm512_maskz_loadu_ps(2 * i < steps_left ? mask : 0, from + 2 * i * lines.step);
      y = _mm512_maskz_loadu_ps(2 * i + 1 < steps_left ? mask : 0, from + (2 * i + 1) * lines.step);
    }
    largest = larger(larger(largest, x), y);
    const Split a = split(x), b = split(y);
#pragma GCC unroll 3
    for (int part = 0; part < kParts; ++part) {
      keep(to + part * kTile + 32 * i,
           kStepsAdjoin ? one_after_the_other(a.part[part], b.part[part]) : side_by_side(a.part[part], b.part[part]));
    }
  }
  if (kStepsAdjoin == lines.columns) {
    for (int part = 0; part < kParts; ++part) transpose(to + part * kTile);
  }
  return largest;
}

// ---- tiles ----

struct TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64);

void configure() {
  TileConfig config{};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = 16;
  }
  _tile_loadconfig(&config);
}

// Adds a strip of A times a strip of B to the four tiles of C, which are tiles 0 to 3.
inline void multiply(const uint16_t* a, const uint16_t* b, int64_t steps) {
  enum { kHi = 0, kMid = kTile, kLo = 2 * kTile };
#define SEQKIT_LOAD_A(part)     \
  _tile_loadd(4, a + part, 64); \
  _tile_loadd(5, a + kHalf + part, 64)
#define SEQKIT_LOAD_B(part)     \
  _tile_loadd(6, b + part, 64); \
  _tile_loadd(7, b + kHalf + part, 64)
#define SEQKIT_MULTIPLY    \
  _tile_dpbf16ps(0, 4, 6); \
  _tile_dpbf16ps(1, 4, 7); \
  _tile_dpbf16ps(2, 5, 6); \
  _tile_dpbf16ps(3, 5, 7)
  for (int64_t step = 0; step < steps; ++step, a += kStripBits, b += kStripBits) {
    SEQKIT_LOAD_A(kLo);
    SEQKIT_LOAD_B(kHi);
    SEQKIT_MULTIPLY;
    SEQKIT_LOAD_A(kMid);
    SEQKIT_MULTIPLY;
    SEQKIT_LOAD_B(kMid);
    SEQKIT_MULTIPLY;
    SEQKIT_LOAD_A(kHi);
    SEQKIT_MULTIPLY;
    SEQKIT_LOAD_B(kLo);
    SEQKIT_MULTIPLY;
    SEQKIT_LOAD_B(kHi);
    SEQKIT_MULTIPLY;
  }
}

// The tiles of C at `to`, rows `stride` apart.
inline void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void store_sums(float* to, int64_t stride) {
  _tile_stored(0, to, stride * 4);
  _tile_stored(1, to + 16, stride * 4);
  _tile_stored(2, to + 16 * stride, stride * 4);
  _tile_stored(3, to + 16 * stride + 16, stride * 4);
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// What part of a strip by a strip lies within C.
struct Corner {
  float* c;
  int64_t stride, rows, columns;
};

// Writes, or adds, the sums in `block` to C.
template <bool kAdd>
void put(const Corner& corner, const float* block) {
  for (int64_t row = 0; row < corner.rows; ++row) {
    float* to = corner.c + row * corner.stride;
    for (int64_t column = 0; column < corner.columns; column += 16) {
      const __mmask16 mask = first_lanes(corner.columns - column);
      __m512 sums = _mm512_load_ps(block + row * kStrip + column);
      if constexpr (kAdd) sums = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to + column), sums);
      _mm512_mask_storeu_ps(to + column, mask, sums);
    }
  }
}

}  // namespace

namespace seqkit {

bool split_pack_amx(const Lines& lines, uint16_t* to, int64_t begin, int64_t end) {
  const int64_t steps = steps_of(lines.depth);
  __m512i largest = _mm512_setzero_si512();
  const auto half = lines.step == 1 ? pack_half<true> : pack_half<false>;
  for (int64_t strip = begin; strip < end; ++strip) {
    for (int64_t step = 0; step < steps; ++step) {
      uint16_t* tiles = to + (strip * steps + step) * kStripBits;
      largest = half(lines, strip * kStrip, step * kStripStep, tiles, largest);
      largest = half(lines, strip * kStrip + 16, step * kStripStep, tiles + kHalf, largest);
    }
  }
  return _mm512_cmpge_epu32_mask(largest, _mm512_set1_epi32(kTooLarge)) == 0;
}

void split_product_amx(const SplitProduct& product, int64_t begin, int64_t end) {
  const int64_t across = strips(product.columns), down = strips(product.rows), steps = steps_of(product.depth);
  const int64_t chunks = (steps + kDepthBlock / kStripStep - 1) / (kDepthBlock / kStripStep);
  alignas(64) float block[kStrip * kStrip];
  configure();
  for (int64_t unit = begin; unit < end;) {
    const int64_t row_block = unit / across, left = unit % across, right = smaller(left + end - unit, across);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t start = steps * chunk / chunks, stop = steps * (chunk + 1) / chunks;
      for (int64_t j = left; j < right; ++j) {
        for (int64_t i = row_block * kRowBlock; i < smaller((row_block + 1) * kRowBlock, down); ++i) {
          const Corner corner{product.c + i * kStrip * product.columns + j * kStrip, product.columns,
                              smaller(kStrip, product.rows - i * kStrip),
                              smaller(kStrip, product.columns - j * kStrip)};
          const bool direct = chunk == 0 && corner.rows == kStrip && corner.columns == kStrip;
          clear_sums();
          multiply(product.a + (i * steps + start) * kStripBits, product.b + (j * steps + start) * kStripBits,
                   stop - start);
          store_sums(direct ? corner.c : block, direct ? corner.stride : kStrip);
          if (!direct) chunk == 0 ? put<false>(corner, block) : put<true>(corner, block);
        }
      }
    }
    unit += right - left;
  }
  _tile_release();
}

}  // namespace seqkit
#endif
