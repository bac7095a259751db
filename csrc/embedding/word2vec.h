// Word vectors by prediction: skip-gram and CBOW with negative sampling, hierarchical softmax or full softmax.
//
// Skip-gram: each word of a window is the input, the word in its middle the output (as in word2vec.c). CBOW: the mean
// of the window is the input; each of its rows takes the whole step. The window reaches 1 to `window` words, drawn anew
// for each word, over what sub-sampling has left of the sentence.
//
// Reference: Mikolov et al. 2013, arXiv:1301.3781 and arXiv:1310.4546; Ji et al. 2016, arXiv:1604.04661.
//
// Differs: the negatives of a window are shared by its words, and rows move after a window, not after each pair. As
// many are drawn as fill a block of outputs beside the word itself (7 for `negative` 5), each of a smaller weight
// (5/7), so that the objective is the same and fewer words are drawn again and again. With subwords
// a window is one step for all its words, and eight times `negative` are drawn for it (kSubwordNegatives).
//
// Chunks of the corpus are the units of work. A thread takes the next chunk, seeds its generator with (seed, epoch,
// chunk) and trains through it; the state of a run between two calls is therefore the matrices and one number.
// By default threads change the shared rows as they go (Hogwild), and a result depends on their timing. A deterministic
// run cuts a chunk into pieces; up to kPieces of them are trained apart, each on its own copies of the rows that it
// touches, and what they changed is added in the order of the pieces: the same bytes for any number of threads.
//
// Tried, on 17 million words of Wikipedia, dim 100, 2 epochs (analogies, thousand words per CPU second;
// means of the seeds 1 to 4, whose scatter is 0.4 points):
//   5 negatives a window               21.2 %, 4,700
//   7 of the weight 5/7                22.0 %, 3,750: taken
//   10 of the weight 1/2               22.0 %, 2,500 (by the slower path of several blocks)
//   rows that move after half a window 20.8 %, 4,200; after each pair, as word2vec.c's do, 20.2 %, 2,800
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "embedding/corpus.h"
#include "embedding/window.h"

namespace seqkit::embedding {

enum class Architecture : int64_t { kSkipGram = 0, kCbow = 1 };
enum class Objective : int64_t { kNegativeSampling = 0, kHierarchicalSoftmax = 1, kSoftmax = 2 };

struct Word2VecOptions {
  int64_t dim, window, negative;
  Architecture architecture;
  Objective objective;
  int64_t epochs, seed, threads, deterministic;
  int64_t min_n, max_n, buckets;  // subwords of min_n to max_n characters, none for max_n 0
  double sample, alpha, min_alpha;
};

// Rows of floats on huge pages where the system has them, zero at first.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t width);
  ~Matrix();
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
  float* row(int64_t index) const { return data_ + index * width_; }
  float* data() const { return data_; }
  int64_t rows() const { return rows_; }
  int64_t width() const { return width_; }

 private:
  float* data_;
  int64_t rows_, width_, bytes_;
};

// A sum of no losses; and the loss that a sum stands for, what is drawn weighing `negative_share`.
LossSum no_loss();
double loss_of(const LossSum& sum, double negative_share);

// xorshift64*: quick, and its upper half is as good as is needed here.
class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Dull;
  }
  // From 0 to bound - 1.
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>((next() >> 32) * bound >> 32); }

 private:
  uint64_t state_;
};

// Draws words with the probability count^0.75 / sum (Walker's alias table: two numbers a word, so that it stays in the
// cache; word2vec.c's table of 10^8 words does not).
class NegativeTable {
 public:
  explicit NegativeTable(const std::vector<int64_t>& counts);
  int32_t draw(uint64_t bits) const {
    const uint32_t place = static_cast<uint32_t>((bits >> 32) * entries_.size() >> 32);
    const Entry& entry = entries_[place];
    return static_cast<uint32_t>(bits) < entry.share ? static_cast<int32_t>(place) : entry.other;
  }

 private:
  struct Entry {
    uint32_t share;
    int32_t other;
  };
  std::vector<Entry> entries_;
};

// For each word the inner nodes on its way from the root and the turns taken: weights +1 for code 0, -1 for code 1.
struct HuffmanPaths {
  explicit HuffmanPaths(const std::vector<int64_t>& counts);
  std::vector<int64_t> begin;  // [V + 1]
  std::vector<int32_t> node;
  std::vector<float> turn;
  int64_t longest = 0;
};

// The character n-grams of each word, as fastText has them: min_n to max_n characters of <word>, hashed (FNV-1a) into
// buckets. Only buckets that some word reaches get a row.
// Reference: Bojanowski et al. 2017, arXiv:1607.04606; fastText's Dictionary::computeSubwords.
struct Subwords {
  Subwords(const Corpus& corpus, int64_t min_n, int64_t max_n, int64_t buckets);
  // Appends the buckets of one word.
  static void buckets_of(std::string_view word, int64_t min_n, int64_t max_n, int64_t buckets,
                         std::vector<int32_t>& to);
  std::vector<int64_t> begin;   // [V + 1]
  std::vector<int32_t> row;     // rows of the input matrix
  std::vector<int32_t> bucket;  // of row V, V + 1, ...; rising
  int64_t longest = 0;
};

class Word2Vec {
 public:
  Word2Vec(const Word2VecOptions& options, const Corpus& corpus);
  ~Word2Vec();

  // Trains until all epochs are done or `stop` is called; goes on from `position`.
  void run();
  void stop() { stop_ = true; }

  Matrix& input() { return input_; }
  const Subwords* subwords() const { return subwords_.get(); }
  Matrix& output() { return output_; }
  int64_t position() const { return position_; }
  void set_position(int64_t position) { position_ = position; }
  int64_t words_done() const { return words_done_; }
  double loss() const { return loss_; }  // the sum over all pairs of this object's runs
  int64_t pairs() const { return pairs_; }
  void count_before(int64_t words, int64_t pairs, double loss) { words_done_ = words, pairs_ = pairs, loss_ = loss; }

  struct Worker;

 private:
  void train_chunk(Worker& worker, int64_t position);
  void train_piece(Worker& worker, const int32_t* ids, int64_t size, int64_t words_before, uint64_t seed);
  void train_sentence(Worker& worker, float rate);
  void train_subwords(Worker& worker, float rate);
  void train_softmax(Worker& worker, int32_t target, const float* hidden, float* moved, float rate);
  float* input_row(Worker& worker, int32_t id);
  float* output_row(Worker& worker, int32_t id);
  void prepare(Worker& worker, int64_t t);
  double negative_share() const { return static_cast<double>(options_.negative) / static_cast<double>(drawn_); }
  void run_deterministic(int64_t threads);
  void run_hogwild(int64_t threads);

  Word2VecOptions options_;
  const Corpus& corpus_;
  int64_t drawn_;  // negatives of a window
  std::unique_ptr<Subwords> subwords_;
  Matrix input_, output_;
  std::unique_ptr<NegativeTable> negatives_;
  std::unique_ptr<HuffmanPaths> paths_;
  std::vector<uint32_t> keep_;  // a word stays where 32 random bits are at most this
  std::atomic<int64_t> position_{0}, words_done_{0}, pairs_{0};
  std::atomic<double> loss_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace seqkit::embedding
