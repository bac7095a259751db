// The steps of rnn.h in float32, once per machine level.
#include "common/device.h"
#include "common/numerics.h"
#include "rnn/rnn.h"
#include "rnn/row.h"

namespace {

using seqkit::kRnnPanel;
using seqkit::RnnProduct;

struct Vectors {
  using Number = float;
  using Vec = ::Vec;
  static constexpr int kWidth = kLanes;
  static SEQKIT_INLINE Vec load(const float* from, int count) { return load_some(from, count); }
  static SEQKIT_INLINE void store(float* to, Vec value, int count) { store_some(to, value, count); }
  static SEQKIT_INLINE Vec splat(float value) { return ::splat(value); }
  static SEQKIT_INLINE Vec fma(Vec a, Vec b, Vec c) { return ::fma(a, b, c); }
  static SEQKIT_INLINE Vec sigmoid(Vec x) { return ::sigmoid(x); }
  static SEQKIT_INLINE Vec tanh(Vec x) { return ::tanh(x); }
  static SEQKIT_INLINE Vec relu(Vec x) { return x < ::splat(0.0f) ? ::splat(0.0f) : x; }  // NaN passes
  static SEQKIT_INLINE Vec where_positive(Vec y, Vec value) { return y > ::splat(0.0f) ? value : Vec{}; }
  static SEQKIT_INLINE float sum(Vec value) { return ::sum(value); }
  static SEQKIT_INLINE float root(float x) { return __builtin_sqrtf(x); }
  // Zero in the lanes from `count` on.
  static SEQKIT_INLINE Vec first(Vec value, int count) {
    if (count == kLanes) return value;
    VecInt lane;
    for (int i = 0; i < kLanes; ++i) lane[i] = i;
    return lane < count ? value : Vec{};
  }
};

constexpr int64_t kChunk = 128;  // steps of k that a panel's rows take together
constexpr int kRowsAtOnce = kLanes == 16 ? 10 : 5;
constexpr int kVectors = kLanes == 16 ? 2 : 2;  // of columns
constexpr int64_t kAhead = 16 * kRnnPanel;      // weights on their way to the cache

// Rows [row, row + kRows), columns [column, column + kVectors * kLanes) of a panel, steps [begin, end) of k.
template <int kRows>
void tile(const RnnProduct<float>& product, int64_t row, const float* weights, int64_t column, int64_t begin,
          int64_t end) {
  const float* x = product.x + row * product.depth;
  float* y = product.y + row * product.columns + column;
  const int64_t left = product.columns - column;
  const int first = left < kLanes ? int(left) : kLanes;
  const int second = left - kLanes < 0 ? 0 : left - kLanes < kLanes ? int(left - kLanes) : kLanes;
  const bool from_zero = begin == 0 && !product.add;
  Vec sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    sums[r][0] = from_zero ? Vec{} : load_some(y + r * product.columns, first);
    sums[r][1] = from_zero || second == 0 ? Vec{} : load_some(y + r * product.columns + kLanes, second);
  }
  for (int64_t k = begin; k < end; ++k) {
    const float* from = weights + k * kRnnPanel;
    const Vec a = load(from), b = load(from + kLanes);
    __builtin_prefetch(from + kAhead, 0, 2);
    if constexpr (kLanes == 16) __builtin_prefetch(from + kAhead + kLanes, 0, 2);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec value = splat(x[r * product.depth + k]);
      sums[r][0] = fma(value, a, sums[r][0]);
      sums[r][1] = fma(value, b, sums[r][1]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    store_some(y + r * product.columns, sums[r][0], first);
    if (second) store_some(y + r * product.columns + kLanes, sums[r][1], second);
  }
}

using Tile = void (*)(const RnnProduct<float>&, int64_t, const float*, int64_t, int64_t, int64_t);

Tile tile_of(int64_t rows) {
  switch (rows) {
    case 1:
      return tile<1>;
    case 2:
      return tile<2>;
    case 3:
      return tile<3>;
    case 4:
      return tile<4>;
    case 5:
      return tile<5>;
#ifdef __AVX512F__
    case 6:
      return tile<6>;
    case 7:
      return tile<7>;
    case 8:
      return tile<8>;
    case 9:
      return tile<9>;
    default:
      return tile<10>;
#else
    default:
      return tile<5>;
#endif
  }
}

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace

namespace seqkit {

void SEQKIT_AT_LEVEL(rnn_product)(const RnnProduct<float>& product, int64_t begin, int64_t end) {
  const int64_t blocks = (product.rows + kRowsAtOnce - 1) / kRowsAtOnce;
  for (int64_t panel = begin; panel < end; ++panel) {
    const float* weights = product.packed + panel * product.depth * kRnnPanel;
    for (int64_t k = 0; k < product.depth; k += kChunk) {
      for (int64_t part = 0; part < kRnnPanel; part += kVectors * kLanes) {
        const int64_t column = panel * kRnnPanel + part;
        if (column >= product.columns) break;
        for (int64_t block = 0; block < blocks; ++block) {
          const int64_t row = product.rows * block / blocks, next = product.rows * (block + 1) / blocks;
          tile_of(next - row)(product, row, weights + part, column, k, smaller(k + kChunk, product.depth));
        }
      }
    }
  }
}

void SEQKIT_AT_LEVEL(rnn_round)(const float* x, int64_t depth, Bfloat16* to, int64_t begin, int64_t end) {
  const int64_t whole = round_up(depth, kHalvesDepth);
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t k = 0; k < depth; k += kLanes) {
      const int count = depth - k < kLanes ? int(depth - k) : kLanes;
      const VecBits bits = narrow(load_some(x + row * depth + k, count), static_cast<const Bfloat16*>(nullptr));
      __builtin_memcpy(to + row * whole + k, &bits, count * sizeof(Bfloat16));
    }
    for (int64_t k = depth; k < whole; ++k) to[row * whole + k] = Bfloat16{0};
  }
}

void SEQKIT_AT_LEVEL(rnn_forward)(const RnnInputs<float>& in, const RnnForward<float>& to, int64_t step, int64_t begin,
                                  int64_t end) {
  for (int64_t slot = begin; slot < end; ++slot) Row<Vectors>::forward(in, to, step, slot);
}

void SEQKIT_AT_LEVEL(rnn_backward)(const RnnInputs<float>& in, const RnnBackward<float>& to, int64_t step,
                                   int64_t slots, int64_t begin, int64_t end) {
  for (int64_t group = begin; group < end; ++group) Row<Vectors>::backward_group(in, to, step, slots, group);
}

}  // namespace seqkit
