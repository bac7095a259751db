// One step of a beam search: log-softmax, masks, ranking and the split into live and ended, for a batch of sentences.
//
// logits [B][K][V] are float32, on CUDA float16 and bfloat16 too; the definition of every output is
// `beam_step_reference` in seqkit/ops/beam_step.py. Two passes:
//   rows      each of the B*K rows alone: its log-sum-exp, and its C = 2*beam_size best continuations in order;
//   sentences each of the B sentences alone: merges its K lists, splits the C best, updates the pool of the ended.
// A row's list depends on that row alone; no sum crosses rows, threads or blocks of another size.
//
// On the CPU a row is cut into blocks of 128 tokens. While a block is in the first-level cache it gives its maximum and
// its share of the sum of exponentials (rescaled when the running maximum grows). With the block maxima known, C +
// (masked tokens) blocks hold a maximum at least as large as the n-th of them, so that smaller tokens cannot be among
// the C best: the second look skips nearly all blocks.
//
// On CUDA the passes are two launches, without a wait for the device between them:
//   sweep     a warp has 256 tokens of one row, a tile, and leaves their maximum and their sum of exponentials relative
//             to it. So the card is filled however few rows there are, and a sum's order depends on V alone.
//   sentences a block has a sentence, a warp each of its rows. With the row's log-sum-exp the tiles' maxima become
//             ranking values, and C + (masked tokens) of them bound the C best from below. The tiles above that bound
//             are read again, from the cache, and their tokens come best first into a list in shared memory, which
//             raises the bound. The choice is by ranking value and token, so that logits which tie only after rounding
//             need no care of their own. Then each entry of the K lists counts those ahead of it.
// Whatever the logits are, a tile is read at most twice and gives at most C + (masked tokens) tokens.
//
// Order: higher ranking value, then lower beam, then lower token. NaN logits count as -inf, +inf as the largest float.
//
// Tried and dropped (64 x 4 x 32000 tokens, microseconds of CPU on one thread; as it stands 1500):
//   the exp of numerics.h, which is right for every argument                          5,700
//   Cephes' exp without the machine's own rounding and scaling, and no prefetching    3,900
//   x - top, its exp by rounding to the nearest, all block maxima kept in order       2,100
//   the second look number by number                                                  2,350
//   blocks of 256 tokens                                                              1,490, no gain
#pragma once

#include <cstdint>

#include "common/device.h"

namespace seqkit {

constexpr int64_t kBeamBlock = 128;  // tokens
constexpr int64_t kBeamTile = 256;   // tokens of a warp on CUDA

// What the CUDA kernels take: the lists of a sentence stand in shared memory, a row's tiles in the second dimension of
// a grid, the models of an ensemble in a kernel's arguments.
constexpr int64_t kMostBeamsOnCuda = 64;
constexpr int64_t kMostTokensOnCuda = int64_t{1} << 23;
constexpr int64_t kMostModelsOnCuda = 32;

struct BeamStepCall {
  int64_t sentences, beams, vocabulary, pool;
  int64_t beam_size, eos, min_length, first_beam, n_banned, n_penalised;
  int64_t length_penalty;  // 0 none, 1 power, 2 gnmt
  double alpha;
  float penalty;
  bool count_eos;

  const void* logits;       // [B, K, V]
  const float* logp;        // [B, K]
  const int64_t* lengths;   // [B]
  const float* old_scores;  // [B, F], and so the other `old`
  const float* old_logp;
  const float* old_eos_logp;
  const int64_t* old_lengths;
  const int64_t* old_beams;
  const int64_t* old_count;  // [B]
  const float* offset;       // [B, K] or null
  const int64_t* forced;     // [B] or null
  const int64_t* banned;     // [B, K, n_banned] or null
  const int64_t* penalised;  // [B, n_penalised] or null

  // Scratch of the CPU: the C best of each row, best first; a count below C says there are no more.
  float* row_ranking;    // [B, K, C]
  float* row_step_logp;  // [B, K, C]
  int64_t* row_token;    // [B, K, C]
  int64_t* row_count;    // [B, K]
  // Scratch of CUDA: the maximum and the sum of each tile.
  float* tiles;  // [B, K, ceil(V / 256), 2]

  float* live_logp;  // [B, beam_size], and so the other `live`
  float* live_scores;
  int64_t* live_parents;
  int64_t* live_tokens;
  float* live_step_logp;
  int64_t* new_lengths;    // [B]
  float* finished_scores;  // [B, F], and so the other `finished`
  float* finished_logp;
  float* finished_eos_logp;
  int64_t* finished_lengths;
  int64_t* finished_beams;
  int64_t* n_finished;    // [B]
  float* candidate_logp;  // [B, C], and so the other `candidate`
  float* candidate_scores;
  int64_t* candidate_parents;
  int64_t* candidate_tokens;
};

// Rows [begin, end) of B*K.
void beam_step_rows(const BeamStepCall& call, int64_t begin, int64_t end);

// Sentences [begin, end), after their rows.
void beam_step_sentences(const BeamStepCall& call, int64_t begin, int64_t end);

// The log of the mean of the models' softmaxes: logits [n_models][V] by pointer, out [V]. `scratch` holds V/128 + 1
// floats.
void mean_log_softmax_row(const float* const* logits, int64_t n_models, int64_t vocabulary, float* out, float* scratch);

struct MeanLogSoftmax {
  const void* logits[kMostModelsOnCuda];  // each [rows, V]
  int64_t models, rows, vocabulary;
  float* tiles;  // [models, rows, ceil(V / 256), 2], scratch
  float* out;    // [rows, V]
};

// On CUDA; null or what the launch said.
const char* beam_step_cuda(const BeamStepCall& call, Element element, void* stream);
const char* mean_log_softmax_cuda(const MeanLogSoftmax& call, Element element, void* stream);

}  // namespace seqkit
