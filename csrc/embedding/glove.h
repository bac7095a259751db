// GloVe: word vectors whose products are the logarithms of the co-occurrence counts.
//
//   J = sum over i, j with X_ij > 0 of f(X_ij) (w_i . w~_j + b_i + b~_j - log X_ij)^2,  f(x) = min(1, (x /
//   x_max)^alpha)
//
// by AdaGrad: a parameter with the gradient g of half of this moves by eta g / sqrt(s), where s begins at 1 and then
// grows by (eta g)^2; a bias by g / sqrt(s), with s growing by g^2. So do newer copies of the authors' program.
// Biases learn the frequencies at once, and the vectors need not. (In a bias's row, s is kept times eta^2, so that it
// moves as the others do.)
//
// Reference: Pennington et al. 2014, D14-1162; Duchi et al. 2011, JMLR 12 (AdaGrad).
//
// The counts are symmetric, so the steps for (i, j) and (j, i) are taken together: the pair needs all four vectors of
// two words, which lie side by side. A word's row is [w, b, 1 | w~, 1, b~ | sums of the first | sums of the second],
// each part padded with zeros to a multiple of kRowFloats: a bias is one more product, and a one stays a one because
// its sum is infinite. For dim 100 a pair is two runs of 28 cache lines.
//
// Pairs lie in buckets, each pair in one drawn for it, in memory or on disk. An epoch takes the buckets in a new order
// and each bucket's pairs in a new order: a shuffle that reads the pairs in long pieces. Within a bucket, the pairs are
// parted by the groups of their two words, and cells of the grid of groups that share no group are trained at once, one
// round after the other (Gemulla et al. 2011, KDD, "stratified" descent). So threads never write into the same row, and
// the result is the same for any number of them and any memory: there is no faster mode that would not be
// deterministic.
//
// Tried, on 17 million words of Wikipedia, dim 100, window 10, 5 epochs (analogies, WordSim353, MEN; one seed each,
// seeds differ by 0.3 points):
//   x_max 100, eta 0.05                         4.3 %, .269, .322
//   x_max 10, eta 0.05                         21.0 %, .402, .477
//   x_max 10, eta 0.05, biases at eta as well  20.9 %, .400, .461
//   x_max 10, eta 0.075                        24.9 %, .404, .497
//   x_max 10, eta 0.1                          25.6 %, .424, .504
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "embedding/cooccurrence.h"
#include "embedding/glove_steps.h"
#include "embedding/word2vec.h"

namespace seqkit::embedding {

struct GloVeOptions {
  int64_t dim, window, epochs, seed, threads, memory;
  double x_max, alpha, eta;
};

// Co-occurrence counts in an order for training: 8 bytes a pair, the two words and a rounded logarithm.
class PairBuckets {
 public:
  PairBuckets(Cooccurrence& counts, int64_t number, int64_t vocabulary, int64_t memory, uint64_t seed,
              const std::string& folder);
  int64_t size() const { return static_cast<int64_t>(buckets_.size()); }
  int64_t pairs() const { return pairs_; }  // i <= j
  int64_t terms() const { return terms_; }  // of J: i and j in both orders
  bool on_disk() const { return file_ != nullptr; }
  void load(int64_t bucket, std::vector<uint64_t>& to) const;
  GloVePair unpack(uint64_t pair, double log_x_max, double alpha) const;

 private:
  struct Bucket {
    std::vector<uint64_t> pairs;
    std::vector<std::pair<int64_t, int64_t>> pieces;  // place and number in the file
  };
  void spill();

  std::string folder_;
  std::vector<Bucket> buckets_;
  std::unique_ptr<TemporaryFile> file_;
  int64_t file_size_ = 0, pairs_ = 0, terms_ = 0;
  int word_bits_, log_bits_;
};

class GloVe {
 public:
  // Counts, and sets out the rows.
  GloVe(const GloVeOptions& options, const Corpus& corpus, const std::string& temporary_folder);

  // Trains until all epochs are done or `stop` is called; goes on from `position`.
  void run();
  void stop() { stop_ = true; }

  Matrix& rows() { return rows_; }
  int64_t width() const { return rows_.width() / 4; }
  const PairBuckets& buckets() const { return *buckets_; }
  int64_t position() const { return position_; }  // buckets done, over all epochs
  int64_t terms_done() const { return terms_done_; }
  int64_t loss_terms() const { return loss_terms_; }  // of the epoch that runs
  double loss() const { return loss_; }
  void restore(int64_t position, int64_t terms_done, int64_t loss_terms, double loss);

 private:
  struct Prepared;
  void prepare(int64_t position, Prepared& to) const;

  GloVeOptions options_;
  Matrix rows_;
  std::unique_ptr<PairBuckets> buckets_;
  std::atomic<int64_t> position_{0}, terms_done_{0}, loss_terms_{0};
  std::atomic<double> loss_{0};
  std::atomic<bool> stop_{false};
};

}  // namespace seqkit::embedding
