#include "embedding/cooccurrence.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <new>
#include <stdexcept>
#include <thread>

namespace seqkit::embedding {

namespace {

constexpr int64_t kDefaultMemory = int64_t{1} << 29;
constexpr uint32_t kFull = 1u << 31;  // a cell that reaches it is carried
constexpr uint32_t kUnitBits = 16;    // of an event
constexpr int64_t kMostUnits = (int64_t{1} << kUnitBits) - 1;
static_assert(kUnits <= kMostUnits);

uint64_t event_of(int64_t i, int64_t j, uint64_t units) {
  return (static_cast<uint64_t>(i) << kWordBits | static_cast<uint64_t>(j)) << kUnitBits | units;
}

// Sorts by the bits from `low` to 64 that some event has; `other` is scratch. Equal keys keep their order.
void radix_sort(std::vector<uint64_t>& events, std::vector<uint64_t>& other, uint32_t low) {
  constexpr uint32_t kDigit = 11, kValues = 1u << kDigit;
  uint64_t any = 0, all = ~uint64_t{0};
  for (const uint64_t event : events) any |= event, all &= event;
  const uint64_t differ = any & ~all;
  other.resize(events.size());
  std::vector<int64_t> place(kValues);
  for (uint32_t shift = low; shift < 64; shift += kDigit) {
    if ((differ >> shift & (kValues - 1)) == 0) continue;
    std::fill(place.begin(), place.end(), 0);
    for (const uint64_t event : events) ++place[event >> shift & (kValues - 1)];
    int64_t sum = 0;
    for (int64_t& each : place) {
      const int64_t count = each;
      each = sum;
      sum += count;
    }
    for (const uint64_t event : events) other[place[event >> shift & (kValues - 1)]++] = event;
    events.swap(other);
  }
}

}  // namespace

struct Cooccurrence::Worker {
  std::vector<uint64_t> events, scratch;
  size_t room = 0;
  std::vector<int32_t> ids;
};

Cooccurrence::Cooccurrence(const CooccurrenceOptions& options, const Corpus& corpus, const std::string& folder)
    : options_(options), vocabulary_(corpus.vocabulary()), block_(nullptr, std::free), file_(folder) {
  if (vocabulary_ >= int64_t{1} << kWordBits) {
    throw std::runtime_error("cooccurrence: vocabulary must have fewer than " +
                             std::to_string(int64_t{1} << kWordBits) + " words (raise min_count), got " +
                             std::to_string(vocabulary_));
  }
  const int64_t memory = options.memory > 0 ? options.memory : kDefaultMemory;
  const int64_t threads =
      std::clamp<int64_t>(options.threads, 1, std::max<int64_t>(1, static_cast<int64_t>(corpus.chunks().size())));
  unit_.push_back(0);
  for (int64_t d = 1; d <= options.window; ++d) {
    unit_.push_back(static_cast<uint32_t>(std::max<int64_t>(1, (2 * kUnits + d) / (2 * d))));
  }
  lay_block(memory / 4 / static_cast<int64_t>(sizeof(uint32_t)));
  std::atomic<int64_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      Worker worker;
      worker.room = static_cast<size_t>(std::max<int64_t>(memory / 8 / 2 / 8 / threads, 1 << 10));
      worker.events.reserve(worker.room + 1);
      const int64_t chunks = static_cast<int64_t>(corpus.chunks().size());
      for (int64_t c = next++; c < chunks; c = next++) {
        const Chunk& chunk = corpus.chunks()[c];
        const int32_t* ids = corpus.ids(chunk, worker.ids);
        if (threads > 1) {
          count_chunk<true>(worker, ids, chunk.size);
        } else {
          count_chunk<false>(worker, ids, chunk.size);
        }
      }
      close_run(worker);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
      next = static_cast<int64_t>(corpus.chunks().size());
    }
  };
  std::vector<std::thread> helpers;
  for (int64_t t = 1; t < threads; ++t) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
}

// The pairs with (i + 1) (j + 1) <= product get a cell, for the largest product that the cells suffice for.
void Cooccurrence::lay_block(int64_t cells) {
  const auto end_of = [&](int64_t i, int64_t product) { return std::max(i, std::min(vocabulary_, product / (i + 1))); };
  const auto cells_of = [&](int64_t product) {
    int64_t sum = 0;
    for (int64_t i = 0; i < vocabulary_ && end_of(i, product) > i; ++i) sum += end_of(i, product) - i;
    return sum;
  };
  int64_t least = 0, most = vocabulary_ * vocabulary_;
  while (least < most) {
    const int64_t middle = least + (most - least + 1) / 2;
    if (cells_of(middle) <= cells) {
      least = middle;
    } else {
      most = middle - 1;
    }
  }
  rows_.resize(vocabulary_);
  for (int64_t i = 0; i < vocabulary_; ++i) {
    rows_[i] = {cells_ - i, end_of(i, least)};
    cells_ += rows_[i].end - i;
  }
  block_.reset(static_cast<uint32_t*>(std::calloc(std::max<int64_t>(cells_, 1), sizeof(uint32_t))));
  if (!block_) throw std::bad_alloc();
}

