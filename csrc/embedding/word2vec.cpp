#include "embedding/word2vec.h"

#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <cstring>
#include <new>
#include <thread>

#include "common/device.h"

namespace seqkit::embedding {

SEQKIT_DECLARE_LEVELS(pair_window, (const Window& window));
SEQKIT_DECLARE_LEVELS(mean_window, (const Window& window));
SEQKIT_DECLARE_LEVELS(softmax_window, (const Window& window, int64_t target, float rate, double* loss));

namespace {

constexpr int64_t kPieces = 8;         // trained apart in a deterministic run
constexpr int64_t kPieceWords = 2048;  // a piece ends with the sentence that reaches this
constexpr int64_t kAhead = 4;          // windows between the fetch of a row and its use

int64_t padded(int64_t dim) { return (dim + kRowFloats - 1) / kRowFloats * kRowFloats; }

uint64_t scrambled(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

Random::Random(uint64_t seed) : state_(scrambled(seed) | 1) {}

Matrix::Matrix(int64_t rows, int64_t width) : rows_(rows), width_(width) {
  constexpr int64_t kHugePage = int64_t{1} << 21;
  bytes_ = std::max<int64_t>(rows * width * static_cast<int64_t>(sizeof(float)), 1);
  bytes_ = (bytes_ + kHugePage - 1) / kHugePage * kHugePage + kHugePage;
  void* pages = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  // Pages that are not touched cost nothing: the spare one only moves the rows to a huge page's begin.
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(pages) + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = reinterpret_cast<uintptr_t>(pages) + bytes_;
  munmap(pages, begin - reinterpret_cast<uintptr_t>(pages));
  data_ = reinterpret_cast<float*>(begin);
  bytes_ = static_cast<int64_t>(end - begin);
#if defined(MADV_HUGEPAGE)
  madvise(data_, bytes_, MADV_HUGEPAGE);
#endif
}

Matrix::~Matrix() { munmap(data_, bytes_); }

NegativeTable::NegativeTable(const std::vector<int64_t>& counts) : entries_(counts.size()) {
  const int64_t size = static_cast<int64_t>(counts.size());
  std::vector<double> share(size);
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += share[i] = std::pow(static_cast<double>(counts[i]), 0.75);
  std::vector<int32_t> small, large;
  for (int64_t i = 0; i < size; ++i) {
    share[i] *= static_cast<double>(size) / sum;
    (share[i] < 1 ? small : large).push_back(static_cast<int32_t>(i));
  }
  const auto set = [&](int32_t place, double part, int32_t other) {
    entries_[place] = {static_cast<uint32_t>(std::min(part * 4294967296.0, 4294967295.0)), other};
  };
  while (!small.empty() && !large.empty()) {
    const int32_t low = small.back(), high = large.back();
    small.pop_back();
    set(low, share[low], high);
    share[high] -= 1 - share[low];
    if (share[high] < 1) large.pop_back(), small.push_back(high);
  }
  for (const int32_t i : small) set(i, 1, i);
  for (const int32_t i : large) set(i, 1, i);
}

HuffmanPaths::HuffmanPaths(const std::vector<int64_t>& counts) {
  // Leaves by rising count meet inner nodes, which come by rising count of themselves: two queues, no heap. Known words
  // of an older corpus need not be in the order of their counts.
  const int64_t size = static_cast<int64_t>(counts.size());
  std::vector<int32_t> leaves(size);
  for (int64_t i = 0; i < size; ++i) leaves[i] = static_cast<int32_t>(size - 1 - i);
  std::stable_sort(leaves.begin(), leaves.end(), [&](int32_t a, int32_t b) { return counts[a] < counts[b]; });
  std::vector<int64_t> weight(2 * size);
  std::vector<int32_t> parent(2 * size, -1);
  std::vector<char> code(2 * size, 0);
  for (int64_t i = 0; i < size; ++i) weight[i] = counts[i];
  int64_t leaf = 0, inner = size, made = size;
  const auto least = [&] {
    if (leaf < size && (inner >= made || weight[leaves[leaf]] <= weight[inner])) return int64_t{leaves[leaf++]};
    return inner++;
  };
  while (made < 2 * size - 1) {
    const int64_t first = least(), second = least();
    weight[made] = weight[first] + weight[second];
    parent[first] = parent[second] = static_cast<int32_t>(made);
    code[second] = 1;
    ++made;
  }
  begin.push_back(0);
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t at = i; parent[at] >= 0; at = parent[at]) {
      node.push_back(static_cast<int32_t>(parent[at] - size));
      turn.push_back(code[at] ? -1.0f : 1.0f);
    }
    begin.push_back(static_cast<int64_t>(node.size()));
    longest = std::max(longest, begin[i + 1] - begin[i]);
  }
}

// What one thread, or one piece of a deterministic run, works with.
struct Word2Vec::Worker {
  // A row as the worker sees it: shared, or its own copy.
  struct Copies {
    std::vector<int32_t> place;  // of each row in `rows`, -1 if it is not copied
    std::vector<int32_t> touched;
    std::vector<float> rows;
  };
  bool apart = false;
  Copies in_copies, out_copies;

