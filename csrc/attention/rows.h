// What one query row sees and which of its weights are dropped: shared by every kernel, with internal linkage.
#pragma once

#include <cstdint>

#include "attention/attention.h"

namespace {

inline __attribute__((always_inline)) int64_t query_count(const seqkit::AttentionShape& shape, int64_t sentence) {
  return shape.q_lengths ? shape.q_lengths[sentence] : shape.targets;
}

inline __attribute__((always_inline)) int64_t query_position(const seqkit::AttentionShape& shape, int64_t row) {
  return shape.causal ? row + shape.sources - shape.targets : row;
}

inline __attribute__((always_inline)) seqkit::KeyRange keys_seen(const seqkit::AttentionShape& shape, int64_t sentence,
                                                                 int64_t row) {
  if (row >= query_count(shape, sentence)) return {0, 0};
  const int64_t position = query_position(shape, row);
  int64_t begin = 0;
  int64_t end = shape.k_lengths ? shape.k_lengths[sentence] : shape.sources;
  if (shape.causal && position + 1 < end) end = position + 1;
  if (shape.window >= 0) {
    const int64_t first = shape.causal ? position - shape.window + 1 : position - shape.window;
    if (first > begin) begin = first;
    if (!shape.causal && position + shape.window + 1 < end) end = position + shape.window + 1;
  }
  if (end <= begin) return {0, 0};
  return {begin, end};
}

// Philox 4x32 with ten rounds (Salmon et al. 2011, section 4.1): four random words for each counter and key.
// The counter is (lane, row, head of all heads, 0), where key j has lane j % 16 + 16 (j / 64) and word (j % 64) / 16.
constexpr uint32_t kPhiloxMultiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
constexpr uint32_t kPhiloxWeyl[2] = {0x9E3779B9u, 0xBB67AE85u};
constexpr int kPhiloxRounds = 10;

inline __attribute__((always_inline)) uint32_t random_word(uint64_t seed, uint32_t head, uint32_t row, int64_t key) {
  uint32_t x[4] = {static_cast<uint32_t>(key % 16 + key / 64 * 16), row, head, 0};
  uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t first = static_cast<uint64_t>(kPhiloxMultiplier[0]) * x[0];
    const uint64_t second = static_cast<uint64_t>(kPhiloxMultiplier[1]) * x[2];
    const uint32_t next[4] = {static_cast<uint32_t>(second >> 32) ^ x[1] ^ low, static_cast<uint32_t>(second),
                              static_cast<uint32_t>(first >> 32) ^ x[3] ^ high, static_cast<uint32_t>(first)};
    for (int word = 0; word < 4; ++word) x[word] = next[word];
    low += kPhiloxWeyl[0];
    high += kPhiloxWeyl[1];
  }
  return x[key % 64 / 16];
}

}  // namespace
