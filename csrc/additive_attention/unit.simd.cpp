// The float32 kernels of additive_attention.h, once per machine level.
//
// tanh(q + k) = m / (m + 2) with m = exp(2q) exp(2k) - 1: the exponentials are taken of the [T, A] queries and the
// [S, A] keys, not of the [T, S, A] sums, and what is left for each sum is five multiply-adds and a reciprocal. Each
// exponential is kept as two floats, high + low, so that m does not lose its last places where the product is near one;
// the error of tanh is that of a change of q and k in their last place, and two units in its own last place.
// Where an argument is beyond kMostFactored the product could overflow: those rows run numerics.h's tanh of the sum, as
// do machines without a fused multiply-add, on which the product would be rounded.
#include "additive_attention/additive_attention.h"
#include "common/device.h"
#include "common/numerics.h"

namespace {

using seqkit::AdditiveGradients;
using seqkit::AdditiveInputs;
using seqkit::AdditiveOutputs;
using seqkit::kDepthSlice;
using seqkit::kRowBlock;
using seqkit::kWidthSlice;

#if defined(__AVX2__) || defined(__AVX512F__)
constexpr float kMostFactored = 20.0f;
#else
constexpr float kMostFactored = -1.0f;  // never
#endif

// Register tiles: the AVX-512 machine has twice the registers.
constexpr int kKeys = kLanes == 16 ? 4 : 2;
constexpr int kColumns = kLanes == 16 ? 4 : 2;

SEQKIT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SEQKIT_INLINE int lanes_left(int64_t count) { return int(smaller(count, kLanes)); }
SEQKIT_INLINE int64_t vectors_of(int64_t count) { return (count + kLanes - 1) / kLanes; }
SEQKIT_INLINE int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

SEQKIT_INLINE int64_t length_of(const AdditiveInputs<float>& in, int64_t sentence) {
  return in.lengths ? in.lengths[sentence] : in.sources;
}

// ---- tanh of a sum from one factor of each summand ----

// exp(2x) = high + low, for |x| up to kMostFactored.
struct Factor {
  Vec high, low;
};

SEQKIT_INLINE Factor factor(Vec x) {
  const Vec rounder = splat(12582912.0f), twice = x + x;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec n = fma(twice, splat(1.44269504f), rounder) - rounder;
  Vec r = fma(n, splat(-0.693359375f), twice);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);  // as in numerics.h
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  const Vec change = fma(p, r * r, r);  // exp(r) - 1, and |change| < 1: the low part below is exact
  const Vec high = splat(1.0f) + change;
  const Vec low = (splat(1.0f) - high) + change;
#if defined(__AVX512F__)
  return {(Vec)_mm512_scalef_ps((__m512)high, (__m512)n), (Vec)_mm512_scalef_ps((__m512)low, (__m512)n)};
#else
  const VecInt bits = (__builtin_convertvector(n, VecInt) + 127) << 23;
  Vec power;
  std::memcpy(&power, &bits, sizeof power);
  return {high * power, low * power};
#endif
}

SEQKIT_INLINE Vec tanh_of_sum(const Factor& q, const Factor& k) {
  const Vec m = fma(q.high, k.low, fma(q.low, k.high, fma(q.high, k.high, splat(-1.0f))));
  const Vec below = m + splat(2.0f);
#if defined(__AVX512F__)
  const Vec inverse = (Vec)_mm512_rcp14_ps((__m512)below), h = m * inverse;
  return fma((Vec)_mm512_fnmadd_ps((__m512)below, (__m512)h, (__m512)m), inverse, h);
#else
  return m / below;
#endif
}

// One of the two ways to the tanh. A table holds two vectors for each vector of arguments: the factor, or the argument
// itself and nothing.
template <bool kFactored>
SEQKIT_INLINE Factor prepared(Vec x) {
  if constexpr (kFactored) {
    return factor(x);
  } else {
    return {x, Vec{}};
  }
}

template <bool kFactored>
SEQKIT_INLINE Vec energy(const Factor& q, const Factor& k) {
  if constexpr (kFactored) {
    return tanh_of_sum(q, k);
  } else {
    return tanh(q.high + k.high);
  }
}

SEQKIT_INLINE Factor load_factor(const float* table) { return {load(table), load(table + kLanes)}; }

SEQKIT_INLINE void store_factor(float* table, const Factor& value) {
  store(table, value.high);
  store(table + kLanes, value.low);
}

