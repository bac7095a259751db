#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "beam_step/beam_step.h"
#include "common/device.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(beam_row_sweep,
                      (const float* row, int64_t size, float* block_max, float* row_max, float* row_sum));
SEQKIT_DECLARE_LEVELS(beam_at_least, (const float* x, int64_t size, float floor, int32_t* places, int64_t* count));
SEQKIT_DECLARE_LEVELS(beam_mean_sweep, (const float* const* logits, const float* tops, const float* log_sums,
                                        int64_t n_models, int64_t size, float log_models, float* out));

namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// The best continuations of one row, in order, as they are found in the order of their tokens.
struct RowList {
  float* ranking;
  float* step_logp;
  int64_t* token;
  int64_t size;
  int64_t count = 0;

  bool takes(float value) const { return value > kNever && (count < size || value > ranking[count - 1]); }

  // Equal values stay in the order of their tokens: the new one goes behind them.
  void insert(float value, float logp, int64_t id) {
    int64_t place = count < size ? count++ : size - 1;
    for (; place > 0 && ranking[place - 1] < value; --place) {
      ranking[place] = ranking[place - 1];
      step_logp[place] = step_logp[place - 1];
      token[place] = token[place - 1];
    }
    ranking[place] = value;
    step_logp[place] = logp;
    token[place] = id;
  }
};

// A row's logits as log-probabilities: x -> (x - top) - log_sum, and L + that.
struct RowScale {
  float top, log_sum, before;

  float step_logp(float x) const { return (x - top) - log_sum; }

  // Every x below the result has before + step_logp(x) < total, whatever the roundings.
  float floor(float total) const {
    const double x = double(total) - before + log_sum + top;
    const double sizes = std::fabs(double(total)) + std::fabs(double(before)) + log_sum + std::fabs(double(top));
    return std::max(float(x - sizes * 0x1p-20), std::numeric_limits<float>::lowest());
  }
};

int64_t count_of(const int64_t* list, int64_t size, int64_t token) { return std::count(list, list + size, token); }

// A lower bound of the n-th largest of a row, n counting from 1; -inf when there are fewer blocks. It is the n-th
// largest maximum of groups of blocks, and 4 n groups hardly ever have two of the n largest in one.
float bound_of_nth(const std::vector<float>& block_max, int64_t n, std::vector<float>& groups) {
  const int64_t size = int64_t(block_max.size()), n_groups = std::min(size, 4 * n);
  if (n > size) return kNever;
  groups.assign(block_max.begin(), block_max.begin() + n_groups);
  for (int64_t first = n_groups; first < size; first += n_groups) {
    const int64_t count = std::min(n_groups, size - first);
    for (int64_t i = 0; i < count; ++i) groups[i] = std::max(groups[i], block_max[first + i]);
  }
  std::nth_element(groups.begin(), groups.begin() + (n - 1), groups.end(), std::greater<>());
  return groups[n - 1];
}

double length_divisor(const BeamStepCall& call, int64_t length) {
  if (call.length_penalty == 0) return 1.0;
  if (call.length_penalty == 1) return std::pow(double(std::max<int64_t>(length, 1)), call.alpha);
  return std::pow((double(length) + 5.0) / 6.0, call.alpha);
}

// The pool is sorted: equal scores stay in the order in which they came.
void pool_insert(const BeamStepCall& call, int64_t sentence, float score, float logp, float eos_logp, int64_t beam) {
  const int64_t base = sentence * call.pool;
  int64_t place = call.pool;
  while (place > 0 && call.finished_scores[base + place - 1] < score) --place;
  if (place == call.pool) return;
  for (int64_t i = base + call.pool - 1; i > base + place; --i) {
    call.finished_scores[i] = call.finished_scores[i - 1];
    call.finished_logp[i] = call.finished_logp[i - 1];
    call.finished_eos_logp[i] = call.finished_eos_logp[i - 1];
    call.finished_lengths[i] = call.finished_lengths[i - 1];
    call.finished_beams[i] = call.finished_beams[i - 1];
  }
  call.finished_scores[base + place] = score;
  call.finished_logp[base + place] = logp;
  call.finished_eos_logp[base + place] = eos_logp;
  call.finished_lengths[base + place] = call.lengths[sentence];
  call.finished_beams[base + place] = beam;
}

}  // namespace