  Random random{0};
  std::vector<int32_t> buffer, sentence;
  std::vector<float*> in, out;
  std::vector<float> weight, scratch, trash;
  LossSum loss_sum;
  double loss = 0;
  int64_t pairs = 0;

  void begin_loss() {
    for (int i = 0; i < 16; ++i) loss_sum.mantissa[i] = 1, loss_sum.exponent[i] = 0;
  }
  void end_loss() {
    for (int i = 0; i < 16; ++i) {
      loss -= std::log(static_cast<double>(loss_sum.mantissa[i])) + loss_sum.exponent[i] * std::log(2.0);
    }
    begin_loss();
  }
};

Word2Vec::Word2Vec(const Word2VecOptions& options, const Corpus& corpus)
    : options_(options),
      corpus_(corpus),
      drawn_((options.negative + kBlockOutputs) / kBlockOutputs * kBlockOutputs - 1),
      input_(corpus.vocabulary(), padded(options.dim)),
      output_(corpus.vocabulary(), padded(options.dim)) {
  const std::vector<int64_t>& counts = corpus.counts();
  if (options.objective == Objective::kNegativeSampling) negatives_ = std::make_unique<NegativeTable>(counts);
  if (options.objective == Objective::kHierarchicalSoftmax) paths_ = std::make_unique<HuffmanPaths>(counts);
  double total = 0;
  for (const int64_t count : counts) total += static_cast<double>(count);
  for (const int64_t count : counts) {
    const double ratio = options.sample * total / static_cast<double>(count);
    const double keep = options.sample > 0 ? std::sqrt(ratio) + ratio : 1;
    keep_.push_back(keep >= 1 ? ~uint32_t{0} : static_cast<uint32_t>(keep * 4294967295.0));
  }
  Random random(static_cast<uint64_t>(options.seed));
  for (int64_t i = 0; i < input_.rows(); ++i) {
    for (int64_t d = 0; d < options.dim; ++d) {
      const float unit = static_cast<float>(random.next() >> 40) / 16777216.0f;
      input_.row(i)[d] = (unit - 0.5f) / static_cast<float>(options.dim);
    }
  }
}

Word2Vec::~Word2Vec() = default;

void Word2Vec::run() {
  stop_ = false;
  const int64_t threads = std::max<int64_t>(1, options_.threads);
  if (options_.deterministic) {
    run_deterministic(threads);
  } else {
    run_hogwild(threads);
  }
}

void Word2Vec::run_hogwild(int64_t threads) {
  const int64_t end = options_.epochs * static_cast<int64_t>(corpus_.chunks().size());
  std::atomic<int64_t> next{position_.load()};
  const auto work = [&] {
    auto worker = std::make_unique<Worker>();
    while (!stop_) {
      const int64_t position = next.fetch_add(1);
      if (position >= end) return;
      train_chunk(*worker, position);
      words_done_ += corpus_.chunks()[position % corpus_.chunks().size()].words;
      pairs_ += worker->pairs;
      loss_ += worker->loss;
      worker->pairs = 0;
      worker->loss = 0;
      ++position_;
    }
  };
  std::vector<std::thread> helpers;
  for (int64_t t = 1; t < threads; ++t) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
}

void Word2Vec::train_chunk(Worker& worker, int64_t position) {
  const int64_t chunks = static_cast<int64_t>(corpus_.chunks().size());
  const Chunk& chunk = corpus_.chunks()[position % chunks];
  const int32_t* ids = corpus_.ids(chunk, worker.buffer);
  train_piece(worker, ids, chunk.size, position / chunks * corpus_.total_words() + chunk.words_before,
              scrambled(static_cast<uint64_t>(options_.seed)) + static_cast<uint64_t>(position));
}

// The sentences of a piece: sub-sampled, then trained at the rate that belongs to their place in the run.
void Word2Vec::train_piece(Worker& worker, const int32_t* ids, int64_t size, int64_t words_before, uint64_t seed) {
  worker.random = Random(seed);
  worker.begin_loss();
  const int64_t reach = options_.window, outputs = paths_ ? paths_->longest : drawn_ + 1;
  worker.in.resize(2 * reach);
  worker.out.resize(outputs);
  worker.weight.resize(outputs + 2 * kRowFloats);
  worker.scratch.resize(scratch_floats(2 * reach, outputs, input_.width()) + kRowFloats);
  worker.trash.resize(outputs * input_.width() + kRowFloats);
  const double whole = static_cast<double>(options_.epochs) * static_cast<double>(corpus_.total_words()) + 1;
  int64_t words = 0;
  for (int64_t at = 0; at < size;) {
    worker.sentence.clear();
    for (; at < size && ids[at] >= 0; ++at, ++words) {
      if (static_cast<uint32_t>(worker.random.next() >> 32) <= keep_[ids[at]]) worker.sentence.push_back(ids[at]);
    }
    ++at;
    const double done = static_cast<double>(words_before + words) / whole;
    const double rate = std::max(options_.alpha - (options_.alpha - options_.min_alpha) * done, options_.min_alpha);
    if (worker.sentence.size() > 1) train_sentence(worker, static_cast<float>(rate));
  }
  worker.end_loss();
}

namespace {

float* aligned(std::vector<float>& floats) {
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(floats.data()) + 63) / 64 * 64);
}