// Whether each of `rows` rows of `count` numbers can be factored.
bool can_be_factored(const float* from, int64_t row, int64_t rows, int64_t count) {
  if (kMostFactored < 0.0f) return false;
  VecInt beyond{};
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t a = 0; a < count; a += kLanes) {
      beyond |= magnitude(load_some(from + r * row + a, lanes_left(count - a))) > splat(kMostFactored);  // not NaN
    }
  }
  int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= beyond[lane];
  return any == 0;
}

void make_table(const float* from, int64_t count, float* table) {
  for (int64_t a = 0; a < count; a += kLanes) {
    store_factor(table + 2 * a, factor(load_some(from + a, lanes_left(count - a))));
  }
}

// ---- matrix products; each sum is one chain of multiply-adds in the order of k, or in lanes ----

// c[r][n] = sum over k of a[r][k] b[k][n].
struct Product {
  const float* a;  // element (r, k) at r * a_row + k * a_step
  int64_t a_row, a_step;
  const float* b;  // row k at k * b_row
  int64_t b_row;
  float* c;  // row r at r * c_row
  int64_t c_row;
  int64_t depth;
};

template <int kRows, int kVectors>
void product_tile(const Product& p, int64_t row, int64_t column, int last) {
  const float *a = p.a + row * p.a_row, *b = p.b + column;
  Vec sums[kRows][kVectors] = {};
  for (int64_t k = 0; k < p.depth; ++k) {
    Vec right[kVectors];
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n)
      right[n] = load_some(b + k * p.b_row + n * kLanes, kVectors == 1 ? last : kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Vec left = splat(a[r * p.a_row + k * p.a_step]);
#pragma GCC unroll 4
      for (int n = 0; n < kVectors; ++n) sums[r][n] = fma(left, right[n], sums[r][n]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int n = 0; n < kVectors; ++n) {
      store_some(p.c + (row + r) * p.c_row + column + n * kLanes, sums[r][n], kVectors == 1 ? last : kLanes);
    }
  }
}

template <int kRows>
SEQKIT_INLINE void product_rows(const Product& p, int64_t row, int64_t columns) {
  int64_t column = 0;
  for (; column + kColumns * kLanes <= columns; column += kColumns * kLanes) {
    product_tile<kRows, kColumns>(p, row, column, kLanes);
  }
  for (; column < columns; column += kLanes) product_tile<kRows, 1>(p, row, column, lanes_left(columns - column));
}

void multiply(const Product& p, int64_t rows, int64_t columns) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) product_rows<4>(p, row, columns);
  for (; row < rows; ++row) product_rows<1>(p, row, columns);
}