void beam_step_rows(const BeamStepCall& call, int64_t begin, int64_t end) {
  const int64_t V = call.vocabulary, C = 2 * call.beam_size;
  const auto sweep = SEQKIT_PICK_LEVEL(beam_row_sweep);
  const auto at_least = SEQKIT_PICK_LEVEL(beam_at_least);
  const int64_t n_blocks = (V + kBeamBlock - 1) / kBeamBlock;
  std::vector<float> block_max(n_blocks), groups;
  std::vector<int32_t> blocks(n_blocks);
  int32_t places[kBeamBlock];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t sentence = row / call.beams;
    RowList list{call.row_ranking + row * C, call.row_step_logp + row * C, call.row_token + row * C, C};
    call.row_count[row] = 0;
    const float before = call.logp[row];
    if (!(before > kNever)) continue;
    const float* x = static_cast<const float*>(call.logits) + row * V;
    float top, row_sum;
    sweep(x, V, block_max.data(), &top, &row_sum);
    if (top == kNever) continue;
    const RowScale scale{top, std::log(row_sum), before};
    const auto finite = [&](int64_t token) { return x[token] > kNever; };  // NaN is not
    const auto bounded = [](float value) { return std::min(value, std::numeric_limits<float>::max()); };

    const int64_t forced = call.forced ? call.forced[sentence] : -1;
    if (forced >= 0) {
      if (forced < V && finite(forced)) {
        const float logp = scale.step_logp(bounded(x[forced]));
        const int64_t times =
            call.penalised ? count_of(call.penalised + sentence * call.n_penalised, call.n_penalised, forced) : 0;
        const float value = (before + logp) - call.penalty * float(times);
        if (list.takes(value)) list.insert(value, logp, forced);
      }
      call.row_count[row] = list.count;
      continue;
    }

    const int64_t* banned = call.banned ? call.banned + row * call.n_banned : nullptr;
    const int64_t* penalised = call.penalised ? call.penalised + sentence * call.n_penalised : nullptr;
    const bool no_eos = call.lengths[sentence] < call.min_length;
    const int64_t masked = (banned ? call.n_banned - count_of(banned, call.n_banned, -1) : 0) +
                           (penalised ? call.n_penalised - count_of(penalised, call.n_penalised, -1) : 0) + no_eos;
    const float nth = bound_of_nth(block_max, C + masked, groups);
    float floor = nth > kNever ? scale.floor(before + scale.step_logp(nth)) : std::numeric_limits<float>::lowest();

    const auto consider = [&](int64_t token) {
      const float logp = scale.step_logp(bounded(x[token]));
      float value = before + logp;
      if (!list.takes(value)) return;
      if ((no_eos && token == call.eos) || (banned && count_of(banned, call.n_banned, token))) return;
      if (penalised) value -= call.penalty * float(count_of(penalised, call.n_penalised, token));
      if (!list.takes(value)) return;
      list.insert(value, logp, token);
      if (list.count == C) floor = std::max(floor, scale.floor(list.ranking[C - 1]));
    };
    int64_t n_taken, n_places;
    at_least(block_max.data(), n_blocks, floor, blocks.data(), &n_taken);
    for (int64_t taken = 0; taken < n_taken; ++taken) {
      if (block_max[blocks[taken]] < floor) continue;  // it has risen since
      const int64_t first = blocks[taken] * kBeamBlock;
      at_least(x + first, std::min(kBeamBlock, V - first), floor, places, &n_places);
      for (int64_t place = 0; place < n_places; ++place) {
        const int64_t token = first + places[place];
        if (x[token] >= floor) consider(token);
      }
    }
    call.row_count[row] = list.count;
  }
}

