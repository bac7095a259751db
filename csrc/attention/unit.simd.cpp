// The kernels of attention.h for numbers of 32 and 16 bits, once per machine level: blocks of 64 keys against tiles of
// a few query rows, all in float32. What a block reads more than once is first copied into dense rows of floats, since
// the rows of [B, T, H, D] memory lie a power of two apart and would push one another out of the first-level cache.
#include "attention/attention.h"
#include "attention/rows.h"
#include "common/device.h"
#include "common/numerics.h"

namespace {

using seqkit::AttentionGradients;
using seqkit::AttentionInputs;
using seqkit::AttentionOutputs;
using seqkit::AttentionShape;
using seqkit::KeyRange;
using seqkit::kKeyBlock;
using seqkit::kRowBlock;
using seqkit::kTileRows;

constexpr float kLowest = -__builtin_inff();
constexpr int64_t kCachedBytes = 2 << 20;  // of a gradient that may still be in the cache when it is read

typedef uint32_t VecWord __attribute__((vector_size(kLanes * sizeof(uint32_t))));
[[maybe_unused]] typedef uint64_t VecLong __attribute__((vector_size(kLanes * sizeof(uint32_t))));

SEQKIT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SEQKIT_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
SEQKIT_INLINE int lanes_left(int64_t count) { return int(smaller(count, kLanes)); }
SEQKIT_INLINE int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }
SEQKIT_INLINE int64_t whole_vectors(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

SEQKIT_INLINE VecInt lane_numbers() {
  VecInt numbers{};
  for (int lane = 0; lane < kLanes; ++lane) numbers[lane] = lane;
  return numbers;
}

// ---- matrix product: c[r][n] (+)= sum over k, in order, of a[r][k] b[k][n] ----

struct Product {
  const float* a;  // element (r, k) at r * a_row + k * a_step
  int64_t a_row, a_step;
  const float* b;  // row k at k * b_row
  int64_t b_row;
  float* c;  // row r at r * c_row
  int64_t c_row;
  int64_t depth;
  bool fresh;  // start from zero, not from c
};

template <int kRows, int kVectors, bool kPart>
void tile(const Product& p, int64_t row, int64_t column, int last) {
  const float* a = p.a + row * p.a_row;
  const float* b = p.b + column;
  float* c = p.c + row * p.c_row + column;
  Vec sums[kRows][kVectors] = {};
  if (!p.fresh) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) {
        const float* from = c + r * p.c_row + n * kLanes;
        sums[r][n] = kPart && n == kVectors - 1 ? load_part(from, last) : load(from);
      }
    }
  }
  for (int64_t k = 0; k < p.depth; ++k) {
    Vec right[kVectors];
#pragma GCC unroll 2
    for (int n = 0; n < kVectors; ++n) {
      const float* from = b + k * p.b_row + n * kLanes;
      right[n] = kPart && n == kVectors - 1 ? load_part(from, last) : load(from);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec left = splat(a[r * p.a_row + k * p.a_step]);
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) sums[r][n] = fma(left, right[n], sums[r][n]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int n = 0; n < kVectors; ++n) {
      float* to = c + r * p.c_row + n * kLanes;
      if (kPart && n == kVectors - 1) {
        store_part(to, sums[r][n], last);
      } else {
        store(to, sums[r][n]);
      }
    }
  }
}

template <int kVectors, bool kPart>
SEQKIT_INLINE void tile_rows(const Product& p, int64_t row, int64_t rows, int64_t column, int last) {
  switch (rows) {
    case 1:
      return tile<1, kVectors, kPart>(p, row, column, last);
    case 2:
      return tile<2, kVectors, kPart>(p, row, column, last);
    case 3:
      return tile<3, kVectors, kPart>(p, row, column, last);
    case 4:
      return tile<4, kVectors, kPart>(p, row, column, last);
    case 5:
      return tile<5, kVectors, kPart>(p, row, column, last);
    case 6:
      return tile<6, kVectors, kPart>(p, row, column, last);
    case 7:
      return tile<7, kVectors, kPart>(p, row, column, last);
    default:
      return tile<8, kVectors, kPart>(p, row, column, last);
  }
}

// Tiles of nearly one height: a low one leaves the multiply-adds waiting for one another.
SEQKIT_INLINE int64_t tile_height(int64_t rows) {
  constexpr int64_t kTallest = kLanes == 16 ? kTileRows : 6;  // with AVX-512 there are 32 registers, else 16
  return blocks_of(rows, larger(blocks_of(rows, kTallest), 1));
}

void multiply(const Product& p, int64_t rows, int64_t columns) {
  const int64_t tall = tile_height(rows);
  for (int64_t column = 0; column < columns; column += 2 * kLanes) {
    const int64_t left = columns - column;
    const bool two = left > kLanes;
    const int last = lanes_left(two ? left - kLanes : left);
    for (int64_t row = 0; row < rows; row += tall) {
      const int64_t height = smaller(tall, rows - row);
      if (two && last == kLanes) {
        tile_rows<2, false>(p, row, height, column, last);
      } else if (two) {
        tile_rows<2, true>(p, row, height, column, last);
      } else if (last == kLanes) {
        tile_rows<1, false>(p, row, height, column, last);
      } else {
        tile_rows<1, true>(p, row, height, column, last);
      }
    }
  }
}

