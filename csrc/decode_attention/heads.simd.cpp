// Some heads of one sentence of decode_attention.h, once per machine level.
#include "common/device.h"
#include "common/numerics.h"
#include "decode_attention/decode_attention.h"

namespace {

constexpr int64_t kBlock = 16;  // positions that all beams and heads take before the next

SEQKIT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

SEQKIT_INLINE int lanes_left(int64_t left) { return left < kLanes ? int(left) : kLanes; }

// Lane r is the sum of the lanes of rows[r], added in the order of `sum`: lane i meets lane i + half.
SEQKIT_INLINE Vec sums_of(Vec (&rows)[kLanes]) {
#pragma GCC unroll 5
  for (int half = kLanes / 2; half > 0; half /= 2) {
    VecInt own{}, other{};
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) {
      own[lane] = lane & half ? kLanes + lane : lane;
      other[lane] = lane & half ? kLanes + lane - half : lane + half;
    }
#pragma GCC unroll 16
    for (int row = 0; row < half; ++row) {
      const Vec a = rows[row], b = rows[row + half];
#if defined(__clang__)
      for (int lane = 0; lane < kLanes; ++lane) {
        rows[row][lane] = lane & half ? b[lane] + b[lane - half] : a[lane] + a[lane + half];
      }
#else
      rows[row] = __builtin_shuffle(a, b, own) + __builtin_shuffle(a, b, other);
#endif
    }
  }
  return rows[0];
}

// to[r] = query . row r for the first `count` rows, -infinity in the other lanes.
SEQKIT_INLINE void products(const float* query, const float* base, const int64_t* offsets, int count, int64_t width,
                            float* to) {
  Vec partial[kLanes];
  if (count == kLanes) {
#pragma GCC unroll 16
    for (int r = 0; r < kLanes; ++r) {
      const float* row = base + offsets[r];
      Vec total{};
      for (int64_t d = 0; d < width; d += kLanes) {
        const int across = lanes_left(width - d);
        total = fma(load_some(query + d, across), load_some(row + d, across), total);
      }
      partial[r] = total;
    }
    store(to, sums_of(partial));
    return;
  }
  for (int r = 0; r < kLanes; ++r) {
    Vec total{};
    for (int64_t d = 0; r < count && d < width; d += kLanes) {
      const int across = lanes_left(width - d);
      total = fma(load_some(query + d, across), load_some(base + offsets[r] + d, across), total);
    }
    partial[r] = total;
  }
  store(to, sums_of(partial));
  for (int r = count; r < kLanes; ++r) to[r] = -__builtin_inff();
}

SEQKIT_INLINE void products_of_block(const float* query, const float* base, const int64_t* offsets, int64_t count,
                                     int64_t width, float* to) {
  for (int64_t t = 0; t < count; t += kLanes) {
    // A width that the compiler knows keeps the query in registers.
    if (width == 64) {
      products(query, base, offsets + t, lanes_left(count - t), 64, to + t);
    } else {
      products(query, base, offsets + t, lanes_left(count - t), width, to + t);
    }
  }
}

// Logits to weights, in place; the lanes beyond `count` hold -infinity and become zero.
SEQKIT_INLINE void soften(float* row, int64_t count) {
  Vec largest = splat(-__builtin_inff());
  for (int64_t t = 0; t < count; t += kLanes) {
    const Vec logit = load(row + t);
    largest = logit > largest ? logit : largest;
  }
  float lanes[kLanes];
  store(lanes, largest);
  for (int lane = 1; lane < kLanes; ++lane) lanes[0] = lanes[lane] > lanes[0] ? lanes[lane] : lanes[0];
  const Vec top = splat(lanes[0]);
  Vec totals{};
  for (int64_t t = 0; t < count; t += kLanes) {
    const Vec weight = exp(load(row + t) - top);
    store(row + t, weight);
    totals = totals + weight;
  }
  const Vec inverse = splat(1.0f / sum(totals));
  for (int64_t t = 0; t < count; t += kLanes) store(row + t, load(row + t) * inverse);
}

