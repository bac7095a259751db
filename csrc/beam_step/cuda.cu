// beam_step.h on CUDA: a sweep over the logits, then a block for each sentence, which reads again only what can win.
#include <cmath>
#include <cstdint>

#include "beam_step/beam_step.h"
#include "common/cuda.h"

namespace seqkit {
namespace {

constexpr int kTile = int(kBeamTile);
constexpr int kEach = kTile / 32;  // tokens of a lane: neighbours, so that a lower lane has lower tokens
constexpr int kSweepWarps = 8;     // of a block
constexpr int kMostSentenceWarps = 16;
constexpr int kKept = 4;  // maxima that a lane holds while the bound is sought
constexpr float kLargest = 3.402823466e38f;

__host__ __device__ constexpr int tiles_of(int64_t vocabulary) {
  return static_cast<int>((vocabulary + kTile - 1) / kTile);
}

// A lane's tokens of a tile: NaN and what is behind the row's end as -inf, +inf as the largest float. A row that does
// not begin at a multiple of 16 bytes is read number by number, by the same lanes: its sum is the same.
template <typename Number>
SEQKIT_DEVICE void load_tokens(const Number* row, int token, int vocabulary, float (&x)[kEach]) {
  if (reinterpret_cast<uintptr_t>(row) % 16 == 0 && token + kEach <= vocabulary) {
    constexpr int kPerLoad = 16 / sizeof(Number);
    Number numbers[kEach];
#pragma unroll
    for (int i = 0; i < kEach; i += kPerLoad) {
      const uint4 words = *reinterpret_cast<const uint4*>(row + token + i);
      std::memcpy(numbers + i, &words, sizeof words);
    }
#pragma unroll
    for (int i = 0; i < kEach; ++i) x[i] = to_float(numbers[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kEach; ++i) x[i] = token + i < vocabulary ? to_float(row[token + i]) : -INFINITY;
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) x[i] = fminf(fmaxf(x[i], -INFINITY), kLargest);
}

struct Models {
  const void* logits[kMostModelsOnCuda];  // each [rows, V]
};

// tiles[model][row][tile] = the maximum, and the sum of exp(x - maximum), which is 0 where all are -inf. A row whose
// hypothesis is dead is passed over.
template <typename Number>
__global__ void __launch_bounds__(32 * kSweepWarps)
    sweep_kernel(const __grid_constant__ Models models, const float* logp, int vocabulary, float2* tiles) {
  const int64_t row = blockIdx.x, rows = gridDim.x;
  const int tile = blockIdx.y * kSweepWarps + threadIdx.x / 32, n_tiles = tiles_of(vocabulary), lane = threadIdx.x % 32;
  if (tile >= n_tiles || (logp && !(logp[row] > -INFINITY))) return;
  float x[kEach];
  load_tokens(static_cast<const Number*>(models.logits[blockIdx.z]) + row * vocabulary, tile * kTile + lane * kEach,
              vocabulary, x);
  float most = x[0];
#pragma unroll
  for (int i = 1; i < kEach; ++i) most = fmaxf(most, x[i]);
  most = warp_max(most);
  const float shift = fmaxf(most, -kLargest);  // -inf - -inf would be NaN
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kEach; ++i) sum += expf(x[i] - shift);
  sum = warp_sum(sum);
  if (lane == 0) tiles[(blockIdx.z * rows + row) * n_tiles + tile] = float2{most, sum};
}

// A row's logits as log-probabilities.
struct RowScale {
  float top, log_sum;