// ---- key blocks ----

// Transposes a square of vectors by exchanging ever smaller halves (Eklundh 1972).
SEQKIT_INLINE void transpose(Vec (&square)[kLanes]) {
#pragma GCC unroll 5
  for (int half = kLanes / 2; half > 0; half /= 2) {
    VecInt upper{}, lower{};
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
      upper[lane] = lane & half ? kLanes + lane - half : lane;
      lower[lane] = lane & half ? kLanes + lane : lane + half;
    }
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row) {
      if (row & half) continue;
      const Vec a = square[row], b = square[row + half];
#if defined(__clang__)
      for (int lane = 0; lane < kLanes; ++lane) {
        square[row][lane] = lane & half ? b[lane - half] : a[lane];
        square[row + half][lane] = lane & half ? b[lane] : a[lane + half];
      }
#else
      square[row] = __builtin_shuffle(a, b, upper);
      square[row + half] = __builtin_shuffle(a, b, lower);
#endif
    }
  }
}

// to[r][d] = factor from[r][d], dense.
template <typename Number>
void copy_rows(const Number* from, int64_t from_row, int64_t count, int64_t width, float factor, float* to) {
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t d = 0; d < width; d += kLanes) {
      const int across = lanes_left(width - d);
      store_some(to + r * width + d, load_some(from + r * from_row + d, across) * splat(factor), across);
    }
  }
}

// to[r][d] = factor from[r][d], from dense rows; past the caches where the tensor has more `bytes` than they hold.
template <typename Number>
void write_rows(const float* from, int64_t count, int64_t width, float factor, Number* to, int64_t to_row,
                int64_t bytes = 0) {
  const int64_t vector = kLanes * sizeof(Number);
  if (bytes > kCachedBytes && width % kLanes == 0 && to_row % kLanes == 0 &&
      reinterpret_cast<uintptr_t>(to) % vector == 0) {
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t d = 0; d < width; d += kLanes)
        stream(to + r * to_row + d, load(from + r * width + d) * splat(factor));
    }
    return;
  }
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t d = 0; d < width; d += kLanes) {
      const int across = lanes_left(width - d);
      store_some(to + r * to_row + d, load_some(from + r * width + d, across) * splat(factor), across);
    }
  }
}

// pack() for bfloat16 of an even number of vectors: pairs are transposed as if they were floats and parted after that.
void pack_pairs(const seqkit::Bfloat16* from, int64_t from_row, int64_t count, int64_t width, float* to) {
  for (int64_t j = 0; j < count; j += kLanes) {
    for (int64_t d = 0; d < width; d += 2 * kLanes) {
      Vec square[kLanes];
#pragma GCC unroll 16
      for (int row = 0; row < kLanes; ++row) {
        square[row] = Vec{};
        if (j + row < count) std::memcpy(&square[row], from + (j + row) * from_row + d, sizeof(Vec));
      }
      transpose(square);
#pragma GCC unroll 16
      for (int row = 0; row < kLanes; ++row) {
        VecWord pair;
        std::memcpy(&pair, &square[row], sizeof pair);
        const VecWord even = pair << 16, odd = pair & 0xffff0000u;
        std::memcpy(to + (d + 2 * row) * kKeyBlock + j, &even, sizeof even);
        std::memcpy(to + (d + 2 * row + 1) * kKeyBlock + j, &odd, sizeof odd);
      }
    }
  }
}

// to[d][j] = from[j][d] for `count` rows of `width`; the columns up to the next whole vector become zero.
template <typename Number>
void pack(const Number* from, int64_t from_row, int64_t count, int64_t width, float* to) {
  if constexpr (std::is_same_v<Number, seqkit::Bfloat16>) {
    if (width % (2 * kLanes) == 0) return pack_pairs(from, from_row, count, width, to);
  }
  for (int64_t j = 0; j < count; j += kLanes) {
    for (int64_t d = 0; d < width; d += kLanes) {
      const int across = lanes_left(width - d);
      Vec square[kLanes];
#pragma GCC unroll 16
      for (int row = 0; row < kLanes; ++row) {
        square[row] = j + row < count ? load_some(from + (j + row) * from_row + d, across) : Vec{};
      }
      transpose(square);
#pragma GCC unroll 16
      for (int row = 0; row < kLanes; ++row) {
        if (row < across) store(to + (d + row) * kKeyBlock + j, square[row]);
      }
    }
  }
}

// Rows that will be read or written soon, asked for a few at a time while the machine computes: those of [B, T, H, D]
// memory lie a power of two apart, where no hardware foresees them.
class Soon {
 public:
  explicit Soon(int64_t steps) : steps_(larger(steps, 1)) {}