template <bool kShared>
void Cooccurrence::count_chunk(Worker& worker, const int32_t* ids, int64_t size) {
  uint32_t* block = block_.get();
  int64_t begin = 0;
  for (int64_t t = 0; t < size; ++t) {
    const int32_t word = ids[t];
    if (word < 0) {
      begin = t + 1;
      continue;
    }
    const int64_t reach = std::min(options_.window, t - begin);
    for (int64_t d = 1; d <= reach; ++d) {
      const int32_t other = ids[t - d], i = std::min(word, other), j = std::max(word, other);
      const uint32_t units = unit_[d] << (i == j);
      const DenseRow& row = rows_[i];
      if (j < row.end) {
        uint32_t* cell = block + row.base + j;
        uint32_t before;
        if (kShared) {
          before = __atomic_fetch_add(cell, units, __ATOMIC_RELAXED);
        } else {
          before = *cell;
          *cell = before + units;
        }
        if (((before + units) & ~before & kFull) != 0) {
          __atomic_fetch_sub(cell, kFull, __ATOMIC_RELAXED);
          carry(i, j);
        }
      } else {
        worker.events.push_back(event_of(i, j, unit_[d]));
        if (i == j) worker.events.push_back(event_of(i, j, unit_[d]));
      }
    }
    if (worker.events.size() + 2 * options_.window > worker.room) close_run(worker);
  }
}

void Cooccurrence::carry(int32_t i, int32_t j) {
  const std::lock_guard<std::mutex> lock(mutex_);
  carried_[event_of(i, j, 0) >> kUnitBits] += kFull;
}

// Sorts a worker's events and adds up the equal ones. A sum takes no more events than it had, 2^16 - 1 units each.
void Cooccurrence::close_run(Worker& worker) {
  std::vector<uint64_t>& events = worker.events;
  if (events.empty()) return;
  radix_sort(events, worker.scratch, kUnitBits);
  size_t kept = 0;
  for (size_t at = 0; at < events.size();) {
    const uint64_t key = events[at] >> kUnitBits;
    int64_t units = 0;
    for (; at < events.size() && events[at] >> kUnitBits == key; ++at) units += events[at] & kMostUnits;
    for (; units > 0; units -= kMostUnits) events[kept++] = key << kUnitBits | std::min(units, kMostUnits);
  }
  const int64_t bytes = static_cast<int64_t>(kept) * 8;
  int64_t at;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    at = file_size_;
    file_size_ += bytes;
    runs_.push_back({at, static_cast<int64_t>(kept)});
  }
  file_.write(events.data(), bytes, at);
  events.clear();
}

int64_t Cooccurrence::most_pairs() const {
  int64_t most = file_size_ / 8;
  for (int64_t cell = 0; cell < cells_; ++cell) most += block_[cell] != 0;
  return most + static_cast<int64_t>(carried_.size());
}

void Cooccurrence::read(const std::function<void(int32_t i, int32_t j, int64_t units)>& pair) {
  constexpr uint64_t kEnd = ~uint64_t{0};
  struct Reader {
    Run run;
    std::vector<uint64_t> piece;
    size_t at;
  };
  std::vector<Reader> readers;
  for (const Run& run : runs_) readers.push_back({run, {}, 0});
  const int64_t piece = std::clamp<int64_t>(
      (int64_t{1} << 20) / std::max<int64_t>(1, static_cast<int64_t>(runs_.size())), 1 << 9, 1 << 15);
  const auto advance = [&](Reader& reader) {
    if (reader.at == reader.piece.size()) {
      reader.piece.resize(std::min(reader.run.size, piece));
      reader.at = 0;
      if (reader.piece.empty()) return kEnd;
      const int64_t bytes = static_cast<int64_t>(reader.piece.size()) * 8;
      file_.read(reader.piece.data(), bytes, reader.run.at);
      reader.run.at += bytes;
      reader.run.size -= static_cast<int64_t>(reader.piece.size());
    }
    return reader.piece[reader.at++];
  };
  // A tournament of the runs: node n is the winner of nodes 2n and 2n + 1, a leaf for each run.
  size_t leaves = 1;
  while (leaves < readers.size()) leaves *= 2;
  struct Entry {
    uint64_t event;
    size_t run;
  };
  std::vector<Entry> tree(2 * leaves, Entry{kEnd, 0});
  for (size_t r = 0; r < readers.size(); ++r) tree[leaves + r] = {advance(readers[r]), r};
  const auto play = [&](size_t n) {
    tree[n] = tree[2 * n].event <= tree[2 * n + 1].event ? tree[2 * n] : tree[2 * n + 1];
  };
  for (size_t n = leaves - 1; n >= 1; --n) play(n);
  const auto next_sum = [&](uint64_t key) {
    int64_t units = 0;
    while (tree[1].event >> kUnitBits == key) {
      units += tree[1].event & kMostUnits;
      size_t n = leaves + tree[1].run;
      tree[n].event = advance(readers[tree[1].run]);
      for (n /= 2; n >= 1; n /= 2) play(n);
    }
    return units;
  };
  constexpr uint64_t kWordMask = (uint64_t{1} << kWordBits) - 1;
  for (int64_t i = 0; i < vocabulary_; ++i) {
    const DenseRow& row = rows_[i];
    for (int64_t j = i; j < row.end; ++j) {
      int64_t units = block_[row.base + j];
      if (!carried_.empty()) {
        const auto found = carried_.find(event_of(i, j, 0) >> kUnitBits);
        if (found != carried_.end()) units += found->second;
      }
      if (units) pair(static_cast<int32_t>(i), static_cast<int32_t>(j), units);
    }
    while (tree[1].event != kEnd && tree[1].event >> (kUnitBits + kWordBits) == static_cast<uint64_t>(i)) {
      const uint64_t key = tree[1].event >> kUnitBits;
      const int64_t units = next_sum(key);
      pair(static_cast<int32_t>(i), static_cast<int32_t>(key & kWordMask), units);
    }
  }
  block_.reset();
  rows_.clear();
  cells_ = 0;
}

}  // namespace seqkit::embedding
