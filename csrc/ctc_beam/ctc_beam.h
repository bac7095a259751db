// Prefix beam search over the frames of a CTC model (Graves et al. 2006; Hannun et al. 2014, arXiv:1408.2873).
//
// A prefix y of labels has two probabilities after a frame: of the alignments that end in a blank, and of those that
// end in its last label. With the emission e of the frame, and y + c the prefix with one more label:
//   blank(y)     = e(-) (blank'(y) + label'(y))
//   label(y)     = e(last of y) label'(y)  +  what its own prefix x gives, y = x + c:
//                  e(c) (c = last of x ? blank'(x) : blank'(x) + label'(x))
// and the `beam_size` prefixes with the greatest sum live on. The definition of every output is
// `ctc_beam_search_reference` in seqkit/ops/ctc_beam_search.py.
//
// A language model, or a list of hot words, adds to a prefix a score that depends on the prefix alone; prefixes are
// ranked by the sum. It comes as a back-off automaton: a state's arcs, sorted by their symbol, have scores and next
// states; a symbol that has no arc costs the state's `backoff` and is looked up from the state's `suffix`, which is a
// lower state; state 0 has one arc for each symbol, in order. `final` is added at the end. An index that is out of
// range counts as 0: nothing outside of the arrays is read whatever stands in them.
//
// Order: of equal ranks a prefix that is in the beam comes before a new one, then the place in the beam, then the lower
// label. A prefix enters the beam behind those that were there before. So no list is ever sorted, and a sentence's
// result depends on its own frames alone, to the last bit.
//
// On the CPU (search.h) a sentence has a thread. Prefixes stand in a tree: y and x + c are found to be the same because
// each prefix of the beam knows the place of its parent, not by a look-up for each extension. Logarithms are kept
// relative to the best prefix, so that a float32 keeps its last places after any number of frames. The extensions of
// a prefix are a row: the label row of the frame, plus a number. A running threshold, the beam_size-th best so far, is
// compared with a vector of them at a time, rows and labels whose upper bound is below it are never made, and what
// passes goes to a buffer that now and then is cut to the best.
//
// On CUDA (cuda.cu) a block has a sentence.
#pragma once

#include <cstdint>

#include "common/device.h"

namespace seqkit {

// Scores above it count as it, so that sums stay finite; NaN counts as -infinity.
constexpr double kMostCtcLogp = 1e30;

constexpr int64_t kMostCtcBeams = 1 << 16;    // no search has them; what is larger is a mistake
constexpr int64_t kMostCtcBeamsOnCuda = 512;  // shared memory

struct BackoffAutomaton {
  const int32_t* first;    // [states + 1]: the arcs of a state
  const int32_t* symbols;  // [arcs]
  const float* scores;     // [arcs]
  const int32_t* next;     // [arcs]
  const float* backoff;    // [states]
  const int32_t* suffix;   // [states]
  const float* final;      // [states]
  int64_t states, arcs;    // no states: there is no such automaton
  int64_t start;
};

// Words as sequences of labels: a tree whose node 0 is the empty word, with the arcs of a node sorted by their label.
struct Lexicon {
  const int32_t* first;   // [nodes + 1]
  const int32_t* labels;  // [arcs]
  const int32_t* next;    // [arcs]
  const int32_t* words;   // [nodes], the word that ends here or -1
  int64_t nodes, arcs;
};

template <typename Number>
struct CtcBeamCall {
  const Number* log_probs;  // [B, T, C]
  const int64_t* lengths;   // [B] in 0 .. T
  int64_t batch, times, classes, beam_size, n_best, blank;
  Number token_min_logp;   // a label below it is impossible in a frame where it is not the most probable one
  Number beam_prune_logp;  // at most 0: prefixes that rank so far below the best are dropped
  Number blank_skip_logp;  // a frame whose blank is above it has no label

  BackoffAutomaton labels[2];  // of labels: a language model, hot words
  BackoffAutomaton words;      // of words, spelled by the lexicon and ended by `space`
  Lexicon lexicon;
  int64_t space, unknown;  // labels and words
  double unknown_score;    // what a word that the lexicon lacks, or its beginning, is given

  int64_t* best_labels;    // [B, n_best, T], -1 beyond
  int64_t* best_lengths;   // [B, n_best]
  Number* best_log_probs;  // [B, n_best], -infinity where there is no such prefix
  Number* best_scores;     // [B, n_best], with the language models

  bool scored() const { return labels[0].states || labels[1].states || words.states; }
};

// Sentences [begin, end).
template <typename Number>
void ctc_beam_search(const CtcBeamCall<Number>& call, int64_t begin, int64_t end);

// A call on a card, and the memory that it works in.
struct CtcBeamOnCuda {
  CtcBeamCall<float> call;          // its log_probs are of any Element
  int64_t nodes;                    // of a sentence: beam_size times T, at least 1
  int *node_parents, *node_labels;  // [B, nodes]
  float* cells;                     // [B, beam_size, C], or null where they fit into shared memory
  float* gains;                     // [B, ctc_beam_gain_rows, C] with language models
};

bool ctc_beam_cells_fit(int64_t beam_size, int64_t classes, bool scored);
int64_t ctc_beam_gain_rows(int64_t beam_size, bool scored);
const char* ctc_beam_search_cuda(const CtcBeamOnCuda& given, Element element, void* stream);

}  // namespace seqkit