  template <typename Number>
  void add(const Number* from, int64_t row, int64_t rows, int64_t width) {
    parts_[count_++] = {reinterpret_cast<const char*>(from), row * int64_t(sizeof(Number)),
                        width * int64_t(sizeof(Number)), rows, (rows + steps_ - 1) / steps_};
  }

  void step() {
    for (int n = 0; n < count_; ++n) {
      Part& part = parts_[n];
      for (int64_t r = smaller(part.share, part.rows); r > 0; --r, --part.rows, part.from += part.row) {
        for (int64_t at = 0; at < part.bytes; at += 64) __builtin_prefetch(part.from + at, 0, 2);
      }
    }
  }

 private:
  struct Part {
    const char* from;
    int64_t row, bytes, rows, share;  // `rows` are left, `share` of them are asked for in a step
  } parts_[5];
  int count_ = 0;
  int64_t steps_;
};

// ---- logits and dropout ----

// What turns a row's products with a key block, which hold the scale already, into its logits.
template <typename Number>
struct RowBias {
  float slope;
  const Number* bias;  // of the block's first key, or null
  int64_t bias_step;
  int64_t distance;  // from the block's first key to the query's position
};

template <typename Number>
RowBias<Number> row_bias(const AttentionShape& shape, const AttentionInputs<Number>& in, int64_t sentence, int64_t head,
                         int64_t row, int64_t start) {
  const Number* bias = nullptr;
  if (in.bias) {
    bias = in.bias + sentence * in.bias_strides.batch + head * in.bias_strides.head + row * in.bias_strides.row +
           start * in.bias_key_stride;
  }
  return {.slope = in.slopes ? in.slopes[head] : 0.0f,
          .bias = bias,
          .bias_step = in.bias_key_stride,
          .distance = query_position(shape, row) - start};
}

SEQKIT_INLINE VecInt lanes_inside(int64_t c, const KeyRange& seen) {
  const VecInt number = lane_numbers() + int(c);
  return (number >= int(seen.begin)) & (number < int(seen.end));
}

// The logits of keys c .. c + kLanes - 1 of the block; -infinity for those outside [seen.begin, seen.end).
template <typename Number>
SEQKIT_INLINE Vec logits(const RowBias<Number>& row, const float* products, int64_t c, const KeyRange& seen) {
  Vec value = load(products + c);
  if (row.bias && seen.end > c) {
    value = value +
            (row.bias_step == 0 ? splat(load_some(row.bias, 1)[0]) : load_some(row.bias + c, lanes_left(seen.end - c)));
  }
  if (row.slope != 0.0f) {
    const Vec distance = __builtin_convertvector(int(row.distance - c) - lane_numbers(), Vec);
    value = fma(splat(-row.slope), magnitude(distance), value);
  }
  if (seen.begin <= c && c + kLanes <= seen.end) return value;
  return lanes_inside(c, seen) ? value : splat(kLowest);
}

SEQKIT_INLINE VecWord multiply_high(VecWord x, uint32_t factor) {
#if defined(__AVX512F__)
  const __m512i m = _mm512_set1_epi64(factor);
  const VecLong even = (VecLong)_mm512_maskz_mul_epu32(0xFF, (__m512i)x, m) >> 32;
  const VecLong odd = (VecLong)_mm512_maskz_mul_epu32(0xFF, (__m512i)((VecLong)x >> 32), m);
  return (VecWord)_mm512_mask_blend_epi32(0xAAAA, (__m512i)even, (__m512i)odd);
#elif defined(__AVX2__)
  const __m256i m = _mm256_set1_epi64x(factor);
  const VecLong even = (VecLong)_mm256_mul_epu32((__m256i)x, m) >> 32;
  const VecLong odd = (VecLong)_mm256_mul_epu32((__m256i)((VecLong)x >> 32), m);
  return (VecWord)_mm256_blend_epi32((__m256i)even, (__m256i)odd, 0xAA);
#else
  VecWord high{};
  for (int lane = 0; lane < kLanes; ++lane) high[lane] = uint32_t(uint64_t(x[lane]) * factor >> 32);
  return high;
#endif
}

// The random words of the 64 keys from `start` on: random_word() of rows.h, a vector at a time.
void random_block(const AttentionShape& shape, int64_t head, int64_t row, int64_t start, uint32_t* words) {
  for (int lane = 0; lane < 16; lane += kLanes) {
    const VecWord zero{};
    VecWord x[4] = {(VecWord)(lane_numbers() + int(start / 4 + lane)), zero + uint32_t(row), zero + uint32_t(head),
                    zero};
    uint32_t low = uint32_t(shape.seed), high = uint32_t(shape.seed >> 32);
    for (int round = 0; round < kPhiloxRounds; ++round) {
      const VecWord next[4] = {multiply_high(x[2], kPhiloxMultiplier1) ^ x[1] ^ low, x[2] * kPhiloxMultiplier1,
                               multiply_high(x[0], kPhiloxMultiplier0) ^ x[3] ^ high, x[0] * kPhiloxMultiplier0};
      for (int word = 0; word < 4; ++word) x[word] = next[word];
      low += kPhiloxWeyl0;
      high += kPhiloxWeyl1;
    }
    for (int word = 0; word < 4; ++word) std::memcpy(words + 16 * word + lane, &x[word], sizeof x[word]);
  }
}

