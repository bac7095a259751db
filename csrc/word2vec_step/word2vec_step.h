// Steps of word2vec with negative sampling over the positions of a text, in place.
//
// Position t has the word w = ids[t] and the window of the words up to radius positions before and behind it, within
// its sentence. Row r is the input row of a word of the window, or the mean of all of them (CBOW); output 0 is the
// output row of w, output k the one of a drawn word, and w itself is left out where it is drawn. With the score
// x = in_r . out_k, the sign s = +1 for output 0 and -1 for the others, and q = sigmoid(-s x), the probability of the
// wrong label, the loss is -log(1 - q), weighted with `negative_weight` for the drawn, and a step moves along
// g = rate weight_k s q:
//   in_r += sum over k of g out_k,  out_k += sum over r of g in_r,  both from the rows as they were before the window.
// CBOW adds the mean's step to each row of its window. A word that stands twice in a window, or is drawn twice, counts
// twice. So a step is that of the native trainer (csrc/embedding/window.h) but for words that come twice.
//
// On the CPU a window begins where the one before it has ended: it is deterministic, and the specification. On CUDA
// `concurrency` warps each walk through a stretch of positions of their own and add to the rows with atomics (Hogwild,
// Niu et al. 2011): no step is lost, but the rows that a window meets depend on timing. Losses and pairs are those of
// the rows as met. A word that is drawn twice for a window, in two tiles of outputs, is met as the first has left it.
//
// A warp's lane has the numbers lane, lane + 32, ... of each row: a load or an atomic add of a warp then touches whole
// lines of 128 bytes. Sixteen bytes a lane would cut loads to a quarter but make four partial additions to a sector of
// one. The output rows and their steps are registers, eight at a time; the window's input rows lie in shared memory,
// each lane its own numbers, so that nothing waits for a barrier. Rows are read past the first cache, where atomics of
// other multiprocessors do not show.
//
// Reference: Mikolov et al. 2013, arXiv:1310.4546; Ji et al. 2016, arXiv:1604.04661 (shared negatives).
#pragma once

#include <cstdint>

namespace seqkit {

// What CUDA takes: rows that fit into registers, windows whose rows fit into shared memory, each padded and, where the
// outputs are many, beside its move: 2 window max(D, 64) numbers at most.
constexpr int64_t kMostWord2VecWidthCuda = 1024, kMostWord2VecWindowCuda = 10000;

struct Word2VecStep {
  const int32_t* ids;        // [L], words; negative: a sentence ends
  const int32_t* radii;      // [N] in 0 .. window, of the positions begin .. begin + N - 1; 0: no window, no step
  const int32_t* negatives;  // [N, n]
  int64_t size, begin, positions, n_negatives, window;  // L, begin, N, n, the widest radius
  int64_t vocabulary, width;                            // V, D
  float rate, negative_weight;
  bool mean;                // CBOW
  float *inputs, *outputs;  // [V, D], moved
  float* losses;            // [N]
  int32_t* pairs;           // [N]: words of the window, or 1 for a mean; 0 without a window
};

void word2vec_step(const Word2VecStep& call);

// Null, or what went wrong with the launch. A word that is out of range ends a sentence and is not drawn; radii are
// cut.
const char* word2vec_step_cuda(const Word2VecStep& call, int64_t concurrency, void* stream);

}  // namespace seqkit
