// ctc_beam.h on a card: a block has a sentence, and walks its frames.
//
// The prefixes of the beam are in shared memory. A prefix and its parent are known by 64-bit hashes of their labels, so
// that a prefix finds its parent in the beam by comparing numbers, and one that has left and comes back needs no tree
// to be found in. (Two prefixes of a beam of 100 over 1,000 frames share a hash with a probability below 1e-12.) All
// extensions are made, [beam, classes] numbers in shared memory where they fit; the beam_size-th best is found by four
// passes over the bytes of their keys, and the winners are written in their order by counting those ahead.
//
// With language models a prefix has a row of what each label would add to it, in global memory. A warp fills the row
// when the prefix enters the beam, and it stays where it is until the prefix leaves. Scores are a function of the
// prefix and its parent's, so one that comes back needs no memory of them either.
#include "common/cuda.h"
#include "ctc_beam/ctc_beam.h"
#include "ctc_beam/scores.h"

namespace seqkit {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kBins = 256;
constexpr size_t kMostShared = 96 * 1024;  // what every card since sm_80 gives a block

constexpr float kNever = -INFINITY;

SEQKIT_DEVICE float log_add(float a, float b) {
  const float most = fmaxf(a, b), least = fminf(a, b);
  return least == kNever ? most : most + log1pf(expf(least - most));
}

// A float as an integer of the same order.
SEQKIT_DEVICE uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Steele, Lea and Flood 2014.
SEQKIT_DEVICE uint64_t mixed(uint64_t hash, int label) {
  hash += (static_cast<uint64_t>(label) + 1) * 0x9e3779b97f4a7c15ull;
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ull;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebull;
  return hash ^ (hash >> 31);
}

// The prefixes of the beam, in its order.
template <bool kScored>
struct Prefixes {
  uint64_t *hashes, *parents;
  Standing* standings;
  float *sums, *blanks, *labels;
  float* scores;  // of the language models, relative to the best prefix's
  int *last, *nodes;
  int* rows;  // of gains