SEQKIT_INLINE Vec kept(const uint32_t* words, int64_t c, uint32_t drop_below) {
  VecWord word;
  std::memcpy(&word, words + c, sizeof word);
  const float share = float(1.0 - drop_below * 0x1p-32);
  return word < VecWord{} + drop_below ? splat(0.0f) : splat(1.0f / share);
}

SEQKIT_INLINE float exp_one(float x) { return exp(splat(x))[0]; }

// ---- forward ----

// The state of one row between key blocks.
struct Running {
  float largest, total;
};

// Turns a row's products into exp(logit - largest) in place, and keeps largest, total and the sums in step.
// Returns whether the row gets any weight from this block.
template <typename Number>
bool soften(const AttentionShape& shape, const RowBias<Number>& bias, const KeyRange& seen, const uint32_t* words,
            float* products, float* logits_out, Running& running, float* sums) {
  const int64_t first = seen.begin / kLanes * kLanes;
  Vec tops = splat(kLowest);
  for (int64_t c = first; c < seen.end; c += kLanes) {
    const Vec value = logits(bias, products, c, seen);
    store(products + c, value);
    tops = value > tops ? value : tops;
  }
  if (logits_out) {
    std::memcpy(logits_out + seen.begin, products + seen.begin, (seen.end - seen.begin) * sizeof(float));
  }
  const float top = largest_lane(tops);
  const float largest = top > running.largest ? top : running.largest;
  if (largest == kLowest) {  // all are hidden, or NaN, which must not vanish
    for (int64_t j = seen.begin; j < seen.end; ++j) {
      if (products[j] != products[j]) running.total = products[j];
    }
    return false;
  }
  if (largest > running.largest && running.total != 0.0f) {
    const float shrink = exp_one(running.largest - largest);
    running.total *= shrink;
    for (int64_t d = 0; d < shape.value_width; d += kLanes) {
      const int count = lanes_left(shape.value_width - d);
      store_some(sums + d, load_some(sums + d, count) * splat(shrink), count);
    }
  }
  running.largest = largest;
  Vec totals{};
  for (int64_t c = first; c < seen.end; c += kLanes) {
    Vec weight = exp(load(products + c) - splat(largest));
    totals = totals + weight;
    if (words) weight = weight * kept(words, c, shape.drop_below);
    store(products + c, weight);
  }
  running.total += sum(totals);
  return true;
}

// sums[r] += sum over the keys that row r sees of weights[r][j] values[j], each row's keys in order and no others.
void add_values(const AttentionShape& shape, const float* weights, const KeyRange* seen, int64_t rows,
                const float* values, float* sums) {
  int64_t begin = 0, end = kKeyBlock;  // the keys that all rows see
  for (int64_t r = 0; r < rows; ++r) {
    begin = larger(begin, seen[r].begin);
    end = smaller(end, seen[r].end);
  }
  if (end < begin) end = begin;
  const auto add = [&](int64_t row, int64_t height, int64_t from, int64_t to) {
    if (to <= from) return;
    multiply({.a = weights + row * kKeyBlock + from,
              .a_row = kKeyBlock,
              .a_step = 1,
              .b = values + from * shape.value_width,
              .b_row = shape.value_width,
              .c = sums + row * shape.value_width,
              .c_row = shape.value_width,
              .depth = to - from,
              .fresh = false},
             height, shape.value_width);
  };
  for (int64_t r = 0; r < rows; ++r) add(r, 1, seen[r].begin, smaller(seen[r].end, begin));
  add(0, rows, begin, end);
  for (int64_t r = 0; r < rows; ++r) add(r, 1, larger(seen[r].begin, end), seen[r].end);
}

// The same for a row alone, for which a copy of the values would be read once: `kVectors` vectors of a value at a time,
// so that their sums do not wait for each other.
template <int kVectors, typename Number>
SEQKIT_INLINE void add_values_in_place(const float* weights, const KeyRange& seen, const Number* values,
                                       int64_t value_row, int64_t width, float* sums) {
  Vec total[kVectors];
  for (int n = 0; n < kVectors; ++n) total[n] = load_some(sums + n * kLanes, lanes_left(width - n * kLanes));
  for (int64_t j = seen.begin; j < seen.end; ++j) {
    const Vec weight = splat(weights[j]);
    for (int n = 0; n < kVectors; ++n) {
      const Vec value = load_some(values + j * value_row + n * kLanes, lanes_left(width - n * kLanes));
      total[n] = fma(weight, value, total[n]);
    }
  }
  for (int n = 0; n < kVectors; ++n) store_some(sums + n * kLanes, total[n], lanes_left(width - n * kLanes));
}

