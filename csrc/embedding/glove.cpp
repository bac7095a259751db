#include "embedding/glove.h"

#include <algorithm>
#include <barrier>
#include <cmath>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>

#include "common/device.h"

namespace seqkit::embedding {

SEQKIT_DECLARE_LEVELS(glove_steps, (const GloVeSteps& steps));

namespace {

constexpr int64_t kBucketPlaces = 3 << 17;  // places where two words stand near each other; some 60,000 pairs
constexpr int64_t kMostBuckets = 1 << 12;
constexpr int64_t kGroups = 16;  // of words: half as many cells are trained at once
constexpr int64_t kCells = kGroups * kGroups;
constexpr double kLeastLog = -12, kLogRange = 64;  // of a count, natural logarithms

int64_t padded(int64_t dim) { return (dim + 2 + kRowFloats - 1) / kRowFloats * kRowFloats; }

int64_t group_of(int64_t word) { return word % kGroups; }

void shuffle(uint64_t* items, int64_t size, Random& random) {
  for (int64_t n = size; n > 1; --n) std::swap(items[n - 1], items[random.below(static_cast<uint32_t>(n))]);
}

// The two groups that meet at place `place` of a round: a tournament of all groups in kGroups - 1 rounds.
std::pair<int64_t, int64_t> meeting(int64_t round, int64_t place) {
  constexpr int64_t kRing = kGroups - 1;
  if (place == 0) return {round, kGroups - 1};
  const int64_t a = (round + place) % kRing, b = (round - place + kRing) % kRing;
  return {std::min(a, b), std::max(a, b)};
}

}  // namespace

// ---- Pairs ----

PairBuckets::PairBuckets(Cooccurrence& counts, int64_t number, int64_t vocabulary, int64_t memory, uint64_t seed,
                         const std::string& folder)
    : folder_(folder) {
  word_bits_ = 1;
  while (int64_t{1} << word_bits_ < vocabulary) ++word_bits_;
  log_bits_ = std::min(64 - 2 * word_bits_, 32);
  const int64_t most = counts.most_pairs();
  buckets_.resize(number);
  const int64_t room = memory > 0 ? std::max<int64_t>(memory / 4 / 8, 1) : std::numeric_limits<int64_t>::max();
  const double mean = static_cast<double>(std::min(most, room)) / static_cast<double>(size());
  // Reserved, not used: a page that is never touched is no memory.
  for (Bucket& bucket : buckets_) bucket.pairs.reserve(static_cast<size_t>(mean + 6 * std::sqrt(mean) + 16));
  Random random(seed);
  const double steps = std::ldexp(1.0, log_bits_) / kLogRange;
  int64_t held = 0;
  counts.read([&](int32_t i, int32_t j, int64_t units) {
    const double log_count = std::log(static_cast<double>(units) / static_cast<double>(kUnits));
    const uint64_t code = static_cast<uint64_t>((log_count - kLeastLog) * steps + 0.5);
    const uint64_t pair = (static_cast<uint64_t>(i) << word_bits_ | static_cast<uint64_t>(j)) << log_bits_ | code;
    buckets_[random.below(static_cast<uint32_t>(buckets_.size()))].pairs.push_back(pair);
    ++pairs_;
    terms_ += i == j ? 1 : 2;
    if (++held >= room) spill(), held = 0;
  });
  if (file_) spill();
}

void PairBuckets::spill() {
  if (!file_) file_ = std::make_unique<TemporaryFile>(folder_);
  for (Bucket& bucket : buckets_) {
    const int64_t number = static_cast<int64_t>(bucket.pairs.size());
    if (number == 0) continue;
    file_->write(bucket.pairs.data(), number * 8, file_size_);
    bucket.pieces.emplace_back(file_size_, number);
    file_size_ += number * 8;
    bucket.pairs.clear();
  }
}

void PairBuckets::load(int64_t bucket, std::vector<uint64_t>& to) const {
  const Bucket& from = buckets_[bucket];
  to.assign(from.pairs.begin(), from.pairs.end());
  for (const auto& [at, number] : from.pieces) {
    const size_t before = to.size();
    to.resize(before + number);
    file_->read(to.data() + before, number * 8, at);
  }
}

GloVePair PairBuckets::unpack(uint64_t pair, double log_x_max, double alpha) const {
  const uint64_t code = pair & ((uint64_t{1} << log_bits_) - 1), word = (uint64_t{1} << word_bits_) - 1;
  const double log_count = static_cast<double>(code) * std::ldexp(kLogRange, -log_bits_) + kLeastLog;
  const float power = static_cast<float>(alpha * (log_count - log_x_max));
  return {static_cast<int32_t>(pair >> (log_bits_ + word_bits_)), static_cast<int32_t>(pair >> log_bits_ & word),
          static_cast<float>(log_count), power < 0 ? std::exp(power) : 1.0f};
}

// ---- Training ----

// A bucket in the order of a run: the pairs of each cell one after the other.
struct GloVe::Prepared {
  std::vector<uint64_t> packed;
  std::vector<GloVePair> pairs;
  int64_t begin[kCells + 1];
  double loss[kCells];
  int64_t terms = 0;
};

GloVe::GloVe(const GloVeOptions& options, const Corpus& corpus, const std::string& folder)
    : options_(options), rows_(corpus.vocabulary(), 4 * padded(options.dim)) {
  {
    Cooccurrence counts({options.window, options.memory, options.threads}, corpus, folder);
    // The number depends on the text alone, so that the memory does not change the result.
    const int64_t words = corpus.vocabulary(), places = std::min(words * words, corpus.total_words() * options.window);
    const int64_t number = std::clamp<int64_t>(places / kBucketPlaces, 1, kMostBuckets);
    buckets_ = std::make_unique<PairBuckets>(counts, number, words, options.memory, static_cast<uint64_t>(options.seed),
                                             folder);
  }
  const int64_t dim = options.dim, width = this->width();
  Random random(static_cast<uint64_t>(options.seed) + 1);
  const auto draw = [&] {
    return (static_cast<float>(random.next() >> 40) * 0x1p-24f - 0.5f) / static_cast<float>(dim);
  };
  const float bias_sum = static_cast<float>(options.eta * options.eta);  // a rate of 1, see glove.h
  constexpr float kNever = std::numeric_limits<float>::infinity();
  for (int64_t r = 0; r < rows_.rows(); ++r) {
    float* word = rows_.row(r);
    float* context = word + width;
    float* sums = context + width;
    for (int64_t c = 0; c <= dim; ++c) word[c] = draw();
    word[dim + 1] = 1;
    for (int64_t c = 0; c < dim; ++c) context[c] = draw();
    context[dim] = 1;
    context[dim + 1] = draw();
    std::fill(sums, sums + 2 * width, 1.0f);
    sums[dim + 1] = kNever;
    sums[width + dim] = kNever;
    sums[dim] = sums[width + dim + 1] = bias_sum;
  }
}

void GloVe::restore(int64_t position, int64_t terms_done, int64_t loss_terms, double loss) {
  position_ = position, terms_done_ = terms_done, loss_terms_ = loss_terms, loss_ = loss;
}

void GloVe::prepare(int64_t position, Prepared& to) const {
  const int64_t buckets = buckets_->size(), epoch = position / buckets;
  std::vector<uint64_t> order(buckets);
  for (int64_t b = 0; b < buckets; ++b) order[b] = static_cast<uint64_t>(b);
  const uint64_t seed = static_cast<uint64_t>(options_.seed) << 32;
  Random epoch_random(seed + static_cast<uint64_t>(epoch) * 2 + 1);
  shuffle(order.data(), buckets, epoch_random);
  buckets_->load(static_cast<int64_t>(order[position % buckets]), to.packed);
  const int64_t size = static_cast<int64_t>(to.packed.size());
  Random random(seed + static_cast<uint64_t>(position) * 2);
  shuffle(to.packed.data(), size, random);

  const double log_x_max = std::log(options_.x_max);
  int64_t place[kCells] = {};
  to.terms = 0;
  const auto cell_of = [](const GloVePair& pair) {
    const int64_t a = group_of(pair.i), b = group_of(pair.j);
    return std::min(a, b) * kGroups + std::max(a, b);
  };
  for (const uint64_t packed : to.packed) {
    const GloVePair pair = buckets_->unpack(packed, log_x_max, options_.alpha);
    ++place[cell_of(pair)];
    to.terms += pair.i == pair.j ? 1 : 2;
  }
  int64_t sum = 0;
  for (int64_t cell = 0; cell < kCells; ++cell) {
    to.begin[cell] = sum;
    sum += place[cell];
    place[cell] = to.begin[cell];
    to.loss[cell] = 0;
  }
  to.begin[kCells] = sum;
  to.pairs.resize(size);
  for (const uint64_t packed : to.packed) {
    const GloVePair pair = buckets_->unpack(packed, log_x_max, options_.alpha);
    to.pairs[place[cell_of(pair)]++] = pair;
  }
}

void GloVe::run() {
  const auto steps_of = SEQKIT_PICK_LEVEL(glove_steps);
  const int64_t threads = std::clamp<int64_t>(options_.threads, 1, kGroups / 2),
                end = options_.epochs * buckets_->size();
  stop_ = false;
  std::vector<Prepared> prepared(threads);  // as many buckets as threads are made ready at once
  std::barrier meet(threads);
  std::atomic<bool> leave{false};
  std::mutex error_mutex;
  std::exception_ptr error;
  const auto train_cell = [&](Prepared& bucket, int64_t a, int64_t b) {
    const int64_t cell = a * kGroups + b, begin = bucket.begin[cell];
    steps_of({rows_.data(), width(), bucket.pairs.data() + begin, bucket.begin[cell + 1] - begin,
              static_cast<float>(options_.eta), &bucket.loss[cell]});
  };
  const auto work = [&](int64_t thread) {
    for (int64_t first = position_; first < end;) {
      const int64_t together = std::min(threads, end - first);
      if (thread == 0 && stop_) leave = true;
      if (thread < together) {
        try {
          prepare(first + thread, prepared[thread]);
        } catch (...) {
          const std::lock_guard<std::mutex> lock(error_mutex);
          error = std::current_exception();
          leave = true;
        }
      }
      meet.arrive_and_wait();
      if (leave) return;
      for (int64_t n = 0; n < together; ++n) {
        Prepared& bucket = prepared[n];
        for (int64_t round = 0; round < kGroups - 1; ++round) {
          for (int64_t place = thread; place < kGroups / 2; place += threads) {
            const auto [a, b] = meeting(round, place);
            train_cell(bucket, a, b);
          }
          meet.arrive_and_wait();
        }
        for (int64_t group = thread; group < kGroups; group += threads) train_cell(bucket, group, group);
        meet.arrive_and_wait();
        if (thread == 0) {
          const bool begins = (first + n) % buckets_->size() == 0;
          double sum = begins ? 0.0 : loss_.load();
          for (const double loss : bucket.loss) sum += loss;
          loss_ = sum;
          loss_terms_ = (begins ? 0 : loss_terms_.load()) + bucket.terms;
          terms_done_ += bucket.terms;
          ++position_;
        }
      }
      first += together;
      meet.arrive_and_wait();
    }
  };
  std::vector<std::thread> helpers;
  for (int64_t t = 1; t < threads; ++t) helpers.emplace_back(work, t);
  work(0);
  for (std::thread& helper : helpers) helper.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace seqkit::embedding
