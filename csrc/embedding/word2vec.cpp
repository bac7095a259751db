#include "embedding/word2vec.h"

#include <sys/mman.h>

#include <algorithm>
#include <barrier>
#include <cmath>
#include <exception>
#include <iterator>
#include <mutex>
#include <new>
#include <thread>

#include "common/device.h"

namespace seqkit::embedding {

SEQKIT_DECLARE_LEVELS(pair_window, (const Window& window));
SEQKIT_DECLARE_LEVELS(mean_window, (const Window& window));

namespace {

constexpr int64_t kPieces =
    8;  // trained apart in a deterministic run, at most: many steps for few words overshoot when added
constexpr int64_t kWordsOfPiece = 1024;                          // a vocabulary of so many words for each piece
constexpr int64_t kPieceWords = 2048, kSubwordPieceWords = 256;  // a piece ends with the sentence that reaches this
// With subwords a window is one step for all its words, so that few negatives would each weigh as much as many pairs.
// 17 million words, dim 100, one epoch: 7 draws give 23.5 % of the analogies, 4 x 5 give 30.6, 8 x 5 give 32.8, in 15,
// 21 and 29 seconds.
constexpr int64_t kSubwordNegatives = 8;
constexpr int64_t kAhead = 4;  // windows between the fetch of a row and its use
constexpr int64_t kRing = 8;   // windows whose negatives are kept
static_assert(kAhead < kRing);

int64_t padded(int64_t dim) { return (dim + kRowFloats - 1) / kRowFloats * kRowFloats; }

uint64_t scrambled(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

LossSum no_loss() {
  LossSum sum{};
  for (auto& part : sum.mantissa) std::fill(std::begin(part), std::end(part), 1.0f);
  return sum;
}

double loss_of(const LossSum& sum, double negative_share) {
  double loss[2] = {};
  for (int part = 0; part < 2; ++part) {
    for (int i = 0; i < 16; ++i) {
      loss[part] -= std::log(static_cast<double>(sum.mantissa[part][i])) + sum.exponent[part][i] * std::log(2.0);
    }
  }
  return loss[1] + negative_share * (loss[0] - loss[1]);
}

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

void Subwords::buckets_of(std::string_view word, int64_t min_n, int64_t max_n, int64_t buckets,
                          std::vector<int32_t>& to) {
  const std::string framed = "<" + std::string(word) + ">";
  const size_t size = framed.size();
  const auto inside = [&](size_t at) { return at < size && (framed[at] & 0xC0) == 0x80; };  // of a character
  for (size_t begin = 0; begin < size; ++begin) {
    if (inside(begin)) continue;
    uint32_t hash = 2166136261u;
    size_t end = begin;
    for (int64_t n = 1; end < size && n <= max_n; ++n) {
      do {
        hash = (hash ^ static_cast<uint32_t>(static_cast<int8_t>(framed[end++]))) * 16777619u;
      } while (inside(end));
      if (n >= min_n && !(n == 1 && (begin == 0 || end == size))) to.push_back(static_cast<int32_t>(hash % buckets));
    }
  }
}

Subwords::Subwords(const Corpus& corpus, int64_t min_n, int64_t max_n, int64_t buckets) {
  const int64_t words = corpus.vocabulary();
  std::vector<int64_t> ends;
  const std::string& text = corpus.words_text();
  for (int64_t i = 0, at = 0; i < words; ++i) {
    const size_t end = text.find('\n', at);
    buckets_of(std::string_view(text).substr(at, end - at), min_n, max_n, buckets, row);
    ends.push_back(static_cast<int64_t>(row.size()));
    at = static_cast<int64_t>(end) + 1;
  }
  bucket = row;
  std::sort(bucket.begin(), bucket.end());
  bucket.erase(std::unique(bucket.begin(), bucket.end()), bucket.end());
  std::vector<int32_t> place(buckets, -1);
  for (size_t i = 0; i < bucket.size(); ++i) place[bucket[i]] = static_cast<int32_t>(words + static_cast<int64_t>(i));
  std::vector<int32_t> rows;  // each word's own row before those of its n-grams
  rows.reserve(row.size() + words);
  begin.push_back(0);
  for (int64_t i = 0, at = 0; i < words; ++i) {
    rows.push_back(static_cast<int32_t>(i));
    for (; at < ends[i]; ++at) rows.push_back(place[row[at]]);
    begin.push_back(static_cast<int64_t>(rows.size()));
    longest = std::max(longest, begin[i + 1] - begin[i]);
  }
  row.swap(rows);
}

namespace {

float* aligned(std::vector<float>& floats) {
  return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(floats.data()) + 63) / 64 * 64);
}

void fetch(const float* row, int64_t width) {
  for (int64_t at = 0; at < width; at += kRowFloats) __builtin_prefetch(row + at, 1, 3);
}

// Copies of the rows that a piece of a deterministic run touches. They stay where they are while others are added.
class Copies {
 public:
  float* row(const Matrix& matrix, int32_t id) {
    if (place_.empty()) place_.assign(matrix.rows(), -1), width_ = matrix.width();
    if (place_[id] < 0) {
      place_[id] = static_cast<int32_t>(touched_.size());
      touched_.push_back(id);
      if (touched_.size() > blocks_.size() * kBlock) blocks_.emplace_back(kBlock * width_ + kRowFloats);
      std::copy_n(matrix.row(id), width_, copy(place_[id]));
    }
    return copy(place_[id]);
  }