// to[r][c] = x(r) . y(c), rows of `count` numbers.
template <int kRows, int kOthers>
SEQKIT_INLINE void dot_tile(const float* x, const float* y, int64_t count, float* to, int64_t to_row) {
  Vec sums[kRows][kOthers] = {};
  for (int64_t d = 0; d < count; d += kLanes) {
    const int lanes = lanes_left(count - d);
    Vec right[kOthers];
#pragma GCC unroll 4
    for (int c = 0; c < kOthers; ++c) right[c] = load_some(y + c * count + d, lanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Vec left = load_some(x + r * count + d, lanes);
#pragma GCC unroll 4
      for (int c = 0; c < kOthers; ++c) sums[r][c] = fma(left, right[c], sums[r][c]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kOthers; ++c) to[r * to_row + c] = sum(sums[r][c]);
  }
}

template <int kRows>
SEQKIT_INLINE void dot_rows(const float* x, const float* y, int64_t others, int64_t count, float* to, int64_t to_row) {
  int64_t c = 0;
  for (; c + kKeys <= others; c += kKeys) dot_tile<kRows, kKeys>(x, y + c * count, count, to + c, to_row);
  for (; c < others; ++c) dot_tile<kRows, 1>(x, y + c * count, count, to + c, to_row);
}

// ---- forward ----

// The scores of kRows queries and kCount keys.
template <int kRows, int kCount>
void score_tile(const float* queries, const float* keys, const float* v, int64_t vectors, float* to, int64_t to_row) {
  const int64_t table_row = 2 * vectors * kLanes;
  Vec totals[kRows][kCount] = {};
  for (int64_t n = 0; n < vectors; ++n) {
    const Vec factor_of_v = load(v + n * kLanes);
    Factor k[kCount];
#pragma GCC unroll 4
    for (int c = 0; c < kCount; ++c) k[c] = load_factor(keys + c * table_row + 2 * n * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Factor q = load_factor(queries + r * table_row + 2 * n * kLanes);
#pragma GCC unroll 4
      for (int c = 0; c < kCount; ++c) totals[r][c] = fma(factor_of_v, tanh_of_sum(q, k[c]), totals[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kCount; ++c) to[r * to_row + c] = sum(totals[r][c]);
  }
}

template <int kRows>
SEQKIT_INLINE void score_rows(const float* queries, const float* keys, int64_t count, const float* v, int64_t vectors,
                              float* to, int64_t to_row) {
  switch (count) {
    case 1:
      return score_tile<kRows, 1>(queries, keys, v, vectors, to, to_row);
    case 2:
      return score_tile<kRows, 2>(queries, keys, v, vectors, to, to_row);
    case 3:
      return score_tile<kRows, 3>(queries, keys, v, vectors, to, to_row);
    default:
      return score_tile<kRows, 4>(queries, keys, v, vectors, to, to_row);
  }
}

// One score from the arguments themselves.
float direct_score(const float* query, const float* key, const float* v, int64_t depth) {
  Vec total{};
  for (int64_t a = 0; a < depth; a += kLanes) {
    const int count = lanes_left(depth - a);
    total = fma(load(v + a), tanh(load_some(query + a, count) + load_some(key + a, count)), total);
  }
  return sum(total);
}

// The softmax of a row in place; what is beyond the length becomes zero.
void softmax(float* row, int64_t length, int64_t sources) {
  float largest = -__builtin_inff();
  for (int64_t s = 0; s < length; ++s) largest = row[s] > largest ? row[s] : largest;
  Vec totals{};
  for (int64_t s = 0; s < length; s += kLanes) {
    const int count = lanes_left(length - s);
    store_some(row + s, exp(load_some(row + s, count) - splat(largest)), count);
    totals = totals + load_some(row + s, count);
  }
  const Vec total = splat(sum(totals));
  for (int64_t s = 0; s < length; s += kLanes) {
    const int count = lanes_left(length - s);
    store_some(row + s, load_some(row + s, count) / total, count);
  }
  for (int64_t s = length; s < sources; ++s) row[s] = 0.0f;
}

// The rows of a sentence that a unit stands for.
struct Rows {
  int64_t sentence, first, count;
};

SEQKIT_INLINE Rows rows_of(const AdditiveInputs<float>& in, int64_t unit) {
  const int64_t blocks = blocks_of(in.targets, kRowBlock), first = unit % blocks * kRowBlock;
  return {unit / blocks, first, smaller(kRowBlock, in.targets - first)};
}

// ---- backward ----

// Vectors [column, column + kVectors * kLanes) of grad_query, grad_keys and grad_v_parts of a sentence, a tile of two
// queries against each key in turn. Of each (t, a) the sum over s is in registers; of each (s, a) the sum over t is in
// `key_sums`, in the order of t.
template <bool kFactored, int kVectors>
void strip(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads, int64_t sentence, int64_t column,
           float* scratch) {
  constexpr int kQueries = 2;
  const int64_t length = length_of(in, sentence);
  const int last = lanes_left(in.depth - column - (kVectors - 1) * kLanes);
  const auto lanes = [last](int n) { return n == kVectors - 1 ? last : kLanes; };
  float *tables = scratch, *key_sums = scratch + 2 * kVectors * kLanes * length;
  const float* keys = in.keys + sentence * in.sources * in.depth + column;
  for (int64_t s = 0; s < length; ++s) {
    for (int n = 0; n < kVectors; ++n) {
      const Vec x = load_some(keys + s * in.depth + n * kLanes, lanes(n));
      store_factor(tables + 2 * (s * kVectors + n) * kLanes, prepared<kFactored>(x));
      store(key_sums + (s * kVectors + n) * kLanes, Vec{});
    }
  }

  Vec v[kVectors], v_sums[kVectors] = {};
  for (int n = 0; n < kVectors; ++n) v[n] = load_some(in.v + column + n * kLanes, lanes(n));
  const auto rows = [&]<int kRows>(int64_t t) {
    const int64_t row = sentence * in.targets + t;
    Factor q[kRows][kVectors];
    Vec q_sums[kRows][kVectors] = {}, own_v_sums[kVectors] = {};
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) {
        const float* from = in.query + (row + r) * in.depth + column + n * kLanes;
        q[r][n] = prepared<kFactored>(load_some(from, lanes(n)));
      }
    }
    const float* grad_scores = grads.grad_scores + row * in.sources;
    for (int64_t s = 0; s < length; ++s) {
      Vec g[kRows];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) g[r] = splat(grad_scores[r * in.sources + s]);
#pragma GCC unroll 2
      for (int n = 0; n < kVectors; ++n) {
        const Factor k = load_factor(tables + 2 * (s * kVectors + n) * kLanes);
        Vec key_sum = load(key_sums + (s * kVectors + n) * kLanes);
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) {
          const Vec h = energy<kFactored>(q[r][n], k), slope = fma(-h, h, splat(1.0f));
          q_sums[r][n] = fma(g[r], slope, q_sums[r][n]);
          key_sum = fma(g[r], slope, key_sum);
          own_v_sums[n] = fma(g[r], h, own_v_sums[n]);
        }
        store(key_sums + (s * kVectors + n) * kLanes, key_sum);
      }
    }
#pragma GCC unroll 2
    for (int n = 0; n < kVectors; ++n) {
      v_sums[n] = v_sums[n] + own_v_sums[n];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        store_some(grads.grad_query + (row + r) * in.depth + column + n * kLanes, v[n] * q_sums[r][n], lanes(n));
      }
    }
  };
  int64_t t = 0;
  for (; t + kQueries <= in.targets; t += kQueries) rows.template operator()<kQueries>(t);
  for (; t < in.targets; ++t) rows.template operator()<1>(t);

  float* grad_keys = grads.grad_keys + sentence * in.sources * in.depth + column;
  for (int n = 0; n < kVectors; ++n) {
    for (int64_t s = 0; s < in.sources; ++s) {
      const Vec value = s < length ? v[n] * load(key_sums + (s * kVectors + n) * kLanes) : Vec{};
      store_some(grad_keys + s * in.depth + n * kLanes, value, lanes(n));
    }
    store_some(grads.grad_v_parts + sentence * in.depth + column + n * kLanes, v_sums[n], lanes(n));
  }
}