template <typename Number>
void add_values_in_place(const AttentionShape& shape, const float* weights, const KeyRange& seen, const Number* values,
                         int64_t value_row, float* sums) {
  int64_t d = 0;
  for (; d + 3 * kLanes < shape.value_width; d += 4 * kLanes) {
    add_values_in_place<4>(weights, seen, values + d, value_row, smaller(shape.value_width - d, 4 * kLanes), sums + d);
  }
  for (; d < shape.value_width; d += kLanes) {
    add_values_in_place<1>(weights, seen, values + d, value_row, smaller(shape.value_width - d, kLanes), sums + d);
  }
}

// Writes one finished row: the mean, the statistics, and the weights from its logits.
template <typename Number>
void finish_row(const AttentionShape& shape, const AttentionOutputs<Number>& out, int64_t sentence, int64_t head,
                int64_t row, const KeyRange& range, const Running& running, const float* sums, const float* logits) {
  const int64_t flat = (sentence * shape.heads + head) * shape.targets + row;
  const float inverse = running.total == 0.0f ? 0.0f : 1.0f / running.total;
  const float largest = running.largest == kLowest ? 0.0f : running.largest;
  write_rows(sums, 1, shape.value_width, inverse,
             out.out + ((sentence * shape.targets + row) * shape.heads + head) * shape.value_width, 0);
  out.stats[2 * flat] = largest;
  out.stats[2 * flat + 1] = inverse;
  if (!out.weights) return;
  Number* weights = out.weights + flat * shape.sources;
  std::memset(weights, 0, range.begin * sizeof(Number));
  for (int64_t j = range.begin; j < range.end; j += kLanes) {
    const int count = lanes_left(range.end - j);
    store_some(weights + j, exp(load_some(logits + j, count) - splat(largest)) * splat(inverse), count);
  }
  std::memset(weights + range.end, 0, (shape.sources - range.end) * sizeof(Number));
}

// A range of keys relative to a block of `count` keys that begins at `start`.
SEQKIT_INLINE KeyRange within(const KeyRange& range, int64_t start, int64_t count) {
  const int64_t begin = larger(range.begin - start, 0), end = smaller(range.end - start, count);
  return end > begin ? KeyRange{begin, end} : KeyRange{0, 0};
}

// The keys that at least one of a row block's rows sees.
KeyRange ranges_of_rows(const AttentionShape& shape, int64_t sentence, int64_t row, int64_t rows, KeyRange* ranges) {
  KeyRange all{shape.sources, 0};
  for (int64_t r = 0; r < rows; ++r) {
    ranges[r] = keys_seen(shape, sentence, row + r);
    if (ranges[r].begin == ranges[r].end) continue;
    all.begin = smaller(all.begin, ranges[r].begin);
    all.end = larger(all.end, ranges[r].end);
  }
  return all;
}

// A part of the scratch of a unit; each begins on a cache line, as the scratch does.
SEQKIT_INLINE float* take(float*& scratch, int64_t size) {
  float* part = scratch;
  scratch += whole_lines(size);
  return part;
}

// Where a head of a sentence has its rows; `flat_head` counts the heads of all sentences.
template <typename Number>
const Number* queries_of(const AttentionShape& shape, const AttentionInputs<Number>& in, int64_t flat_head) {
  return in.q + flat_head / shape.heads * in.q_strides.batch + flat_head % shape.heads * in.q_strides.head;
}

template <typename Number>
const Number* keys_of(const AttentionShape& shape, const AttentionInputs<Number>& in, int64_t flat_head) {
  const int64_t kv_head = flat_head % shape.heads / (shape.heads / shape.kv_heads);
  return in.k + flat_head / shape.heads * in.k_strides.batch + kv_head * in.k_strides.head;
}

template <typename Number>
const Number* values_of(const AttentionShape& shape, const AttentionInputs<Number>& in, int64_t flat_head) {
  const int64_t kv_head = flat_head % shape.heads / (shape.heads / shape.kv_heads);
  return in.v + flat_head / shape.heads * in.v_strides.batch + kv_head * in.v_strides.head;
}

// How many queries of a head its first row block has.
SEQKIT_INLINE int64_t first_queries(const AttentionShape& shape, int64_t flat_head) {
  return smaller(kRowBlock, query_count(shape, flat_head / shape.heads));
}