  // Turns each copy into what was added to its row.
  void subtract(const Matrix& matrix) {
    for (size_t i = 0; i < touched_.size(); ++i) {
      float* mine = copy(static_cast<int32_t>(i));
      const float* shared = matrix.row(touched_[i]);
      for (int64_t d = 0; d < width_; ++d) mine[d] -= shared[d];
    }
  }

  // Adds it to the rows of one thread's share of the matrix.
  void add_to(const Matrix& matrix, int64_t share, int64_t shares) {
    for (size_t i = 0; i < touched_.size(); ++i) {
      if (touched_[i] % shares != share) continue;
      const float* mine = copy(static_cast<int32_t>(i));
      float* shared = matrix.row(touched_[i]);
      for (int64_t d = 0; d < width_; ++d) shared[d] += mine[d];
    }
  }

  void clear() {
    for (const int32_t id : touched_) place_[id] = -1;
    touched_.clear();
  }

 private:
  static constexpr int64_t kBlock = 256;
  float* copy(int32_t place) { return aligned(blocks_[place / kBlock]) + place % kBlock * width_; }
  std::vector<int32_t> place_, touched_;
  std::vector<std::vector<float>> blocks_;
  int64_t width_ = 0;
};

}  // namespace

// What one thread, or one piece of a deterministic run, works with.
struct Word2Vec::Worker {
  bool apart = false;  // on its own copies
  Copies in_copies, out_copies;
  Random random{0};
  std::vector<int32_t> buffer, sentence, ring;
  std::vector<float*> in, out;
  std::vector<float> weight, scratch, trash, scores;
  LossSum loss_sum;
  double loss = 0;
  int64_t pairs = 0;
};

Word2Vec::Word2Vec(const Word2VecOptions& options, const Corpus& corpus)
    : options_(options),
      corpus_(corpus),
      drawn_(options.max_n > 0 ? kSubwordNegatives * options.negative
                               : (options.negative + kBlockOutputs) / kBlockOutputs * kBlockOutputs - 1),
      subwords_(options.max_n > 0 ? new Subwords(corpus, options.min_n, options.max_n, options.buckets) : nullptr),
      input_(corpus.vocabulary() + (subwords_ ? static_cast<int64_t>(subwords_->bucket.size()) : 0),
             padded(options.dim)),
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
  const float reach = (subwords_ ? 2.0f : 1.0f) / static_cast<float>(options.dim);  // of word2vec.c and of fastText
  for (int64_t i = 0; i < input_.rows(); ++i) {
    for (int64_t d = 0; d < options.dim; ++d) {
      const float unit = static_cast<float>(random.next() >> 40) / 16777216.0f;
      input_.row(i)[d] = (unit - 0.5f) * reach;
    }
  }
}

Word2Vec::~Word2Vec() = default;

void Word2Vec::run() {
  stop_ = false;
  const int64_t threads = std::max<int64_t>(1, options_.threads);
  if (options_.objective == Objective::kSoftmax) {
    run_hogwild(1);  // every window moves every row of the output
  } else if (options_.deterministic) {
    run_deterministic(threads);
  } else {
    run_hogwild(threads);
  }
}