  // Takes its arrays of `beams` numbers, an even number, from shared memory and moves behind them.
  SEQKIT_DEVICE void take(unsigned char*& memory, int beams) {
    hashes = reinterpret_cast<uint64_t*>(memory);
    parents = hashes + beams;
    standings = reinterpret_cast<Standing*>(parents + beams);
    sums = reinterpret_cast<float*>(standings + (kScored ? beams : 0));
    blanks = sums + beams;
    labels = blanks + beams;
    scores = labels + beams;
    last = reinterpret_cast<int*>(scores + (kScored ? beams : 0));
    nodes = last + beams;
    rows = nodes + beams;
    memory += kBytes * beams;
  }
  static constexpr size_t kBytes = 2 * sizeof(uint64_t) + 3 * sizeof(float) + 2 * sizeof(int) +
                                   (kScored ? sizeof(Standing) + sizeof(float) + sizeof(int) : 0);
};

// So that what lies behind is aligned to eight bytes.
__host__ __device__ constexpr int64_t even(int64_t count) { return count + count % 2; }

// The shared memory of a block, but for the extensions.
constexpr size_t bytes_a_prefix(bool scored) {
  const size_t twice = scored ? Prefixes<true>::kBytes + sizeof(int) : Prefixes<false>::kBytes;
  return 2 * twice + 3 * sizeof(float) + 2 * sizeof(int);
}
constexpr size_t fixed_bytes() { return (kBins + 4 * kWarps + 4) * sizeof(int); }

SEQKIT_DEVICE float block_max(float value, float* room) {
  value = warp_max(value);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  value = room[0];
  for (int warp = 1; warp < kWarps; ++warp) value = fmaxf(value, room[warp]);
  __syncthreads();
  return value;
}

SEQKIT_DEVICE int block_min(int value, int* room) {
  for (int distance = 16; distance > 0; distance /= 2) value = min(value, __shfl_xor_sync(kWholeWarp, value, distance));
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  value = room[0];
  for (int warp = 1; warp < kWarps; ++warp) value = min(value, room[warp]);
  __syncthreads();
  return value;
}

// What each symbol adds from a state, row [count], by a warp: as `follow` for each of them, but an arc is looked at
// once.
SEQKIT_DEVICE void warp_follow_all(const BackoffAutomaton& in, int64_t state, int count, float* row) {
  const int lane = threadIdx.x % 32;
  for (int c = lane; c < count; c += 32) row[c] = NAN;  // until a context gives it a score: the longest does
  __syncwarp();
  double sum = 0;
  while (state != 0) {
    const Arcs arcs = arcs_of(in.first, state, in.arcs);
    for (int64_t arc = arcs.begin + lane; arc < arcs.end; arc += 32) {
      const int symbol = in.symbols[arc];
      if (symbol < 0 || symbol >= count || row[symbol] == row[symbol]) continue;
      row[symbol] = static_cast<float>(sum + static_cast<double>(in.scores[arc]));
    }
    sum += static_cast<double>(in.backoff[state]);
    const int64_t suffix = in.suffix[state];
    state = suffix >= 0 && suffix < state ? suffix : 0;
    __syncwarp();
  }
  for (int c = lane; c < count; c += 32) {
    if (row[c] != row[c]) row[c] = static_cast<float>(sum + follow(in, 0, c).score);
  }
}

// What each label would add to a prefix, gains [C], by a warp. `row` is scratch, [C].
SEQKIT_DEVICE void warp_fill_gains(const CtcBeamCall<float>& call, const Standing& at, float* gains, float* row) {
  const int C = static_cast<int>(call.classes), lane = threadIdx.x % 32;
  // Any label makes an unknown word of a known beginning, but those that the lexicon has here.
  const float unknown = call.words.states && at.node >= 0 ? static_cast<float>(call.unknown_score) : 0.0f;
  for (int c = lane; c < C; c += 32) gains[c] = unknown;
  __syncwarp();
  if (call.words.states) {
    if (at.node >= 0) {
      const Arcs arcs = arcs_of(call.lexicon.first, at.node, call.lexicon.arcs);
      for (int64_t arc = arcs.begin + lane; arc < arcs.end; arc += 32) {
        const int label = call.lexicon.labels[arc];
        if (label >= 0 && label < C) gains[label] = 0.0f;
      }
      __syncwarp();
    }
    if (lane == 0) gains[call.space] = at.spelled ? static_cast<float>(ended_word(call, at).score) : 0.0f;
    __syncwarp();
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) {
    if (!call.labels[n].states) continue;
    warp_follow_all(call.labels[n], at.labels[n], C, row);
    for (int c = lane; c < C; c += 32) gains[c] += row[c];  // the lane that wrote it
  }
}

template <typename E, bool kScored>
__global__ void __launch_bounds__(kThreads, kScored ? 2 : 6) search_kernel(const CtcBeamOnCuda given) {
  const CtcBeamCall<float>& call = given.call;
  SEQKIT_DYNAMIC_SHARED(unsigned char, shared);
  const int C = static_cast<int>(call.classes), K = static_cast<int>(call.beam_size);
  const int64_t sentence = blockIdx.x;
  const int me = threadIdx.x, lane = me % 32, warp = me / 32;
  unsigned char* memory = shared;
  Prefixes<kScored> beam, next;
  const int room_for = static_cast<int>(even(K));
  beam.take(memory, room_for);
  next.take(memory, room_for);
  float* const stay_sums = reinterpret_cast<float*>(memory);  // of the prefixes that stay, after the frame
  float* const stay_blanks = stay_sums + K;
  float* const stay_labels = stay_blanks + K;
  int* const places = reinterpret_cast<int*>(stay_labels + K);  // of their parents, or -1
  int* const winners = places + K;
  int* const taken = winners + K;              // [K], whether a row of gains is
  int* const free_rows = taken + kScored * K;  // [K]
  int* const bins = free_rows + kScored * K;
  int* const room = bins + kBins;       // [4 kWarps + 4]
  int& first_best = room[4 * kWarps];   // where the best stands in the new beam
  int& n_stays = room[4 * kWarps + 1];  // how many of the new beam were in the old one
  float* const cells = given.cells ? given.cells + sentence * K * C : reinterpret_cast<float*>(room + 4 * kWarps + 4);
  float* const gains = given.gains + kScored * sentence * (K + kWarps) * C;  // [K + kWarps, C], the last are scratch
  int* const node_parents = given.node_parents + sentence * given.nodes;
  int* const node_labels = given.node_labels + sentence * given.nodes;
  const auto gains_of = [&](int row) { return gains + int64_t{row} * C; };
  const int64_t length = call.lengths[sentence];
  const int frames = static_cast<int>(length < 0 ? 0 : length > call.times ? call.times : length);

  if (me == 0) {
    beam.hashes[0] = mixed(0, -1 + C);
    beam.parents[0] = 0;
    beam.sums[0] = beam.blanks[0] = 0.0f;
    beam.labels[0] = kNever;
    beam.last[0] = beam.nodes[0] = -1;
    if constexpr (kScored) {
      beam.standings[0] = at_start(call);
      beam.scores[0] = 0.0f;
      beam.rows[0] = 0;
    }
  }
  int size = 1, n_nodes = 0;
  double offset = 0.0, score_offset = 0.0;
  __syncthreads();
  if constexpr (kScored) {
    if (warp == 0) warp_fill_gains(call, beam.standings[0], gains_of(0), gains_of(K));
    __syncthreads();
  }

  for (int t = 0; t < frames && size > 0; ++t) {
    const E* const frame = reinterpret_cast<const E*>(call.log_probs) + (sentence * call.times + t) * C;
    const auto logp_of = [&](int c) {
      const float logp = to_float(frame[c]);
      return logp == logp ? fminf(logp, static_cast<float>(kMostCtcLogp)) : kNever;
    };
    const bool has_labels = !(logp_of(static_cast<int>(call.blank)) > call.blank_skip_logp);
    int always = -1;  // the most probable label, which is never pruned
    if (has_labels && call.token_min_logp > kNever) {
      float most = kNever;
      for (int c = me; c < C; c += kThreads) most = fmaxf(most, logp_of(c));
      most = block_max(most, reinterpret_cast<float*>(room));
      int first = C;
      for (int c = me; c < C; c += kThreads) first = logp_of(c) == most ? min(first, c) : first;
      always = block_min(first, room);
    }
    const auto emission = [&](int c) {
      const float logp = logp_of(c);
      const bool possible = has_labels ? logp >= call.token_min_logp || c == always : c == call.blank;
      return possible ? logp : kNever;
    };
    const float blank = emission(static_cast<int>(call.blank));
    // A log-probability of the prefix at a place, as it is ranked.
    const auto ranked = [&](float logp, int k) {
      if constexpr (kScored) return logp + beam.scores[k];
      return logp;
    };

    // The prefixes that stay, with what their parents give them.
    float best = kNever;
    for (int k = me; k < size; k += kThreads) {
      const int label = beam.last[k];
      const float logp = label < 0 ? kNever : emission(label);
      int place = -1;
      for (int p = 0; p < size; ++p) place = beam.hashes[p] == beam.parents[k] ? p : place;
      float given = kNever;
      if (place >= 0) given = (beam.last[place] == label ? beam.blanks[place] : beam.sums[place]) + logp;
      places[k] = place;
      stay_blanks[k] = beam.sums[k] + blank;
      stay_labels[k] = log_add(beam.labels[k] + logp, given);
      stay_sums[k] = log_add(stay_blanks[k], stay_labels[k]);
      best = fmaxf(best, ranked(stay_sums[k], k));
    }
    const int n_cells = has_labels ? size * C : 0;
    for (int cell = me; cell < n_cells; cell += kThreads) {
      const int k = cell / C, c = cell - k * C;
      float logp = c == call.blank ? kNever : emission(c);
      if constexpr (kScored) logp += gains_of(beam.rows[k])[c];
      cells[cell] = ranked(c == beam.last[k] ? beam.blanks[k] : beam.sums[k], k) + logp;
    }
    __syncthreads();
    for (int k = me; k < size && has_labels; k += kThreads) {  // the child has it already
      if (places[k] >= 0) cells[places[k] * C + beam.last[k]] = kNever;
    }
    __syncthreads();
    for (int cell = me; cell < n_cells; cell += kThreads) best = fmaxf(best, cells[cell]);
    best = block_max(best, reinterpret_cast<float*>(room));
    if (best == kNever) {
      size = 0;
      break;
    }
    const float least = best + call.beam_prune_logp;
    const int candidates = size + n_cells;
    // The key of a candidate; 0 of one that is out. Stays come first in the order.
    const auto key_of = [&](int candidate) {
      const float rank = candidate < size ? ranked(stay_sums[candidate], candidate) : cells[candidate - size];
      return rank > kNever && rank >= least ? ordered(rank) : 0u;
    };

    // The K-th largest key, a byte at a time; `wanted` of those that share the bytes so far are among the K.
    uint32_t prefix = 0;
    int wanted = K;
    bool all = false;  // there are fewer than K
    for (int shift = 24; shift >= 0 && !all; shift -= 8) {
      for (int bin = me; bin < kBins; bin += kThreads) bins[bin] = 0;
      __syncthreads();
      for (int candidate = me; candidate < candidates; candidate += kThreads) {
        const uint32_t key = key_of(candidate);
        const bool same = shift == 24 || (key >> (shift + 8)) == (prefix >> (shift + 8));
        if (key && same) atomicAdd(bins + ((key >> shift) & 0xff), 1);
      }
      __syncthreads();
      if (warp == 0) {  // a lane has eight bins, the first lane the highest
        int own = 0;
        for (int bin = 0; bin < 8; ++bin) own += bins[kBins - 1 - (8 * lane + bin)];
        int before = own;
        for (int distance = 1; distance < 32; distance *= 2) {
          const int other = __shfl_up_sync(kWholeWarp, before, distance);
          before += lane >= distance ? other : 0;
        }
        before -= own;
        if (lane == 0) room[0] = -1;
        __syncwarp();
        for (int bin = 0; bin < 8; ++bin) {
          const int value = kBins - 1 - (8 * lane + bin), here = bins[value];
          if (before < wanted && before + here >= wanted) {
            room[0] = value;
            room[1] = wanted - before;
          }
          before += here;
        }
      }
      __syncthreads();
      all = room[0] < 0;
      if (!all) {
        prefix |= static_cast<uint32_t>(room[0]) << shift;
        wanted = room[1];
      }
      __syncthreads();
    }

    // The winners in order: those above, and the first `wanted` of those that are equal.
    int above = 0, equal = 0;  // so far
    for (int base = 0; base < candidates; base += kThreads) {
      const int candidate = base + me;
      const uint32_t key = candidate < candidates ? key_of(candidate) : 0u;
      const bool wins = key > (all ? 0u : prefix), ties = !all && key == prefix && key;
      const unsigned wins_here = __ballot_sync(kWholeWarp, wins), ties_here = __ballot_sync(kWholeWarp, ties);
      if (lane == 0) {
        room[warp] = __popc(wins_here);
        room[kWarps + warp] = __popc(ties_here);
      }
      __syncthreads();
      int wins_before = above, ties_before = equal;
      for (int other = 0; other < kWarps; ++other) {
        above += room[other];
        equal += room[kWarps + other];
        wins_before += other < warp ? room[other] : 0;
        ties_before += other < warp ? room[kWarps + other] : 0;
      }
      const unsigned lower = (1u << lane) - 1;
      wins_before += __popc(wins_here & lower);
      ties_before += __popc(ties_here & lower);
      if (wins || (ties && ties_before < wanted)) winners[wins_before + min(ties_before, wanted)] = candidate;
      __syncthreads();
    }
    const int n_winners = above + (all ? 0 : min(equal, wanted));

    if constexpr (kScored) {
      for (int row = me; row < K; row += kThreads) taken[row] = 0;
      if (me == 0) first_best = K, n_stays = 0;
      __syncthreads();
    }
    const float shift = kScored ? 0.0f : best;  // the best prefix becomes 0; with scores its place is not known yet
    for (int n = me; n < n_winners; n += kThreads) {
      const int candidate = winners[n];
      if (candidate < size) {
        next.hashes[n] = beam.hashes[candidate];
        next.parents[n] = beam.parents[candidate];
        next.sums[n] = stay_sums[candidate] - shift;
        next.blanks[n] = stay_blanks[candidate] - shift;
        next.labels[n] = stay_labels[candidate] - shift;
        next.last[n] = beam.last[candidate];
        next.nodes[n] = beam.nodes[candidate];
        if constexpr (kScored) {
          next.standings[n] = beam.standings[candidate];
          next.rows[n] = beam.rows[candidate];
          taken[beam.rows[candidate]] = 1;
          if (n + 1 == n_winners || winners[n + 1] >= size) n_stays = n + 1;
          if (ranked(stay_sums[candidate], candidate) == best) atomicMin(&first_best, n);
        }
      } else {
        const int k = (candidate - size) / C, label = (candidate - size) - k * C;
        next.hashes[n] = mixed(beam.hashes[k], label);
        next.parents[n] = beam.hashes[k];
        if constexpr (kScored) {
          next.sums[n] = (label == beam.last[k] ? beam.blanks[k] : beam.sums[k]) + emission(label);
          next.standings[n] = extended(call, beam.standings[k], label);
          if (cells[candidate - size] == best) atomicMin(&first_best, n);
        } else {
          next.sums[n] = cells[candidate - size] - shift;
        }
        next.labels[n] = next.sums[n];
        next.blanks[n] = kNever;
        next.last[n] = label;
        next.nodes[n] = n_nodes + n;
        node_parents[n_nodes + n] = beam.nodes[k];
        node_labels[n_nodes + n] = label;
      }
    }
    n_nodes += n_winners;
    if constexpr (kScored) {
      __syncthreads();
      const float sum = next.sums[first_best];
      const double score = next.standings[first_best].score;
      if (warp == 0) {
        int n_free = 0;
        for (int base = 0; base < K; base += 32) {
          const bool is_free = base + lane < K && !taken[base + lane];
          const unsigned free_here = __ballot_sync(kWholeWarp, is_free);
          if (is_free) free_rows[n_free + __popc(free_here & ((1u << lane) - 1))] = base + lane;
          n_free += __popc(free_here);
        }
      }
      __syncthreads();
      for (int n = me; n < n_winners; n += kThreads) {
        next.sums[n] -= sum;
        next.blanks[n] -= sum;
        next.labels[n] -= sum;
        next.scores[n] = static_cast<float>(next.standings[n].score - score);
        if (n >= n_stays) next.rows[n] = free_rows[n - n_stays];
      }
      for (int n = n_stays + warp; n < n_winners; n += kWarps) {
        warp_fill_gains(call, next.standings[n], gains_of(free_rows[n - n_stays]), gains_of(K + warp));
        __syncwarp();
      }
      offset += sum;
      score_offset = score;
    } else {
      offset += best;
    }
    size = n_winners;
    const Prefixes<kScored> spare = beam;
    beam = next;
    next = spare;
    __syncthreads();
  }

  // The best, in order.
  const int N = static_cast<int>(call.n_best);
  const int64_t row = sentence * N;
  for (int64_t i = me; i < N * call.times; i += kThreads) call.best_labels[row * call.times + i] = -1;
  for (int n = me; n < N; n += kThreads) {
    if (n < size) continue;
    call.best_lengths[row + n] = 0;
    call.best_log_probs[row + n] = call.best_scores[row + n] = kNever;
  }
  float* const ends = kScored ? stay_sums : beam.sums;  // what they are ranked by
  if constexpr (kScored) {
    for (int k = me; k < size; k += kThreads) {
      const float end = beam.sums[k] + static_cast<float>(at_end(call, beam.standings[k]) - score_offset);
      ends[k] = end > kNever ? end : kNever;  // no NaN, whatever stands in the models: each place has one rank
    }
  }
  __syncthreads();
  for (int k = me; k < size; k += kThreads) {
    int rank = 0;
    for (int other = 0; other < size; ++other) {
      rank += ends[other] > ends[k] || (ends[other] == ends[k] && other < k);
    }
    if (rank >= N) continue;
    const bool there = ends[k] > kNever;  // the end may be impossible
    int count = 0;
    for (int node = there ? beam.nodes[k] : -1; node >= 0; node = node_parents[node]) ++count;
    int64_t* const to = call.best_labels + (row + rank) * call.times;
    int i = count;
    for (int node = there ? beam.nodes[k] : -1; node >= 0; node = node_parents[node]) to[--i] = node_labels[node];
    call.best_lengths[row + rank] = count;
    call.best_log_probs[row + rank] = there ? static_cast<float>(offset + beam.sums[k]) : kNever;
    call.best_scores[row + rank] = there ? static_cast<float>(offset + score_offset + ends[k]) : kNever;
  }
}

size_t fixed_shared_bytes(int64_t beam_size, bool scored) {
  return bytes_a_prefix(scored) * even(beam_size) + fixed_bytes();
}

template <typename E>
void launch(const CtcBeamOnCuda& given, void* stream) {
  const CtcBeamCall<float>& call = given.call;
  const dim3 grid(static_cast<unsigned>(call.batch)), block(kThreads);
  const size_t in_cells = given.cells ? 0 : sizeof(float) * call.beam_size * call.classes;
  const size_t shared = fixed_shared_bytes(call.beam_size, call.scored()) + in_cells;
  if (call.scored()) {
    SEQKIT_LAUNCH((search_kernel<E, true>), grid, block, shared, stream, given);
  } else {
    SEQKIT_LAUNCH((search_kernel<E, false>), grid, block, shared, stream, given);
  }
}

}  // namespace

bool ctc_beam_cells_fit(int64_t beam_size, int64_t classes, bool scored) {
  return fixed_shared_bytes(beam_size, scored) + sizeof(float) * beam_size * classes <= kMostShared;
}

int64_t ctc_beam_gain_rows(int64_t beam_size, bool scored) { return scored ? beam_size + kWarps : 0; }

const char* ctc_beam_search_cuda(const CtcBeamOnCuda& given, Element element, void* stream) {
  if (given.call.batch == 0) return nullptr;
  if (element == Element::kFloat) {
    launch<float>(given, stream);
  } else if (element == Element::kHalf) {
    launch<__half>(given, stream);
  } else {
    launch<__nv_bfloat16>(given, stream);
  }
  return launch_error();
}

}  // namespace seqkit