template <typename Number>
void forward_unit(const AttentionShape& shape, const AttentionInputs<Number>& in, const AttentionOutputs<Number>& out,
                  int64_t unit, float* scratch) {
  const int64_t blocks = row_blocks(shape), capacity = row_capacity(shape);
  const int64_t first_row = unit % blocks * kRowBlock, rows = smaller(kRowBlock, shape.targets - first_row);
  const int64_t flat_head = unit / blocks, head = flat_head % shape.heads, sentence = flat_head / shape.heads;

  float* queries = take(scratch, capacity * shape.width);        // [rows][Dh], times the scale
  float* keys = take(scratch, shape.width * kKeyBlock);          // [Dh][64]
  float* values = take(scratch, kKeyBlock * shape.value_width);  // [64][Dv]
  float* scores = take(scratch, kTileRows * kKeyBlock);          // [8][64]
  float* sums = take(scratch, capacity * shape.value_width);     // [rows][Dv]
  float* logits = out.weights ? scratch : nullptr;               // [rows][S]
  std::memset(sums, 0, rows * shape.value_width * sizeof(float));
  KeyRange ranges[kRowBlock];
  Running running[kRowBlock];
  for (int64_t r = 0; r < rows; ++r) running[r] = {kLowest, 0.0f};
  const KeyRange all = ranges_of_rows(shape, sentence, first_row, rows, ranges);
  const Number *k = keys_of(shape, in, flat_head), *v = values_of(shape, in, flat_head);
  const int64_t first_key = all.begin / kKeyBlock * kKeyBlock;
  if (all.end > all.begin) {
    copy_rows(queries_of(shape, in, flat_head) + first_row * in.q_strides.row, in.q_strides.row, rows, shape.width,
              float(shape.scale), queries);
  }

  const int64_t tall = tile_height(rows);
  Soon soon(blocks_of(rows, tall) * blocks_of(all.end - first_key, kKeyBlock));
  soon.add(out.out + ((sentence * shape.targets + first_row) * shape.heads + head) * shape.value_width,
           shape.heads * shape.value_width, rows, shape.value_width);
  // A query alone computes too little to hide it: asking for keys then only holds up the loads of the values.
  if (shape.targets > 1 && first_row + rows == shape.targets && flat_head + 1 < shape.batch * shape.heads) {
    const int64_t next = flat_head + 1, next_keys = key_count(shape, next / shape.heads);
    soon.add(queries_of(shape, in, next), in.q_strides.row, first_queries(shape, next), shape.width);
    soon.add(keys_of(shape, in, next), in.k_strides.row, next_keys, shape.width);
    soon.add(values_of(shape, in, next), in.v_strides.row, next_keys, shape.value_width);
  }
  for (int64_t start = first_key; start < all.end; start += kKeyBlock) {
    const int64_t count = smaller(kKeyBlock, all.end - start);
    pack(k + start * in.k_strides.row, in.k_strides.row, count, shape.width, keys);
    if (rows > 1) copy_rows(v + start * in.v_strides.row, in.v_strides.row, count, shape.value_width, 1.0f, values);
    for (int64_t top = 0; top < rows; top += tall) {
      const int64_t height = smaller(tall, rows - top);
      KeyRange seen[kTileRows];
      bool any = false;
      for (int64_t r = 0; r < height; ++r) {
        seen[r] = within(ranges[top + r], start, count);
        any = any || seen[r].end > 0;
      }
      soon.step();
      if (!any) continue;
      multiply({.a = queries + top * shape.width,
                .a_row = shape.width,
                .a_step = 1,
                .b = keys,
                .b_row = kKeyBlock,
                .c = scores,
                .c_row = kKeyBlock,
                .depth = shape.width,
                .fresh = true},
               height, whole_vectors(count));
      for (int64_t r = 0; r < height; ++r) {
        if (seen[r].end == 0) continue;
        const int64_t row = first_row + top + r;
        uint32_t words[kKeyBlock];
        if (shape.drop_below) random_block(shape, flat_head, row, start, words);
        const bool weighs =
            soften(shape, row_bias(shape, in, sentence, head, row, start), seen[r], shape.drop_below ? words : nullptr,
                   scores + r * kKeyBlock, logits ? logits + (top + r) * shape.sources + start : nullptr,
                   running[top + r], sums + (top + r) * shape.value_width);
        if (!weighs) seen[r] = {0, 0};
      }
      if (rows > 1) {
        add_values(shape, scores, seen, height, values, sums + top * shape.value_width);
      } else {
        add_values_in_place(shape, scores, seen[0], v + start * in.v_strides.row, in.v_strides.row, sums);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    finish_row(shape, out, sentence, head, first_row + r, ranges[r], running[r], sums + r * shape.value_width,
               logits ? logits + r * shape.sources : nullptr);
  }
}

// One key-value head of one sentence: all its query heads and rows in order, so that its sums have one order.
template <typename Number>
void backward_unit(const AttentionShape& shape, const AttentionInputs<Number>& in,
                   const AttentionGradients<Number>& grads, int64_t unit, float* scratch) {
  const int64_t group = shape.heads / shape.kv_heads, capacity = row_capacity(shape);
  const int64_t sentence = unit / shape.kv_heads, kv_head = unit % shape.kv_heads;
  const int64_t n_queries = query_count(shape, sentence), out_row = shape.heads * shape.value_width;
  const int64_t q_bytes = shape.batch * shape.targets * shape.heads * shape.width * int64_t(sizeof(Number));
  const int64_t k_bytes = shape.batch * shape.sources * shape.kv_heads * shape.width * int64_t(sizeof(Number));

  float* queries = take(scratch, capacity * shape.width);            // [rows][Dh], times the scale
  float* grad_out = take(scratch, capacity * shape.value_width);     // [rows][Dv]
  float* keys = take(scratch, shape.width * kKeyBlock);              // [Dh][64]
  float* key_rows = take(scratch, kKeyBlock * shape.width);          // [64][Dh]
  float* values = take(scratch, shape.value_width * kKeyBlock);      // [Dv][64]
  float* weights = take(scratch, capacity * kKeyBlock);              // [rows][64], products, then weights
  float* slopes = take(scratch, capacity * kKeyBlock);               // [rows][64], d(loss)/d(weight), then of the logit
  float* grad_q = take(scratch, capacity * shape.width);             // [rows][Dh]
  float* grad_k = take(scratch, shape.sources * shape.width);        // [S][Dh]
  float* grad_v = take(scratch, shape.sources * shape.value_width);  // [S][Dv]
  std::memset(grad_k, 0, shape.sources * shape.width * sizeof(float));
  std::memset(grad_v, 0, shape.sources * shape.value_width * sizeof(float));
  KeyRange ranges[kRowBlock];
  float deltas[kRowBlock];

  for (int64_t flat_head = sentence * shape.heads + kv_head * group, n = 0; n < group; ++flat_head, ++n) {
    const int64_t head = flat_head % shape.heads;
    const Number *k = keys_of(shape, in, flat_head), *v = values_of(shape, in, flat_head);
    for (int64_t first_row = 0; first_row < n_queries; first_row += kRowBlock) {
      const int64_t rows = smaller(kRowBlock, n_queries - first_row);
      const int64_t merged = (sentence * shape.targets + first_row) * shape.heads + head;
      const int64_t flat = flat_head * shape.targets + first_row;
      const Number* out = grads.out + merged * shape.value_width;
      const KeyRange all = ranges_of_rows(shape, sentence, first_row, rows, ranges);
      copy_rows(queries_of(shape, in, flat_head) + first_row * in.q_strides.row, in.q_strides.row, rows, shape.width,
                float(shape.scale), queries);
      copy_rows(grads.grad_out + merged * shape.value_width, out_row, rows, shape.value_width, 1.0f, grad_out);
      std::memset(grad_q, 0, rows * shape.width * sizeof(float));

      // delta = sum over keys of weight d(loss)/d(weight), the term that all keys of a row share.
      for (int64_t r = 0; r < rows; ++r) {
        Vec total{};
        for (int64_t d = 0; d < shape.value_width; d += kLanes) {
          const int count = lanes_left(shape.value_width - d);
          total = fma(load_some(grad_out + r * shape.value_width + d, count), load_some(out + r * out_row + d, count),
                      total);
        }
        for (int64_t j = ranges[r].begin; grads.grad_weights && j < ranges[r].end; j += kLanes) {
          const int count = lanes_left(ranges[r].end - j);
          const int64_t at = (flat + r) * shape.sources + j;
          total = fma(load_some(grads.weights + at, count), load_some(grads.grad_weights + at, count), total);
        }
        deltas[r] = sum(total);
      }

      const int64_t first_key = all.begin / kKeyBlock * kKeyBlock;
      Soon soon(blocks_of(rows, tile_height(rows)) * blocks_of(all.end - first_key, kKeyBlock));
      if (first_row + rows == n_queries && flat_head + 1 < shape.batch * shape.heads) {
        const int64_t next = flat_head + 1, sentence_of_next = next / shape.heads;
        const int64_t next_rows = first_queries(shape, next), next_keys = key_count(shape, sentence_of_next);
        const int64_t next_merged = sentence_of_next * shape.targets * shape.heads + next % shape.heads;
        soon.add(queries_of(shape, in, next), in.q_strides.row, next_rows, shape.width);
        soon.add(grads.grad_out + next_merged * shape.value_width, out_row, next_rows, shape.value_width);
        soon.add(grads.out + next_merged * shape.value_width, out_row, next_rows, shape.value_width);
        soon.add(keys_of(shape, in, next), in.k_strides.row, next_keys, shape.width);
        soon.add(values_of(shape, in, next), in.v_strides.row, next_keys, shape.value_width);
      }
      for (int64_t start = first_key; start < all.end; start += kKeyBlock) {
        const int64_t count = smaller(kKeyBlock, all.end - start), columns = whole_vectors(count);
        // Rows above `first` and from `last` on see nothing of this block: under a causal mask, half of all rows.
        int64_t first = 0, last = rows;
        while (first < last && within(ranges[first], start, count).end == 0) ++first;
        while (last > first && within(ranges[last - 1], start, count).end == 0) --last;
        if (last == first) continue;
        pack(k + start * in.k_strides.row, in.k_strides.row, count, shape.width, keys);
        pack(v + start * in.v_strides.row, in.v_strides.row, count, shape.value_width, values);
        copy_rows(k + start * in.k_strides.row, in.k_strides.row, count, shape.width, 1.0f, key_rows);
        const int64_t tall = tile_height(last - first);
        for (int64_t top = first; top < last; top += tall) {
          const int64_t height = smaller(tall, last - top);
          soon.step();
          multiply({.a = queries + top * shape.width,
                    .a_row = shape.width,
                    .a_step = 1,
                    .b = keys,
                    .b_row = kKeyBlock,
                    .c = weights + top * kKeyBlock,
                    .c_row = kKeyBlock,
                    .depth = shape.width,
                    .fresh = true},
                   height, columns);
          multiply({.a = grad_out + top * shape.value_width,
                    .a_row = shape.value_width,
                    .a_step = 1,
                    .b = values,
                    .b_row = kKeyBlock,
                    .c = slopes + top * kKeyBlock,
                    .c_row = kKeyBlock,
                    .depth = shape.value_width,
                    .fresh = true},
                   height, columns);
          for (int64_t r = top; r < top + height; ++r) {
            const int64_t row = first_row + r, at = (flat + r) * shape.sources + start;
            const KeyRange seen = within(ranges[r], start, count);
            const RowBias<Number> bias = row_bias(shape, in, sentence, head, row, start);
            const Vec largest = splat(grads.stats[2 * (flat + r)]), inverse = splat(grads.stats[2 * (flat + r) + 1]);
            uint32_t words[kKeyBlock];
            if (shape.drop_below) random_block(shape, flat_head, row, start, words);
            for (int64_t c = 0; c < columns; c += kLanes) {
              float* weight_at = weights + r * kKeyBlock + c;
              float* slope_at = slopes + r * kKeyBlock + c;
              const VecInt inside = lanes_inside(c, seen);
              const Vec weight = exp(logits(bias, weights + r * kKeyBlock, c, seen) - largest) * inverse;
              const Vec keep = shape.drop_below ? kept(words, c, shape.drop_below) : splat(1.0f);
              Vec slope = load(slope_at) * keep;
              if (grads.grad_weights && seen.end > c) {
                slope = slope + load_some(grads.grad_weights + at + c, lanes_left(seen.end - c));
              }
              slope = weight * (slope - splat(deltas[r]));
              slope = inside ? slope : splat(0.0f);
              if (grads.grad_bias && seen.end > c && seen.begin < c + kLanes) {
                store_some(grads.grad_bias + at + c, slope, lanes_left(seen.end - c));
              }
              store(weight_at, inside ? weight * keep : splat(0.0f));
              store(slope_at, slope);
            }
          }
          multiply({.a = slopes + top * kKeyBlock,
                    .a_row = kKeyBlock,
                    .a_step = 1,
                    .b = key_rows,
                    .b_row = shape.width,
                    .c = grad_q + top * shape.width,
                    .c_row = shape.width,
                    .depth = count,
                    .fresh = false},
                   height, shape.width);
        }
        multiply({.a = weights + first * kKeyBlock,
                  .a_row = 1,
                  .a_step = kKeyBlock,
                  .b = grad_out + first * shape.value_width,
                  .b_row = shape.value_width,
                  .c = grad_v + start * shape.value_width,
                  .c_row = shape.value_width,
                  .depth = last - first,
                  .fresh = false},
                 count, shape.value_width);
        multiply({.a = slopes + first * kKeyBlock,
                  .a_row = 1,
                  .a_step = kKeyBlock,
                  .b = queries + first * shape.width,
                  .b_row = shape.width,
                  .c = grad_k + start * shape.width,
                  .c_row = shape.width,
                  .depth = last - first,
                  .fresh = false},
                 count, shape.width);
      }
      write_rows(grad_q, rows, shape.width, float(shape.scale), grads.grad_q + merged * shape.width,
                 shape.heads * shape.width, q_bytes);
    }
    for (int64_t row = n_queries; row < shape.targets; ++row) {
      std::memset(grads.grad_q + ((sentence * shape.targets + row) * shape.heads + head) * shape.width, 0,
                  shape.width * sizeof(Number));
    }
  }
  const int64_t first_key = sentence * shape.sources * shape.kv_heads + kv_head;
  write_rows(grad_k, shape.sources, shape.width, 1.0f, grads.grad_k + first_key * shape.width,
             shape.kv_heads * shape.width, k_bytes);
  write_rows(grad_v, shape.sources, shape.value_width, 1.0f, grads.grad_v + first_key * shape.value_width,
             shape.kv_heads * shape.value_width, k_bytes);
  finish_streams();
}

}  // namespace

namespace seqkit {

#define SEQKIT_ATTENTION(Number)                                                                                    \
  void SEQKIT_AT_LEVEL(attention_forward_##Number)(const AttentionShape& shape, const AttentionInputs<Number>& in,  \
                                                   const AttentionOutputs<Number>& out, int64_t unit,               \
                                                   float* scratch) {                                                \
    forward_unit(shape, in, out, unit, scratch);                                                                    \
  }                                                                                                                 \
  void SEQKIT_AT_LEVEL(attention_backward_##Number)(const AttentionShape& shape, const AttentionInputs<Number>& in, \
                                                    const AttentionGradients<Number>& grads, int64_t unit,          \
                                                    float* scratch) {                                               \
    backward_unit(shape, in, grads, unit, scratch);                                                                 \
  }
SEQKIT_ATTENTION(float)
SEQKIT_ATTENTION(Half)
SEQKIT_ATTENTION(Bfloat16)

}  // namespace seqkit