void Word2Vec::run_hogwild(int64_t threads) {
  const int64_t end = options_.epochs * static_cast<int64_t>(corpus_.chunks().size());
  std::atomic<int64_t> next{position_.load()};
  std::mutex error_mutex;
  std::exception_ptr error;
  const auto work = [&] {
    auto worker = std::make_unique<Worker>();
    while (!stop_) {
      const int64_t position = next.fetch_add(1);
      if (position >= end) return;
      try {
        train_chunk(*worker, position);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex);
        error = std::current_exception();
        stop_ = true;
        return;
      }
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
  if (error) std::rethrow_exception(error);
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
  worker.loss_sum = no_loss();
  const int64_t reach = options_.window, outputs = paths_ ? paths_->longest : drawn_ + 1;
  const int64_t inputs = subwords_ ? subwords_->longest : 2 * reach, most = outputs + (subwords_ ? 2 * reach : 0);
  worker.in.resize(inputs);
  worker.out.resize(most);
  worker.weight.resize(most + 2 * kRowFloats);
  worker.scratch.resize(scratch_floats(inputs, most, input_.width()) + kRowFloats);
  worker.trash.resize(most * input_.width() + kRowFloats);
  worker.ring.resize(kRing * (drawn_ + 1));
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
    if (worker.sentence.size() < 2) continue;
    if (subwords_) {
      train_subwords(worker, static_cast<float>(rate));
    } else {
      train_sentence(worker, static_cast<float>(rate));
    }
  }
  worker.loss += loss_of(worker.loss_sum, negatives_ ? negative_share() : 1);
}

float* Word2Vec::input_row(Worker& worker, int32_t id) {
  return worker.apart ? worker.in_copies.row(input_, id) : input_.row(id);
}

float* Word2Vec::output_row(Worker& worker, int32_t id) {
  return worker.apart ? worker.out_copies.row(output_, id) : output_.row(id);
}

// Fetches the rows of window t that no window before it has, and draws its negatives to know them.
void Word2Vec::prepare(Worker& worker, int64_t t) {
  const std::vector<int32_t>& sentence = worker.sentence;
  const int64_t length = static_cast<int64_t>(sentence.size()), width = input_.width();
  if (t >= length) return;
  if (subwords_) {
    const int64_t word = sentence[t];
    for (int64_t i = subwords_->begin[word]; i < subwords_->begin[word + 1]; ++i) {
      fetch(input_.row(subwords_->row[i]), width);
    }
  } else if (t + options_.window < length) {
    fetch(input_.row(sentence[t + options_.window]), width);
  }
  if (!negatives_) return;
  fetch(output_.row(sentence[t]), width);
  int32_t* drawn = worker.ring.data() + t % kRing * drawn_;
  for (int64_t k = 0; k < drawn_; ++k) {
    drawn[k] = negatives_->draw(worker.random.next());
    fetch(output_.row(drawn[k]), width);
  }
}

