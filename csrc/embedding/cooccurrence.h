// How often words stand near each other: each pair of words of a sentence at most `window` words apart counts 1 over
// its distance, in both orders.
//
// The counts are symmetric, so a pair i <= j is kept once: the count of (i, j) and of (j, i), and for i = j what both
// orders give together. Words that the vocabulary leaves out do not add to the distance.
//
// Words are numbered by falling count, so pairs whose ranks have a small product are the frequent ones: they have a
// cell each in a dense block. The others are events of eight bytes, which a thread sorts and adds up when its buffer is
// full; the sorted runs lie in a temporary file and are merged with the block when they are read.
//
// Counts are whole numbers of units of 1 / 55440, the smallest that divides by all distances up to 12: their sum does
// not depend on the order, and so not on the number of threads. A longer distance is rounded to the next unit.
//
// Reference: Pennington et al. 2014, section 4.2, D14-1162.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "embedding/corpus.h"

namespace seqkit::embedding {

constexpr int64_t kUnits = 55440;  // of a count of 1
constexpr int64_t kWordBits = 24;  // of a word's number

struct CooccurrenceOptions {
  int64_t window;
  int64_t memory;  // bytes of block and buffers, 0: half a gigabyte is taken as given
  int64_t threads;
};

class Cooccurrence {
 public:
  Cooccurrence(const CooccurrenceOptions& options, const Corpus& corpus, const std::string& temporary_folder);

  // Calls back with every pair i <= j and its units, in rising order. May be called once: it frees the block.
  void read(const std::function<void(int32_t i, int32_t j, int64_t units)>& pair);
  // At least as many as there are pairs.
  int64_t most_pairs() const;

 private:
  struct DenseRow {
    int64_t base;  // cell of (i, j) is base + j
    int64_t end;   // for j < end
  };
  struct Run {
    int64_t at, size;
  };
  struct Worker;

  void lay_block(int64_t cells);
  template <bool kShared>
  void count_chunk(Worker& worker, const int32_t* ids, int64_t size);
  void carry(int32_t i, int32_t j);
  void close_run(Worker& worker);

  CooccurrenceOptions options_;
  int64_t vocabulary_;
  std::vector<uint32_t> unit_;  // of each distance
  std::vector<DenseRow> rows_;
  std::unique_ptr<uint32_t[], void (*)(void*)> block_;
  int64_t cells_ = 0;
  std::unordered_map<uint64_t, int64_t> carried_;  // what a cell of the block could not hold
  TemporaryFile file_;
  std::vector<Run> runs_;
  int64_t file_size_ = 0;
  std::mutex mutex_;
};

}  // namespace seqkit::embedding