template <bool kFactored>
void strips(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads, int64_t sentence, int64_t begin,
            int64_t end, float* scratch) {
  int64_t column = begin;
  for (; column + kLanes < end; column += 2 * kLanes) strip<kFactored, 2>(in, grads, sentence, column, scratch);
  if (column < end) strip<kFactored, 1>(in, grads, sentence, column, scratch);
}

}  // namespace

namespace seqkit {

void SEQKIT_AT_LEVEL(additive_forward)(const AdditiveInputs<float>& in, const AdditiveOutputs<float>& out, int64_t unit,
                                       float* scratch) {
  const Rows rows = rows_of(in, unit);
  const int64_t length = length_of(in, rows.sentence), vectors = vectors_of(in.depth), table_row = 2 * vectors * kLanes;
  float *v = scratch, *key_tables = v + vectors * kLanes, *query_tables = key_tables + kKeys * table_row;
  for (int64_t a = 0; a < in.depth; a += kLanes) store(v + a, load_some(in.v + a, lanes_left(in.depth - a)));

  const int64_t row = rows.sentence * in.targets + rows.first;
  const float* queries = in.query + row * in.depth;
  bool factored[kRowBlock];
  for (int64_t t = 0; t < rows.count; ++t) {
    factored[t] = can_be_factored(queries + t * in.depth, 0, 1, in.depth);
    if (factored[t]) make_table(queries + t * in.depth, in.depth, query_tables + t * table_row);
  }

  // Scores, in the place of the weights. A group of keys starts at a multiple of kKeys: whether it is factored depends
  // on nothing but the keys that the row counts.
  float* weights = out.weights + row * in.sources;
  for (int64_t s = 0; s < length; s += kKeys) {
    const int64_t count = smaller(kKeys, length - s);
    const float* keys = in.keys + (rows.sentence * in.sources + s) * in.depth;
    const bool group_factored = can_be_factored(keys, in.depth, count, in.depth);
    for (int64_t c = 0; group_factored && c < count; ++c) {
      make_table(keys + c * in.depth, in.depth, key_tables + c * table_row);
    }
    for (int64_t t = 0; t < rows.count;) {
      float* to = weights + t * in.sources + s;
      if (!group_factored || !factored[t]) {
        for (int64_t c = 0; c < count; ++c) {
          to[c] = direct_score(queries + t * in.depth, keys + c * in.depth, v, in.depth);
        }
        t += 1;
      } else if (t + 1 < rows.count && factored[t + 1]) {
        score_rows<2>(query_tables + t * table_row, key_tables, count, v, vectors, to, in.sources);
        t += 2;
      } else {
        score_rows<1>(query_tables + t * table_row, key_tables, count, v, vectors, to, in.sources);
        t += 1;
      }
    }
  }

  for (int64_t t = 0; t < rows.count; ++t) softmax(weights + t * in.sources, length, in.sources);
  multiply({.a = weights,
            .a_row = in.sources,
            .a_step = 1,
            .b = in.values + rows.sentence * in.sources * in.width,
            .b_row = in.width,
            .c = out.context + row * in.width,
            .c_row = in.width,
            .depth = length},
           rows.count, in.width);
}

void SEQKIT_AT_LEVEL(additive_backward_scores)(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads,
                                               int64_t unit) {
  const Rows rows = rows_of(in, unit);
  const int64_t length = length_of(in, rows.sentence), row = rows.sentence * in.targets + rows.first;
  const float* values = in.values + rows.sentence * in.sources * in.width;
  const float* grad_context = grads.grad_context + row * in.width;
  float* to = grads.grad_scores + row * in.sources;
  int64_t t = 0;
  for (; t + 4 <= rows.count; t += 4) {
    dot_rows<4>(grad_context + t * in.width, values, length, in.width, to + t * in.sources, in.sources);
  }
  for (; t < rows.count; ++t) {
    dot_rows<1>(grad_context + t * in.width, values, length, in.width, to + t * in.sources, in.sources);
  }

  for (t = 0; t < rows.count; ++t) {
    const float* weights = grads.weights + (row + t) * in.sources;
    const float* grad_weights = grads.grad_weights ? grads.grad_weights + (row + t) * in.sources : nullptr;
    float* slopes = to + t * in.sources;
    Vec means{};
    for (int64_t s = 0; s < length; s += kLanes) {
      const int count = lanes_left(length - s);
      Vec slope = load_some(slopes + s, count);
      if (grad_weights) slope = slope + load_some(grad_weights + s, count);
      means = fma(load_some(weights + s, count), slope, means);
      store_some(slopes + s, slope, count);
    }
    const Vec mean = splat(sum(means));
    for (int64_t s = 0; s < length; s += kLanes) {
      const int count = lanes_left(length - s);
      store_some(slopes + s, load_some(weights + s, count) * (load_some(slopes + s, count) - mean), count);
    }
  }
}

void SEQKIT_AT_LEVEL(additive_backward_energies)(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads,
                                                 int64_t unit, float* scratch) {
  const int64_t slices = blocks_of(in.depth, kDepthSlice), sentence = unit / slices;
  const int64_t begin = unit % slices * kDepthSlice, end = smaller(begin + kDepthSlice, in.depth);
  const float* queries = in.query + sentence * in.targets * in.depth + begin;
  const float* keys = in.keys + sentence * in.sources * in.depth + begin;
  if (can_be_factored(queries, in.depth, in.targets, end - begin) &&
      can_be_factored(keys, in.depth, length_of(in, sentence), end - begin)) {
    strips<true>(in, grads, sentence, begin, end, scratch);
  } else {
    strips<false>(in, grads, sentence, begin, end, scratch);
  }
}

void SEQKIT_AT_LEVEL(additive_backward_values)(const AdditiveInputs<float>& in, const AdditiveGradients<float>& grads,
                                               int64_t unit) {
  const int64_t slices = blocks_of(in.width, kWidthSlice), sentence = unit / slices;
  const int64_t begin = unit % slices * kWidthSlice, end = smaller(begin + kWidthSlice, in.width);
  const int64_t length = length_of(in, sentence);
  float* to = grads.grad_values + sentence * in.sources * in.width + begin;
  multiply({.a = grads.weights + sentence * in.targets * in.sources,
            .a_row = 1,
            .a_step = in.sources,
            .b = grads.grad_context + sentence * in.targets * in.width + begin,
            .b_row = in.width,
            .c = to,
            .c_row = in.width,
            .depth = in.targets},
           length, end - begin);
  for (int64_t s = length; s < in.sources; ++s) {
    std::memset(to + s * in.width, 0, static_cast<size_t>(end - begin) * sizeof(float));
  }
}

}  // namespace seqkit