void Word2Vec::train_sentence(Worker& worker, float rate) {
  const std::vector<int32_t>& sentence = worker.sentence;
  const int64_t length = static_cast<int64_t>(sentence.size()), width = input_.width(), reach = options_.window;
  const float negative_rate = -rate * static_cast<float>(negative_share());
  const bool skip_gram = options_.architecture == Architecture::kSkipGram;
  Window window{worker.in.data(), 0, worker.out.data(), worker.weight.data(), 0, width, aligned(worker.scratch),
                &worker.loss_sum};
  float* trash = aligned(worker.trash);
  for (int64_t t = 0; t < std::min(reach, length); ++t) fetch(input_.row(sentence[t]), width);
  for (int64_t t = 0; t < kAhead; ++t) prepare(worker, t);

  for (int64_t t = 0; t < length; ++t) {
    prepare(worker, t + kAhead);
    const int64_t radius = 1 + worker.random.below(static_cast<uint32_t>(reach));
    const int64_t from = std::max<int64_t>(t - radius, 0), to = std::min(t + radius, length - 1);
    int64_t n_in = 0;
    for (int64_t c = from; c <= to; ++c) {
      if (c != t) worker.in[n_in++] = input_row(worker, sentence[c]);
    }
    window.n_in = n_in;
    worker.pairs += skip_gram ? n_in : 1;
    if (negatives_) {
      worker.out[0] = output_row(worker, sentence[t]);
      worker.weight[0] = rate;
      const int32_t* drawn = worker.ring.data() + t % kRing * drawn_;
      for (int64_t k = 0; k < drawn_; ++k) {
        worker.out[k + 1] = output_row(worker, drawn[k]);
        worker.weight[k + 1] = negative_rate;
        bool left_out = drawn[k] == sentence[t];
        for (int64_t j = 0; j < k && !left_out; ++j) {
          if (drawn[j] == drawn[k]) worker.weight[j + 1] += negative_rate, left_out = true;
        }
        if (left_out) worker.out[k + 1] = trash + k * width, worker.weight[k + 1] = 0;
      }
      window.n_out = drawn_ + 1;
    } else if (paths_) {
      const int64_t begin = paths_->begin[sentence[t]];
      window.n_out = paths_->begin[sentence[t] + 1] - begin;
      for (int64_t k = 0; k < window.n_out; ++k) {
        worker.out[k] = output_row(worker, paths_->node[begin + k]);
        worker.weight[k] = rate * paths_->turn[begin + k];
      }
    } else {
      float* hidden = aligned(worker.scratch);
      float* moved = hidden + width;
      const auto add = [&](float* to_row, const float* row, float factor) {
        for (int64_t d = 0; d < width; ++d) to_row[d] += factor * row[d];
      };
      const int64_t steps = skip_gram ? n_in : 1;
      for (int64_t r = 0; r < steps; ++r) {
        const int64_t first = skip_gram ? r : 0, last = skip_gram ? r + 1 : n_in;
        std::fill_n(hidden, 2 * width, 0.0f);
        for (int64_t i = first; i < last; ++i) add(hidden, worker.in[i], 1.0f / static_cast<float>(last - first));
        train_softmax(worker, sentence[t], hidden, moved, rate);
        for (int64_t i = first; i < last; ++i) add(worker.in[i], moved, 1);
      }
      continue;
    }
    if (skip_gram) {
      SEQKIT_PICK_LEVEL(pair_window)(window);
    } else {
      SEQKIT_PICK_LEVEL(mean_window)(window);
    }
  }
}

// The word's n-grams predict each word around it. All of a window's words are the outputs of one step.
void Word2Vec::train_subwords(Worker& worker, float rate) {
  const std::vector<int32_t>& sentence = worker.sentence;
  const int64_t length = static_cast<int64_t>(sentence.size()), width = input_.width();
  Window window{worker.in.data(), 0, worker.out.data(), worker.weight.data(), 0, width, aligned(worker.scratch),
                &worker.loss_sum};
  for (int64_t t = 0; t < kAhead; ++t) prepare(worker, t);
  for (int64_t t = 0; t < length; ++t) {
    prepare(worker, t + kAhead);
    const int64_t radius = 1 + worker.random.below(static_cast<uint32_t>(options_.window));
    const int64_t from = std::max<int64_t>(t - radius, 0), to = std::min(t + radius, length - 1), word = sentence[t];
    window.n_in = subwords_->begin[word + 1] - subwords_->begin[word];
    for (int64_t i = 0; i < window.n_in; ++i) {
      worker.in[i] = input_row(worker, subwords_->row[subwords_->begin[word] + i]);
    }
    window.n_out = 0;
    const auto output = [&](int32_t id, float weight) {
      float* row = output_row(worker, id);
      for (int64_t k = 0; k < window.n_out; ++k) {
        if (worker.out[k] != row) continue;
        if ((weight > 0) == (worker.weight[k] > 0)) worker.weight[k] += weight;
        return;  // a word of the window is no negative
      }
      worker.out[window.n_out] = row;
      worker.weight[window.n_out++] = weight;
    };
    for (int64_t c = from; c <= to; ++c) {
      if (c != t) output(sentence[c], rate);
    }
    const int64_t pairs = to - from;
    worker.pairs += pairs;
    const int32_t* drawn = worker.ring.data() + t % kRing * drawn_;
    const float weight = -rate * static_cast<float>(static_cast<double>(pairs) * negative_share());
    for (int64_t k = 0; k < drawn_; ++k) output(drawn[k], weight);
    SEQKIT_PICK_LEVEL(mean_window)(window);
  }
}

