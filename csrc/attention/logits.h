// From products to logits and weights on CUDA: what a query sees, bias, slopes and dropout, in the layout of tiles.h.
//
// A logit is kept in units of log 2, so that a weight is one exp2f away.
#pragma once

#include "attention/attention.h"
#include "attention/rows.h"
#include "attention/tiles.h"

namespace seqkit {
namespace {

constexpr float kLog2E = 1.4426950408889634f;
constexpr int kFar = 1 << 29;  // beyond every distance: no side is longer than 2^28

// The keys that the queries of one sentence see: query i sees key j if both count and low <= j - p <= high, where
// p = i + offset.
struct Scope {
  int queries, keys;  // that count
  int offset, low, high;

  SEQKIT_DEVICE int distance(int query, int key) const { return key - query - offset; }

  SEQKIT_DEVICE bool sees(int query, int key) const {
    const int d = distance(query, key);
    return query < queries && key < keys && d >= low && d <= high;
  }

  // Whether every one of these queries sees every one of these keys.
  SEQKIT_DEVICE bool sees_all(int query, int n_queries, int key, int n_keys) const {
    return query + n_queries <= queries && key + n_keys <= keys && distance(query + n_queries - 1, key) >= low &&
           distance(query, key + n_keys - 1) <= high;
  }

  // The keys from the first to beyond the last that any of these queries can see, and the other way round.
  SEQKIT_DEVICE int first_key(int query) const { return max(0, query + offset + low); }
  SEQKIT_DEVICE int end_key(int last_query) const { return min(keys, last_query + offset + high + 1); }
  SEQKIT_DEVICE int first_query(int key) const { return max(0, key - offset - high); }
  SEQKIT_DEVICE int end_query(int last_key) const { return min(queries, last_key - offset - low + 1); }
};

SEQKIT_DEVICE int clamped(const int64_t* lengths, int sentence, int64_t longest) {
  return static_cast<int>(lengths ? max(int64_t{0}, min(lengths[sentence], longest)) : longest);
}

SEQKIT_DEVICE Scope scope_of(const AttentionShape& shape, int sentence) {
  const int reach = shape.window < 0 ? kFar : static_cast<int>(min(shape.window, int64_t{kFar}));
  return {.queries = clamped(shape.q_lengths, sentence, shape.targets),
          .keys = clamped(shape.k_lengths, sentence, shape.sources),
          .offset = shape.causal ? static_cast<int>(shape.sources - shape.targets) : 0,
          .low = shape.causal && shape.window >= 0 ? 1 - reach : -reach,
          .high = shape.causal ? 0 : reach};
}

// What stands between products and weights for one head of one sentence. Most calls have no bias, slopes or dropout:
// kPlain says so to the compiler, which needs a quarter fewer registers then.
template <typename Number, bool kPlain>
struct Logits {
  Scope scope;
  float scale;  // as the slope in units of log 2
  int64_t bias_row, bias_key;
  uint32_t drop_below;
  uint64_t seed;
  // Of a head:
  const Number* bias = nullptr;  // of query 0 and key 0, or null
  float slope = 0.0f;
  uint32_t head = 0;

  SEQKIT_DEVICE void move_to(const AttentionShape& shape, const AttentionInputs<Number>& in, int sentence, int to) {
    if (in.bias) bias = in.bias + sentence * in.bias_strides.batch + to * in.bias_strides.head;
    if (in.slopes) slope = in.slopes[to] * kLog2E;
    head = static_cast<uint32_t>(sentence * shape.heads + to);
  }

  // The logit of one product; -inf where the query does not see the key.
  SEQKIT_DEVICE float of(float product, int query, int key, bool all_seen) const {
    if (!all_seen && !scope.sees(query, key)) return -INFINITY;
    float logit = product * scale;
    if constexpr (kPlain) return logit;
    if (slope != 0.0f) logit -= slope * abs(scope.distance(query, key));
    if (bias) logit += to_float(bias[query * bias_row + key * bias_key]) * kLog2E;
    return logit;
  }

  SEQKIT_DEVICE bool drops_any() const { return !kPlain && drop_below != 0; }

  // 1 if the weight is kept, 0 if it is dropped.
  SEQKIT_DEVICE float keeps(int query, int key) const {
    return random_word(seed, head, static_cast<uint32_t>(query), key) < drop_below ? 0.0f : 1.0f;
  }
};

template <bool kPlain, typename Number>
SEQKIT_DEVICE Logits<Number, kPlain> logits_of(const AttentionShape& shape, const AttentionInputs<Number>& in,
                                               int sentence, int head) {
  Logits<Number, kPlain> logits{.scope = scope_of(shape, sentence),
                                .scale = static_cast<float>(shape.scale) * kLog2E,
                                .bias_row = in.bias_strides.row,
                                .bias_key = in.bias_key_stride,
                                .drop_below = shape.drop_below,
                                .seed = shape.seed};
  logits.move_to(shape, in, sentence, head);
  return logits;
}

// One over the share of weights that dropout keeps.
SEQKIT_DEVICE float kept_factor(uint32_t drop_below) {
  return 1.0f / (1.0f - static_cast<float>(drop_below) * 0x1p-32f);
}

}  // namespace

// ---- on the host: from the types of attention.h to those of CUDA ----

template <typename Number>
struct OnDevice {
  using Type = Number;
};
template <>
struct OnDevice<Half> {
  using Type = __half;
};
template <>
struct OnDevice<Bfloat16> {
  using Type = __nv_bfloat16;
};

// The same pointers, seen as pointers to CUDA's numbers.
template <typename To, typename From>
To seen_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From) && std::is_trivially_copyable_v<To> && std::is_trivially_copyable_v<From>);
  To to;
  std::memcpy(static_cast<void*>(&to), &from, sizeof to);
  return to;
}

// Calls run(width) with the width of the tiles, a constant.
template <typename Run>
void for_tile_width(const AttentionShape& shape, const Run& run) {
  const int64_t widest = shape.width > shape.value_width ? shape.width : shape.value_width;
  if (widest <= 64) {
    run(std::integral_constant<int, 64>());
  } else if (widest <= 128) {
    run(std::integral_constant<int, 128>());
  } else {
    run(std::integral_constant<int, 256>());
  }
}

// Whether all rows can be copied by 16 bytes.
inline bool is_chunked(const void* first, const Strides& strides, int64_t width, int64_t bytes) {
  const int64_t sizes = strides.batch | strides.head | strides.row | width;
  return reinterpret_cast<uintptr_t>(first) % 16 == 0 && sizes * bytes % 16 == 0;
}

template <typename Number>
bool is_plain(const AttentionShape& shape, const AttentionInputs<Number>& in) {
  return !in.bias && !in.slopes && shape.drop_below == 0;
}

// Which of a call's rows can.
struct Chunked {
  bool q, k, v, out;
};

template <typename Number>
Chunked chunked_of(const AttentionShape& shape, const AttentionInputs<Number>& in, const void* out) {
  constexpr int64_t kBytes = sizeof(Number);
  const Strides dense{0, shape.value_width, shape.heads * shape.value_width};
  return {.q = is_chunked(in.q, in.q_strides, shape.width, kBytes),
          .k = is_chunked(in.k, in.k_strides, shape.width, kBytes),
          .v = is_chunked(in.v, in.v_strides, shape.value_width, kBytes),
          .out = is_chunked(out, dense, shape.value_width, kBytes)};
}

}  // namespace seqkit