  SEQKIT_DEVICE float step_logp(float x) const { return (x - top) - log_sum; }
};

// Of a row's tiles, by a warp; top is -inf where all logits are.
SEQKIT_DEVICE RowScale scale_of(const float2* tiles, int n_tiles, int lane) {
  float top = -INFINITY, sum = 0.0f;
  for (int tile = lane; tile < n_tiles; tile += 32) top = fmaxf(top, tiles[tile].x);
  top = warp_max(top);
  const float shift = fmaxf(top, -kLargest);
  for (int tile = lane; tile < n_tiles; tile += 32) sum += tiles[tile].y * expf(tiles[tile].x - shift);
  return {top, logf(warp_sum(sum))};
}

// Integers in the order of the ranking values, and with the token: of two, the larger is ahead.
SEQKIT_DEVICE uint32_t order_of(float value) {
  const uint32_t bits = __float_as_uint(fmaxf(value, -INFINITY) + 0.0f);  // neither NaN nor -0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

SEQKIT_DEVICE uint64_t key_of(uint32_t order, int token) {
  return uint64_t{order} << 32 | static_cast<uint32_t>(~token);
}

SEQKIT_DEVICE uint32_t order_in(uint64_t key) { return static_cast<uint32_t>(key >> 32); }
SEQKIT_DEVICE int token_in(uint64_t key) { return static_cast<int>(~static_cast<uint32_t>(key)); }

// How often a warp finds the value in a list.
SEQKIT_DEVICE int count_of(const int64_t* list, int64_t size, int64_t value, int lane) {
  int found = 0;
#pragma unroll 1
  for (int64_t i = lane; i < size; i += 32) found += list[i] == value;
  return __reduce_add_sync(kWholeWarp, found);
}

// The best continuations of a row, best first, in shared memory; a warp's own.
struct RowList {
  uint64_t* keys;
  float* step_logp;
  int size;
  int count = 0;

  // The last of a full list falls off.
  SEQKIT_DEVICE void insert(uint64_t key, float logp, int lane) {
    const int last = count < size ? count : size - 1;
    int place = last;
    for (int group = (last - 1) / 32 * 32; group >= 0; group -= 32) {
      const int i = group + lane;
      const bool behind = i < last && keys[i] < key;
      const uint64_t moved_key = behind ? keys[i] : 0;
      const float moved_logp = behind ? step_logp[i] : 0.0f;
      place -= __popc(__ballot_sync(kWholeWarp, behind));
      __syncwarp();
      if (behind) {
        keys[i + 1] = moved_key;
        step_logp[i + 1] = moved_logp;
      }
      __syncwarp();
      if (place > group) break;
    }
    if (lane == 0) {
      keys[place] = key;
      step_logp[place] = logp;
    }
    __syncwarp();
    count = last + 1;
  }
};

// Some order below or at that of n tiles' maxima, as high as can be had from the kKept largest of each lane; 0 if there
// are not so many. n tokens at least are not below it.
template <typename Order>
SEQKIT_DEVICE uint32_t bound_of(const float2* tiles, int n_tiles, int64_t n, const Order& order, int lane) {
  if (n > n_tiles || n > 32 * kKept) return 0;
  float kept[kKept];
#pragma unroll
  for (int i = 0; i < kKept; ++i) kept[i] = -INFINITY;
  for (int tile = lane; tile < n_tiles; tile += 32) {
    float value = tiles[tile].x;
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const float larger = fmaxf(kept[i], value);
      value = fminf(kept[i], value);
      kept[i] = larger;
    }
  }
  uint32_t orders[kKept];
#pragma unroll
  for (int i = 0; i < kKept; ++i) orders[i] = order(kept[i]);
  // The n-th largest, bit by bit.
  uint32_t bound = 0;
  for (uint32_t bit = 0x80000000u; bit; bit >>= 1) {
    int above = 0;
#pragma unroll
    for (int i = 0; i < kKept; ++i) above += orders[i] >= (bound | bit);
    above = __reduce_add_sync(kWholeWarp, above);
    if (above >= n) bound |= bit;
    if (above == n) break;
  }
  return bound;
}

// Fills the list of one row, by a warp.
template <typename Number>
SEQKIT_DEVICE void list_row(const BeamStepCall& call, int64_t row, int64_t sentence, RowList& list, int lane) {
  const float before = call.logp[row];
  if (!(before > -INFINITY)) return;
  const int vocabulary = static_cast<int>(call.vocabulary), n_tiles = tiles_of(vocabulary);
  const float2* const tiles = reinterpret_cast<const float2*>(call.tiles) + row * n_tiles;
  const RowScale scale = scale_of(tiles, n_tiles, lane);
  if (scale.top == -INFINITY) return;
  const Number* const logits = static_cast<const Number*>(call.logits) + row * vocabulary;
  const int64_t* banned = call.banned ? call.banned + row * call.n_banned : nullptr;
  const int64_t* const penalised = call.penalised ? call.penalised + sentence * call.n_penalised : nullptr;
  const auto order = [&](float x) { return order_of(before + scale.step_logp(x)); };

  // A continuation must be ahead of the bar; at first, it must only be possible.
  uint64_t bar = uint64_t{order_of(-INFINITY)} << 32 | 0xffffffffu;
  bool no_eos = false;
  int begin = 0, end = n_tiles;
  const int64_t forced = call.forced ? call.forced[sentence] : -1;
  if (forced >= 0) {  // one token in one tile, before any other mask
    if (forced >= vocabulary) return;
    begin = static_cast<int>(forced) / kTile;
    end = begin + 1;
    banned = nullptr;
  } else {
    no_eos = call.lengths[sentence] < call.min_length;
    const int64_t masked = (banned ? call.n_banned - count_of(banned, call.n_banned, -1, lane) : 0) +
                           (penalised ? call.n_penalised - count_of(penalised, call.n_penalised, -1, lane) : 0) +
                           no_eos;
    const uint64_t bound = uint64_t{bound_of(tiles, n_tiles, list.size + masked, order, lane)} << 32;
    if (bound > bar) bar = bound;
  }

  for (int group = begin; group < end; group += 32) {
    // No token of a tile is ahead of its first one with its maximum.
    const float most = group + lane < end ? tiles[group + lane].x : -INFINITY;
    const uint64_t ahead = key_of(order(most), (group + lane) * kTile);
    unsigned left = __ballot_sync(kWholeWarp, ahead > bar);
    const auto next_tile = [&] {
      while (left) {
        const int at = __ffs(left) - 1;
        left &= left - 1;
        if (__shfl_sync(kWholeWarp, ahead, at) > bar) return group + at;
      }
      return -1;
    };
    float x[kEach], following[kEach];
    int tile = next_tile();
    if (tile >= 0) load_tokens(logits, tile * kTile + lane * kEach, vocabulary, x);
    while (tile >= 0) {
      const int next = next_tile();
      if (next >= 0) load_tokens(logits, next * kTile + lane * kEach, vocabulary, following);
      uint32_t orders[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const bool allowed = forced < 0 || forced == tile * kTile + lane * kEach + i;
        orders[i] = allowed ? order(x[i]) : 0;
      }
      // Best first, until the best is not ahead of the bar.
      while (true) {
        uint32_t mine = orders[0];
#pragma unroll
        for (int i = 1; i < kEach; ++i) mine = max(mine, orders[i]);
        const uint32_t best = __reduce_max_sync(kWholeWarp, mine);
        const int owner = __ffs(__ballot_sync(kWholeWarp, mine == best)) - 1;
        int place = 0;
        float logit = 0.0f;
#pragma unroll
        for (int i = kEach - 1; i >= 0; --i) {
          if (orders[i] == best) place = i, logit = x[i];
        }
        const int token = tile * kTile + owner * kEach + __shfl_sync(kWholeWarp, place, owner);
        const float step_logp = scale.step_logp(__shfl_sync(kWholeWarp, logit, owner));
        if (!(key_of(best, token) > bar)) break;
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
          if (lane == owner && i == place) orders[i] = 0;  // taken
        }
        if (no_eos && token == call.eos) continue;
        if (banned && count_of(banned, call.n_banned, token, lane)) continue;
        float value = before + step_logp;
        // Rounded twice, as on the CPU: a fused product could part two equal values.
        if (penalised) value -= __fmul_rn(call.penalty, float(count_of(penalised, call.n_penalised, token, lane)));
        const uint64_t key = key_of(order_of(value), token);
        if (!(key > bar)) continue;
        list.insert(key, step_logp, lane);
        if (list.count == list.size && list.keys[list.size - 1] > bar) bar = list.keys[list.size - 1];
      }
      tile = next;
#pragma unroll
      for (int i = 0; i < kEach; ++i) x[i] = following[i];
    }
  }
}

// How many of another beam's list are ahead of an order; equal ones are where that beam is the lower.
SEQKIT_DEVICE int count_ahead(const uint64_t* keys, int count, uint32_t order, bool lower) {
  int begin = 0, end = count;
  while (begin < end) {
    const int middle = (begin + end) / 2;
    const uint32_t theirs = order_in(keys[middle]);
    if (theirs > order || (lower && theirs == order)) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

SEQKIT_DEVICE float length_divisor(const BeamStepCall& call, int64_t length) {
  if (call.length_penalty == 0) return 1.0f;
  const double base = call.length_penalty == 1 ? double(length > 1 ? length : 1) : (double(length) + 5.0) / 6.0;
  return float(pow(base, call.alpha));
}

// What a block shares.
struct Shared {
  uint64_t* keys;  // [K, C], and so the next: the lists of the rows
  float* step_logp;
  float* scores;  // [C], of the candidates
  int* chosen;    // [C]: where each candidate stands in the lists, or -1
  int* ended;     // [beam_size]: the candidates that end
  int* counts;    // [K]: of the lists
  int* n_ended;   // [1]

  static int64_t bytes(int64_t beams, int64_t beam_size) {
    return 2 * beams * beam_size * 12 + 2 * beam_size * 8 + beam_size * 4 + beams * 4 + 4;
  }

  SEQKIT_DEVICE Shared(uint64_t* at, int beams, int beam_size) {
    const int C = 2 * beam_size;
    keys = at;
    step_logp = reinterpret_cast<float*>(keys + beams * C);
    scores = step_logp + beams * C;
    chosen = reinterpret_cast<int*>(scores + C);
    ended = chosen + C;
    counts = ended + beam_size;
    n_ended = counts + beams;
  }
};

// The candidates' values and fates, by one warp.
SEQKIT_DEVICE void split(const BeamStepCall& call, const Shared& shared, int64_t sentence, int lane) {
  const int C = static_cast<int>(2 * call.beam_size), beam_size = static_cast<int>(call.beam_size);
  const int64_t length = call.lengths[sentence];
  const float divisor = length_divisor(call, length + (lane % 2 ? int64_t{call.count_eos} : 1));
  const float live_divisor = __shfl_sync(kWholeWarp, divisor, 0), ended_divisor = __shfl_sync(kWholeWarp, divisor, 1);
  const unsigned lower_lanes = (1u << lane) - 1;
  int n_live = 0, n_ended = 0;
  for (int group = 0; group < C; group += 32) {
    const int rank = group + lane, entry = rank < C ? shared.chosen[rank] : -1;
    int64_t token = call.eos, parent = call.first_beam;
    float step_logp = -INFINITY, logp = -INFINITY, score = -INFINITY;
    if (entry >= 0) {
      const int64_t row = sentence * call.beams + entry / C;
      token = token_in(shared.keys[entry]);
      parent += entry / C;
      step_logp = shared.step_logp[entry];
      logp = call.logp[row] + step_logp;
      score = logp / (token == call.eos ? ended_divisor : live_divisor);
      if (call.offset) score += call.offset[row];
    }
    if (rank < C) {
      const int64_t out = sentence * C + rank;
      call.candidate_logp[out] = logp;
      call.candidate_scores[out] = score;
      call.candidate_parents[out] = parent;
      call.candidate_tokens[out] = token;
      shared.scores[rank] = score;
    }
    const bool lives = entry >= 0 && token != call.eos, ends = entry >= 0 && token == call.eos && rank < beam_size;
    const unsigned living = __ballot_sync(kWholeWarp, lives), ending = __ballot_sync(kWholeWarp, ends);
    const int place = n_live + __popc(living & lower_lanes);
    if (lives && place < beam_size) {
      const int64_t out = sentence * beam_size + place;
      call.live_logp[out] = logp;
      call.live_scores[out] = score;
      call.live_parents[out] = parent;
      call.live_tokens[out] = token;
      call.live_step_logp[out] = step_logp;
    }
    if (ends) shared.ended[n_ended + __popc(ending & lower_lanes)] = rank;
    n_live += __popc(living);
    n_ended += __popc(ending);
  }
  for (int place = n_live + lane; place < beam_size; place += 32) {
    const int64_t out = sentence * beam_size + place;
    call.live_logp[out] = -INFINITY;
    call.live_scores[out] = -INFINITY;
    call.live_parents[out] = call.first_beam;
    call.live_tokens[out] = call.eos;
    call.live_step_logp[out] = -INFINITY;
  }
  if (lane == 0) {
    *shared.n_ended = n_ended;
    call.new_lengths[sentence] = length + 1;
    call.n_finished[sentence] = call.old_count[sentence] + n_ended;
  }
}

// The pool and what has just ended, each to the place that those ahead of it leave: higher scores, and equal ones that
// came earlier. NaN counts as -inf.
SEQKIT_DEVICE void update_pool(const BeamStepCall& call, const Shared& shared, int64_t sentence) {
  const int C = static_cast<int>(2 * call.beam_size);
  const int64_t base = sentence * call.pool, all = call.pool + *shared.n_ended;
  const auto score_of = [&](int64_t i) {
    return fmaxf(i < call.pool ? call.old_scores[base + i] : shared.scores[shared.ended[i - call.pool]], -INFINITY);
  };
  for (int64_t i = threadIdx.x; i < all; i += blockDim.x) {
    const float score = score_of(i);
    int64_t place = 0;
#pragma unroll 1
    for (int64_t j = 0; j < all && place < call.pool; ++j) {
      const float other = score_of(j);
      place += other > score || (other == score && j < i);
    }
    if (place >= call.pool) continue;
    const int64_t to = base + place;
    call.finished_scores[to] = score;
    if (i < call.pool) {
      call.finished_logp[to] = call.old_logp[base + i];
      call.finished_eos_logp[to] = call.old_eos_logp[base + i];
      call.finished_lengths[to] = call.old_lengths[base + i];
      call.finished_beams[to] = call.old_beams[base + i];
    } else {
      const int entry = shared.chosen[shared.ended[i - call.pool]], beam = entry / C;
      call.finished_logp[to] = call.logp[sentence * call.beams + beam] + shared.step_logp[entry];
      call.finished_eos_logp[to] = shared.step_logp[entry];
      call.finished_lengths[to] = call.lengths[sentence];
      call.finished_beams[to] = beam + call.first_beam;
    }
  }
}

template <typename Number>
__global__ void __launch_bounds__(32 * kMostSentenceWarps) sentence_kernel(const __grid_constant__ BeamStepCall call) {
  SEQKIT_DYNAMIC_SHARED(uint64_t, memory);
  const int K = static_cast<int>(call.beams), C = static_cast<int>(2 * call.beam_size);
  const Shared shared(memory, K, C / 2);
  const int64_t sentence = blockIdx.x;
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;

  for (int rank = threadIdx.x; rank < C; rank += blockDim.x) shared.chosen[rank] = -1;
  for (int beam = threadIdx.x / 32; beam < K; beam += warps) {
    RowList list{shared.keys + beam * C, shared.step_logp + beam * C, C};
    list_row<Number>(call, sentence * K + beam, sentence, list, lane);
    if (lane == 0) shared.counts[beam] = list.count;
  }
  __syncthreads();

  // An entry's rank is the number of those ahead of it.
  for (int entry = threadIdx.x; entry < K * C; entry += blockDim.x) {
    const int beam = entry / C;
    int rank = entry % C;
    if (rank >= shared.counts[beam]) continue;
    const uint32_t order = order_in(shared.keys[entry]);
    for (int other = 0; other < K && rank < C; ++other) {
      if (other == beam) continue;
      rank += count_ahead(shared.keys + other * C, shared.counts[other], order, other < beam);
    }
    if (rank < C) shared.chosen[rank] = entry;
  }
  __syncthreads();
  if (threadIdx.x < 32) split(call, shared, sentence, lane);
  __syncthreads();
  update_pool(call, shared, sentence);
}

// A block has eight tiles of a row; a warp gives one tile of the mean.
template <typename Number>
__global__ void __launch_bounds__(32 * kSweepWarps)
    mean_kernel(const __grid_constant__ MeanLogSoftmax call, float log_models) {
  SEQKIT_DYNAMIC_SHARED(RowScale, scales);  // [models]
  const int64_t row = blockIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, models = static_cast<int>(call.models);
  const int vocabulary = static_cast<int>(call.vocabulary), n_tiles = tiles_of(vocabulary);
  for (int model = warp; model < models; model += kSweepWarps) {
    const float2* const tiles = reinterpret_cast<const float2*>(call.tiles) + (model * call.rows + row) * n_tiles;
    RowScale scale = scale_of(tiles, n_tiles, lane);
    if (scale.top == -INFINITY) scale = {0.0f, 0.0f};  // all its log-probabilities are -inf
    if (lane == 0) scales[model] = scale;
  }
  __syncthreads();
  const int tile = blockIdx.y * kSweepWarps + warp, token = tile * kTile + lane * kEach;
  if (token >= vocabulary) return;
  float x[kEach], best[kEach], total[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) best[i] = -INFINITY, total[i] = 0.0f;
  for (int model = 0; model < models; ++model) {
    const RowScale scale = scales[model];
    load_tokens(static_cast<const Number*>(call.logits[model]) + row * vocabulary, token, vocabulary, x);
#pragma unroll
    for (int i = 0; i < kEach; ++i) best[i] = fmaxf(best[i], scale.step_logp(x[i]));
  }
  for (int model = 0; model < models; ++model) {
    const RowScale scale = scales[model];
    load_tokens(static_cast<const Number*>(call.logits[model]) + row * vocabulary, token, vocabulary, x);
#pragma unroll
    for (int i = 0; i < kEach; ++i) total[i] += expf(scale.step_logp(x[i]) - fmaxf(best[i], -kLargest));
  }
  // The largest share is 1; where no model gives a probability, best is -inf and stays so.
#pragma unroll
  for (int i = 0; i < kEach; ++i) x[i] = (best[i] + logf(fmaxf(total[i], 1.0f))) - log_models;
  float* const out = call.out + row * vocabulary + token;
  if (reinterpret_cast<uintptr_t>(out) % 16 == 0 && token + kEach <= vocabulary) {
#pragma unroll
    for (int i = 0; i < kEach; i += 4) *reinterpret_cast<float4*>(out + i) = float4{x[i], x[i + 1], x[i + 2], x[i + 3]};
  } else {
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (token + i < vocabulary) out[i] = x[i];
    }
  }
}

// Rows in x, blocks of tiles in y.
dim3 grid_of(int64_t rows, int64_t vocabulary, int64_t models) {
  const int blocks = (tiles_of(vocabulary) + kSweepWarps - 1) / kSweepWarps;
  return dim3(static_cast<unsigned>(rows), static_cast<unsigned>(blocks), static_cast<unsigned>(models));
}

template <typename Number>
const char* beam_step_of(const BeamStepCall& call, void* stream) {
  const int64_t rows = call.sentences * call.beams;
  if (rows > 0) {
    SEQKIT_LAUNCH((sweep_kernel<Number>), grid_of(rows, call.vocabulary, 1), dim3(32 * kSweepWarps), 0, stream,
                  Models{{call.logits}}, call.logp, static_cast<int>(call.vocabulary),
                  reinterpret_cast<float2*>(call.tiles));
    if (const char* error = launch_error()) return error;
  }
  const int64_t warps = call.beams < 1 ? 1 : call.beams > kMostSentenceWarps ? kMostSentenceWarps : call.beams;
  SEQKIT_LAUNCH((sentence_kernel<Number>), dim3(static_cast<unsigned>(call.sentences)),
                dim3(static_cast<unsigned>(32 * warps)), Shared::bytes(call.beams, call.beam_size), stream, call);
  return launch_error();
}

template <typename Number>
const char* mean_log_softmax_of(const MeanLogSoftmax& call, void* stream) {
  Models models{};
  for (int64_t model = 0; model < call.models; ++model) models.logits[model] = call.logits[model];
  SEQKIT_LAUNCH((sweep_kernel<Number>), grid_of(call.rows, call.vocabulary, call.models), dim3(32 * kSweepWarps), 0,
                stream, models, static_cast<const float*>(nullptr), static_cast<int>(call.vocabulary),
                reinterpret_cast<float2*>(call.tiles));
  if (const char* error = launch_error()) return error;
  SEQKIT_LAUNCH((mean_kernel<Number>), grid_of(call.rows, call.vocabulary, 1), dim3(32 * kSweepWarps),
                call.models * sizeof(RowScale), stream, call, static_cast<float>(std::log(double(call.models))));
  return launch_error();
}

}  // namespace

const char* beam_step_cuda(const BeamStepCall& call, Element element, void* stream) {
  if (call.sentences == 0) return nullptr;
  if (element == Element::kFloat) return beam_step_of<float>(call, stream);
  if (element == Element::kHalf) return beam_step_of<__half>(call, stream);
  return beam_step_of<__nv_bfloat16>(call, stream);
}

const char* mean_log_softmax_cuda(const MeanLogSoftmax& call, Element element, void* stream) {
  if (call.rows == 0 || call.vocabulary == 0) return nullptr;
  if (element == Element::kFloat) return mean_log_softmax_of<float>(call, stream);
  if (element == Element::kHalf) return mean_log_softmax_of<__half>(call, stream);
  return mean_log_softmax_of<__nv_bfloat16>(call, stream);
}

}  // namespace seqkit