// One step of softmax regression over the whole vocabulary: moved += rate (q_target - sum p_k q_k), and every output
// row moves by rate (label_k - p_k) hidden. Plain loops: it is there to teach and to be compared with.
void Word2Vec::train_softmax(Worker& worker, int32_t target, const float* hidden, float* moved, float rate) {
  const int64_t width = output_.width(), words = output_.rows();
  std::vector<float>& scores = worker.scores;
  scores.assign(words, 0);
  float most = -INFINITY;
  for (int64_t k = 0; k < words; ++k) {
    for (int64_t d = 0; d < width; ++d) scores[k] += hidden[d] * output_.row(k)[d];
    most = std::max(most, scores[k]);
  }
  double sum = 0;
  for (int64_t k = 0; k < words; ++k) sum += std::exp(static_cast<double>(scores[k] - most));
  worker.loss += std::log(sum) + most - scores[target];
  for (int64_t k = 0; k < words; ++k) {
    const double p = std::exp(static_cast<double>(scores[k] - most)) / sum;
    const float step = rate * static_cast<float>((k == target) - p);
    float* row = output_.row(k);
    for (int64_t d = 0; d < width; ++d) {
      moved[d] += step * row[d];
      row[d] += step * hidden[d];
    }
  }
}

void Word2Vec::run_deterministic(int64_t threads) {
  const int64_t together = std::clamp<int64_t>(corpus_.vocabulary() / kWordsOfPiece, 1, kPieces);
  threads = std::min(threads, together);
  const int64_t chunks = static_cast<int64_t>(corpus_.chunks().size()), end = options_.epochs * chunks;
  std::vector<std::unique_ptr<Worker>> workers;
  for (int64_t w = 0; w < together; ++w) {
    workers.push_back(std::make_unique<Worker>());
    workers.back()->apart = true;
  }
  const int64_t piece_words = subwords_ ? kSubwordPieceWords : kPieceWords;
  std::barrier meet(threads);
  std::atomic<bool> leave{false};
  std::mutex error_mutex;
  std::exception_ptr error;
  const auto work = [&](int64_t thread) {
    std::vector<int32_t> buffer;
    std::vector<int64_t> cuts, before;  // where pieces begin, and the words before them
    for (int64_t position = position_; position < end; ++position) {
      const Chunk& chunk = corpus_.chunks()[position % chunks];
      const int32_t* ids = nullptr;
      try {
        ids = corpus_.ids(chunk, buffer);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex);
        error = std::current_exception();
        leave = true;
      }
      if (thread == 0 && stop_) leave = true;
      meet.arrive_and_wait();
      if (leave) return;
      cuts.assign(1, 0);
      before.assign(1, 0);
      int64_t words = 0;
      for (int64_t at = 0; at < chunk.size; ++at) {
        words += ids[at] >= 0;
        if (ids[at] < 0 && words - before.back() >= piece_words) cuts.push_back(at + 1), before.push_back(words);
      }
      if (cuts.back() < chunk.size) cuts.push_back(chunk.size);
      const int64_t pieces = static_cast<int64_t>(cuts.size()) - 1;
      const int64_t words_before = position / chunks * corpus_.total_words() + chunk.words_before;
      const uint64_t seed = scrambled(static_cast<uint64_t>(options_.seed)) + static_cast<uint64_t>(position);
      for (int64_t first = 0; first < pieces; first += together) {
        for (int64_t w = thread; w < together; w += threads) {
          Worker& worker = *workers[w];
          worker.in_copies.clear();
          worker.out_copies.clear();
          const int64_t piece = first + w;
          if (piece >= pieces) continue;
          train_piece(worker, ids + cuts[piece], cuts[piece + 1] - cuts[piece], words_before + before[piece],
                      scrambled(seed) + static_cast<uint64_t>(piece));
          worker.in_copies.subtract(input_);
          worker.out_copies.subtract(output_);
        }
        meet.arrive_and_wait();
        for (const auto& worker : workers) {
          worker->in_copies.add_to(input_, thread, threads);
          worker->out_copies.add_to(output_, thread, threads);
        }
        meet.arrive_and_wait();
      }
      if (thread == 0) {
        for (const auto& worker : workers) {
          loss_ += worker->loss;
          pairs_ += worker->pairs;
          worker->loss = 0;
          worker->pairs = 0;
        }
        words_done_ += chunk.words;
        ++position_;
      }
    }
  };
  std::vector<std::thread> helpers;
  for (int64_t t = 1; t < threads; ++t) helpers.emplace_back(work, t);
  work(0);
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace seqkit::embedding
