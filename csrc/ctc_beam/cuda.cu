// ctc_beam.h on a card, without language models: a block has a sentence, and walks its frames.
//
// The prefixes of the beam are in shared memory. A prefix and its parent are known by 64-bit hashes of their labels, so
// that a prefix finds its parent in the beam by comparing numbers, and one that has left and comes back needs no tree
// to be found in. (Two prefixes of a beam of 100 over 1,000 frames share a hash with a probability below 1e-12.) All
// extensions are made, [beam, classes] numbers in shared memory where they fit; the beam_size-th best is found by four
// passes over the bytes of their keys, and the winners are written in their order by counting those ahead.
#include "common/cuda.h"
#include "ctc_beam/ctc_beam.h"

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
struct Prefixes {
  uint64_t *hashes, *parents;
  float *sums, *blanks, *labels;
  int *last, *nodes;

  // Takes its arrays of `beams` numbers, an even number, from shared memory and moves behind them.
  SEQKIT_DEVICE void take(unsigned char*& memory, int beams) {
    hashes = reinterpret_cast<uint64_t*>(memory);
    parents = hashes + beams;
    sums = reinterpret_cast<float*>(parents + beams);
    blanks = sums + beams;
    labels = blanks + beams;
    last = reinterpret_cast<int*>(labels + beams);
    nodes = last + beams;
    memory += kBytes * beams;
  }
  static constexpr size_t kBytes = 2 * sizeof(uint64_t) + 3 * sizeof(float) + 2 * sizeof(int);
};

// So that what lies behind is aligned to eight bytes.
__host__ __device__ constexpr int64_t even(int64_t count) { return count + count % 2; }

// The shared memory of a block, but for the extensions.
constexpr size_t bytes_a_prefix() { return 2 * Prefixes::kBytes + 3 * sizeof(float) + 2 * sizeof(int); }
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

template <typename E>
__global__ void __launch_bounds__(kThreads) search_kernel(const CtcBeamOnCuda call) {
  SEQKIT_DYNAMIC_SHARED(unsigned char, shared);
  const int C = static_cast<int>(call.classes), K = static_cast<int>(call.beam_size);
  const int64_t sentence = blockIdx.x;
  const int me = threadIdx.x, lane = me % 32, warp = me / 32;
  unsigned char* memory = shared;
  Prefixes beam, next;
  const int room_for = static_cast<int>(even(K));
  beam.take(memory, room_for);
  next.take(memory, room_for);
  float* const stay_sums = reinterpret_cast<float*>(memory);  // of the prefixes that stay, after the frame
  float* const stay_blanks = stay_sums + K;
  float* const stay_labels = stay_blanks + K;
  int* const places = reinterpret_cast<int*>(stay_labels + K);  // of their parents, or -1
  int* const winners = places + K;
  int* const bins = winners + K;
  int* const room = bins + kBins;  // [4 kWarps + 4]
  float* const cells = call.cells ? call.cells + sentence * K * C : reinterpret_cast<float*>(room + 4 * kWarps + 4);
  int* const node_parents = call.node_parents + sentence * call.nodes;
  int* const node_labels = call.node_labels + sentence * call.nodes;
  const int64_t length = call.lengths[sentence];
  const int frames = static_cast<int>(length < 0 ? 0 : length > call.times ? call.times : length);

  if (me == 0) {
    beam.hashes[0] = mixed(0, -1 + C);
    beam.parents[0] = 0;
    beam.sums[0] = beam.blanks[0] = 0.0f;
    beam.labels[0] = kNever;
    beam.last[0] = beam.nodes[0] = -1;
  }
  int size = 1, n_nodes = 0;
  double offset = 0.0;
  __syncthreads();

  for (int t = 0; t < frames && size > 0; ++t) {
    const E* const frame = static_cast<const E*>(call.log_probs) + (sentence * call.times + t) * C;
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
      best = fmaxf(best, stay_sums[k]);
    }
    const int n_cells = has_labels ? size * C : 0;
    for (int cell = me; cell < n_cells; cell += kThreads) {
      const int k = cell / C, c = cell - k * C;
      const float logp = c == call.blank ? kNever : emission(c);
      cells[cell] = (c == beam.last[k] ? beam.blanks[k] : beam.sums[k]) + logp;
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
      const float rank = candidate < size ? stay_sums[candidate] : cells[candidate - size];
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

    for (int n = me; n < n_winners; n += kThreads) {
      const int candidate = winners[n];
      if (candidate < size) {
        next.hashes[n] = beam.hashes[candidate];
        next.parents[n] = beam.parents[candidate];
        next.sums[n] = stay_sums[candidate] - best;
        next.blanks[n] = stay_blanks[candidate] - best;
        next.labels[n] = stay_labels[candidate] - best;
        next.last[n] = beam.last[candidate];
        next.nodes[n] = beam.nodes[candidate];
      } else {
        const int k = (candidate - size) / C, label = (candidate - size) - k * C;
        next.hashes[n] = mixed(beam.hashes[k], label);
        next.parents[n] = beam.hashes[k];
        next.sums[n] = next.labels[n] = cells[candidate - size] - best;
        next.blanks[n] = kNever;
        next.last[n] = label;
        next.nodes[n] = n_nodes + n;
        node_parents[n_nodes + n] = beam.nodes[k];
        node_labels[n_nodes + n] = label;
      }
    }
    n_nodes += n_winners;
    size = n_winners;
    offset += best;
    const Prefixes spare = beam;
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
  __syncthreads();
  for (int k = me; k < size; k += kThreads) {
    int rank = 0;
    for (int other = 0; other < size; ++other) {
      rank += beam.sums[other] > beam.sums[k] || (beam.sums[other] == beam.sums[k] && other < k);
    }
    if (rank >= N) continue;
    int count = 0;
    for (int node = beam.nodes[k]; node >= 0; node = node_parents[node]) ++count;
    int64_t* const to = call.best_labels + (row + rank) * call.times;
    int i = count;
    for (int node = beam.nodes[k]; node >= 0; node = node_parents[node]) to[--i] = node_labels[node];
    call.best_lengths[row + rank] = count;
    call.best_log_probs[row + rank] = call.best_scores[row + rank] = static_cast<float>(offset + beam.sums[k]);
  }
}

size_t shared_bytes(const CtcBeamOnCuda& call) {
  const size_t fixed = bytes_a_prefix() * even(call.beam_size) + fixed_bytes();
  return call.cells ? fixed : fixed + sizeof(float) * call.beam_size * call.classes;
}

}  // namespace

bool ctc_beam_cells_fit(int64_t beam_size, int64_t classes) {
  return bytes_a_prefix() * even(beam_size) + fixed_bytes() + sizeof(float) * beam_size * classes <= kMostShared;
}

const char* ctc_beam_search_cuda(const CtcBeamOnCuda& call, Element element, void* stream) {
  if (call.batch == 0) return nullptr;
  const dim3 grid(static_cast<unsigned>(call.batch)), block(kThreads);
  const size_t shared = shared_bytes(call);
  if (element == Element::kFloat) {
    SEQKIT_LAUNCH((search_kernel<float>), grid, block, shared, stream, call);
  } else if (element == Element::kHalf) {
    SEQKIT_LAUNCH((search_kernel<__half>), grid, block, shared, stream, call);
  } else {
    SEQKIT_LAUNCH((search_kernel<__nv_bfloat16>), grid, block, shared, stream, call);
  }
  return launch_error();
}

}  // namespace seqkit