void fetch(const float* row, int64_t width) {
  for (int64_t at = 0; at < width; at += kRowFloats) __builtin_prefetch(row + at, 1, 3);
}

}  // namespace

void Word2Vec::train_sentence(Worker& worker, float rate) {
  const std::vector<int32_t>& sentence = worker.sentence;
  const int64_t length = static_cast<int64_t>(sentence.size()), width = input_.width(), reach = options_.window;
  const int64_t negative = drawn_;
  const float negative_rate = -rate * static_cast<float>(options_.negative) / static_cast<float>(drawn_);
  const bool skip_gram = options_.architecture == Architecture::kSkipGram;
  Window window{worker.in.data(), 0, worker.out.data(), worker.weight.data(), 0, width, aligned(worker.scratch),
                &worker.loss_sum};
  float* trash = aligned(worker.trash);

  // The negatives of the next windows, drawn ahead so that their rows can be fetched.
  constexpr int64_t kRing = 8;
  static_assert(kAhead < kRing);
  thread_local std::vector<int32_t> ring;
  ring.resize(kRing * std::max<int64_t>(negative, 1));
  const auto prepare = [&](int64_t t) {
    if (t >= length) return;
    if (t + reach < length) fetch(input_.row(sentence[t + reach]), width);
    if (!negatives_) return;
    fetch(output_.row(sentence[t]), width);
    int32_t* drawn = ring.data() + t % kRing * negative;
    for (int64_t k = 0; k < negative; ++k) {
      drawn[k] = negatives_->draw(worker.random.next());
      fetch(output_.row(drawn[k]), width);
    }
  };
  for (int64_t t = 0; t < std::min(reach, length); ++t) fetch(input_.row(sentence[t]), width);
  for (int64_t t = 0; t < kAhead; ++t) prepare(t);

  for (int64_t t = 0; t < length; ++t) {
    prepare(t + kAhead);
    const int64_t radius = 1 + worker.random.below(static_cast<uint32_t>(reach));
    const int64_t from = std::max<int64_t>(t - radius, 0), to = std::min(t + radius, length - 1);
    int64_t n_in = 0;
    for (int64_t c = from; c <= to; ++c) {
      if (c != t) worker.in[n_in++] = input_.row(sentence[c]);
    }
    window.n_in = n_in;
    worker.pairs += skip_gram ? n_in : 1;
    if (negatives_) {
      worker.out[0] = output_.row(sentence[t]);
      worker.weight[0] = rate;
      const int32_t* drawn = ring.data() + t % kRing * negative;
      for (int64_t k = 0; k < negative; ++k) {
        worker.out[k + 1] = output_.row(drawn[k]);
        worker.weight[k + 1] = negative_rate;
        bool left_out = drawn[k] == sentence[t];
        for (int64_t j = 0; j < k && !left_out; ++j) {
          if (drawn[j] == drawn[k]) worker.weight[j + 1] += negative_rate, left_out = true;
        }
        if (left_out) worker.out[k + 1] = trash + k * width, worker.weight[k + 1] = 0;
      }
      window.n_out = negative + 1;
    } else {
      const int64_t begin = paths_->begin[sentence[t]];
      window.n_out = paths_->begin[sentence[t] + 1] - begin;
      for (int64_t k = 0; k < window.n_out; ++k) {
        worker.out[k] = output_.row(paths_->node[begin + k]);
        worker.weight[k] = rate * paths_->turn[begin + k];
      }
    }
    if (skip_gram) {
      SEQKIT_PICK_LEVEL(pair_window)(window);
    } else {
      SEQKIT_PICK_LEVEL(mean_window)(window);
    }
  }
}

void Word2Vec::run_deterministic(int64_t) {}

}  // namespace seqkit::embedding