// sums[d] += sum_r weights[r] row_r[d] over kVectors vectors, in the order of r.
template <int kVectors>
SEQKIT_INLINE void add_columns(const float* weights, const float* base, const int64_t* offsets, int64_t count, int last,
                               float* sums) {
  Vec totals[kVectors];
#pragma GCC unroll 8
  for (int n = 0; n < kVectors; ++n) totals[n] = load_some(sums + n * kLanes, n == kVectors - 1 ? last : kLanes);
  for (int64_t r = 0; r < count; ++r) {
    const Vec weight = splat(weights[r]);
    const float* row = base + offsets[r];
#pragma GCC unroll 8
    for (int n = 0; n < kVectors; ++n) {
      totals[n] = fma(weight, load_some(row + n * kLanes, n == kVectors - 1 ? last : kLanes), totals[n]);
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < kVectors; ++n) store_some(sums + n * kLanes, totals[n], n == kVectors - 1 ? last : kLanes);
}

SEQKIT_INLINE void add_values(const float* weights, const float* base, const int64_t* offsets, int64_t count,
                              int64_t width, float* sums) {
  int64_t d = 0;
  for (; d + 8 * kLanes <= width; d += 8 * kLanes) {
    add_columns<8>(weights, base + d, offsets, count, kLanes, sums + d);
  }
  for (; d + 4 * kLanes <= width; d += 4 * kLanes) {
    add_columns<4>(weights, base + d, offsets, count, kLanes, sums + d);
  }
  for (; d < width; d += kLanes) {
    add_columns<1>(weights, base + d, offsets, count, lanes_left(width - d), sums + d);
  }
}

}  // namespace

namespace seqkit {

// offsets: [tables][count] of the keys, then of the values, with one table a beam, or one for all without ancestry.
// scratch: a beam and head, the query times the scale, the sum of the values and the logits.
void SEQKIT_AT_LEVEL(decode_heads)(const DecodeAttention& call, int64_t sentence, int64_t first_head, int64_t last_head,
                                   int64_t count, const int64_t* offsets, float* scratch) {
  const int64_t heads = last_head - first_head, rows = heads * call.beams, width = call.width;
  const int64_t padded = (call.capacity + 15) / 16 * 16;
  const int64_t table = call.ancestry ? count : 0;
  const int64_t* value_offsets = offsets + (call.ancestry ? call.beams : 1) * count;
  const float* q = static_cast<const float*>(call.q) + sentence * call.q_strides.batch;
  const float* k = static_cast<const float*>(call.k) + sentence * call.k_strides.batch;
  const float* v = static_cast<const float*>(call.v) + sentence * call.v_strides.batch;
  float* queries = scratch;              // [heads][K][Dh]
  float* sums = queries + rows * width;  // [heads][K][Dh]
  float* logits = sums + rows * width;   // [heads][K][padded]
  const Vec scale = splat(float(call.scale));

  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = first_head + row / call.beams, beam = row % call.beams;
    const float* from = q + beam * call.q_strides.beam + head * call.q_strides.head;
    for (int64_t d = 0; d < width; d += kLanes) {
      const int across = lanes_left(width - d);
      store_some(queries + row * width + d, load_some(from + d, across) * scale, across);
      store_some(sums + row * width + d, Vec{}, across);
    }
  }
  for (int64_t t = 0; t < count; t += kBlock) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t head = first_head + row / call.beams, beam = row % call.beams;
      products_of_block(queries + row * width, k + head * call.k_strides.head, offsets + beam * table + t,
                        smaller(kBlock, count - t), width, logits + row * padded + t);
    }
  }
  for (int64_t row = 0; row < rows && count > 0; ++row) soften(logits + row * padded, count);
  for (int64_t t = 0; t < count; t += kBlock) {
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t head = first_head + row / call.beams, beam = row % call.beams;
      add_values(logits + row * padded + t, v + head * call.v_strides.head, value_offsets + beam * table + t,
                 smaller(kBlock, count - t), width, sums + row * width);
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = first_head + row / call.beams, beam = row % call.beams;
    const int64_t to = (sentence * call.beams + beam) * call.heads + head;
    std::memcpy(static_cast<float*>(call.out) + to * width, sums + row * width, width * sizeof(float));
    if (call.weights) {
      float* weights = static_cast<float*>(call.weights) + to * call.capacity;
      std::memcpy(weights, logits + row * padded, count * sizeof(float));
      std::memset(weights + count, 0, (call.capacity - count) * sizeof(float));
    }
  }
}

}  // namespace seqkit