void beam_step_sentences(const BeamStepCall& call, int64_t begin, int64_t end) {
  const int64_t K = call.beams, C = 2 * call.beam_size, F = call.pool;
  std::vector<int64_t> heads(K);
  for (int64_t sentence = begin; sentence < end; ++sentence) {
    const int64_t length = call.lengths[sentence];
    const float live_divisor = float(length_divisor(call, length + 1));
    const float ended_divisor = float(length_divisor(call, length + call.count_eos));
    call.new_lengths[sentence] = length + 1;
    call.n_finished[sentence] = call.old_count[sentence];
    std::copy_n(call.old_scores + sentence * F, F, call.finished_scores + sentence * F);
    std::copy_n(call.old_logp + sentence * F, F, call.finished_logp + sentence * F);
    std::copy_n(call.old_eos_logp + sentence * F, F, call.finished_eos_logp + sentence * F);
    std::copy_n(call.old_lengths + sentence * F, F, call.finished_lengths + sentence * F);
    std::copy_n(call.old_beams + sentence * F, F, call.finished_beams + sentence * F);

    std::fill(heads.begin(), heads.end(), 0);
    int64_t n_live = 0;
    for (int64_t rank = 0; rank < C; ++rank) {
      int64_t best = -1;
      for (int64_t beam = 0; beam < K; ++beam) {
        const int64_t row = sentence * K + beam;
        if (heads[beam] == call.row_count[row]) continue;
        if (best < 0 ||
            call.row_ranking[row * C + heads[beam]] > call.row_ranking[(sentence * K + best) * C + heads[best]]) {
          best = beam;
        }
      }
      const int64_t out = sentence * C + rank;
      if (best < 0) {
        call.candidate_logp[out] = kNever;
        call.candidate_scores[out] = kNever;
        call.candidate_parents[out] = call.first_beam;
        call.candidate_tokens[out] = call.eos;
        continue;
      }
      const int64_t row = sentence * K + best, from = row * C + heads[best]++;
      const int64_t token = call.row_token[from], parent = best + call.first_beam;
      const bool ends = token == call.eos;
      const float step_logp = call.row_step_logp[from];
      const float logp = call.logp[row] + step_logp;
      float score = logp / (ends ? ended_divisor : live_divisor);
      if (call.offset) score += call.offset[row];
      call.candidate_logp[out] = logp;
      call.candidate_scores[out] = score;
      call.candidate_parents[out] = parent;
      call.candidate_tokens[out] = token;
      if (ends) {
        if (rank >= call.beam_size) continue;
        pool_insert(call, sentence, score, logp, step_logp, parent);
        ++call.n_finished[sentence];
      } else if (n_live < call.beam_size) {
        const int64_t live = sentence * call.beam_size + n_live++;
        call.live_logp[live] = logp;
        call.live_scores[live] = score;
        call.live_parents[live] = parent;
        call.live_tokens[live] = token;
        call.live_step_logp[live] = step_logp;
      }
    }
    for (; n_live < call.beam_size; ++n_live) {
      const int64_t live = sentence * call.beam_size + n_live;
      call.live_logp[live] = kNever;
      call.live_scores[live] = kNever;
      call.live_parents[live] = call.first_beam;
      call.live_tokens[live] = call.eos;
      call.live_step_logp[live] = kNever;
    }
  }
}

void mean_log_softmax_row(const float* const* logits, int64_t n_models, int64_t vocabulary, float* out,
                          float* scratch) {
  const auto sweep = SEQKIT_PICK_LEVEL(beam_row_sweep);
  const auto mean = SEQKIT_PICK_LEVEL(beam_mean_sweep);
  std::vector<float> tops(n_models), log_sums(n_models);
  for (int64_t model = 0; model < n_models; ++model) {
    float row_sum;
    sweep(logits[model], vocabulary, scratch, &tops[model], &row_sum);
    if (tops[model] == kNever)
      tops[model] = log_sums[model] = 0.0f;
    else
      log_sums[model] = std::log(row_sum);
  }
  mean(logits, tops.data(), log_sums.data(), n_models, vocabulary, float(std::log(double(n_models))), out);
}

}  // namespace seqkit
