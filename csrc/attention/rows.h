// What one query row sees and which of its weights are dropped: shared by every kernel, with internal linkage.
#pragma once

#include <cstdint>

#include "attention/attention.h"

#ifdef __CUDACC__
#define SEQKIT_ALSO_ON_DEVICE __host__ __device__
#else
#define SEQKIT_ALSO_ON_DEVICE
#endif

namespace {

inline __attribute__((always_inline)) int64_t query_count(const seqkit::AttentionShape& shape, int64_t sentence) {
  return shape.q_lengths ? shape.q_lengths[sentence] : shape.targets;
}

inline __attribute__((always_inline)) int64_t key_count(const seqkit::AttentionShape& shape, int64_t sentence) {
  return shape.k_lengths ? shape.k_lengths[sentence] : shape.sources;
}

inline __attribute__((always_inline)) int64_t query_position(const seqkit::AttentionShape& shape, int64_t row) {
  return shape.causal ? row + shape.sources - shape.targets : row;
}

inline __attribute__((always_inline)) seqkit::KeyRange keys_seen(const seqkit::AttentionShape& shape, int64_t sentence,
                                                                 int64_t row) {
  if (row >= query_count(shape, sentence)) return {0, 0};
  const int64_t position = query_position(shape, row);
  int64_t begin = 0;
  int64_t end = key_count(shape, sentence);
  if (shape.causal && position + 1 < end) end = position + 1;
  if (shape.window >= 0) {
    const int64_t first = shape.causal ? position - shape.window + 1 : position - shape.window;
    if (first > begin) begin = first;
    if (!shape.causal && position + shape.window + 1 < end) end = position + shape.window + 1;
  }
  if (end <= begin) return {0, 0};
  return {begin, end};
}

// The rows of the largest block, and a part of a CPU kernel's scratch in whole cache lines of floats.
inline __attribute__((always_inline)) int64_t row_capacity(const seqkit::AttentionShape& shape) {
  return shape.targets < seqkit::kRowBlock ? shape.targets : seqkit::kRowBlock;
}

inline __attribute__((always_inline)) int64_t whole_lines(int64_t floats) { return (floats + 15) / 16 * 16; }

// Philox 4x32 with ten rounds (Salmon et al. 2011, section 4.1): four random words for each counter and key.
// The counter is (lane, row, head of all heads, 0), where key j has lane j % 16 + 16 (j / 64) and word (j % 64) / 16.
constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u, kPhiloxMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 10;

struct RandomWords {
  uint32_t first, second, third, fourth;
};

inline __attribute__((always_inline)) SEQKIT_ALSO_ON_DEVICE RandomWords random_words(uint64_t seed, uint32_t head,
                                                                                     uint32_t row, uint32_t lane) {
  RandomWords x{lane, row, head, 0};
  uint32_t low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t a = static_cast<uint64_t>(kPhiloxMultiplier0) * x.first;
    const uint64_t b = static_cast<uint64_t>(kPhiloxMultiplier1) * x.third;
    x = {static_cast<uint32_t>(b >> 32) ^ x.second ^ low, static_cast<uint32_t>(b),
         static_cast<uint32_t>(a >> 32) ^ x.fourth ^ high, static_cast<uint32_t>(a)};
    low += kPhiloxWeyl0;
    high += kPhiloxWeyl1;
  }
  return x;
}

inline __attribute__((always_inline)) SEQKIT_ALSO_ON_DEVICE uint32_t random_word(uint64_t seed, uint32_t head,
                                                                                 uint32_t row, int64_t key) {
  const RandomWords words = random_words(seed, head, row, static_cast<uint32_t>(key % 16 + key / 64 * 16));
  const int64_t word = key % 64 / 16;
  return word < 2 ? (word == 0 ? words.first : words.second) : (word == 2 ? words.third : words.fourth);
}

}  // namespace
