// word2vec_step.h on a card: a warp has a stretch of positions, and walks through their windows.
#include <algorithm>

#include "common/cuda.h"
#include "word2vec_step/word2vec_step.h"

namespace seqkit {
namespace {

constexpr int kMostWarps = 4;                                  // of a block, fewer where their windows are large
constexpr int64_t kSharedFloats = 163 * 1024 / sizeof(float);  // of a block on sm_80

// What a lane holds of a row, and how many output rows it holds at a time: what fits into its registers.
template <int kSlots, int kOutputs>
struct Tile {};

// Calls `run` with the tile for rows of this width.
template <typename Run>
auto with_tile(int64_t width, const Run& run) {
  if (width <= 96) return run(Tile<3, 8>{});
  if (width <= 128) return run(Tile<4, 8>{});
  if (width <= 256) return run(Tile<8, 8>{});
  if (width <= 320) return run(Tile<10, 8>{});
  if (width <= 512) return run(Tile<16, 4>{});
  return run(Tile<32, 2>{});
}

SEQKIT_DEVICE bool is_word(const Word2VecStep& call, int id) { return id >= 0 && id < call.vocabulary; }

// How many words of the sentence stand next to position t on one side (direction -1 or +1), at most `radius`.
SEQKIT_DEVICE int reach(const Word2VecStep& call, int64_t t, int direction, int radius) {
  const int lane = threadIdx.x % 32;
  for (int base = 0;; base += 32) {
    const int distance = base + lane + 1;
    const int64_t at = t + direction * distance;
    const bool inside = distance <= radius && at >= 0 && at < call.size && is_word(call, call.ids[at]);
    const unsigned ends = ~__ballot_sync(kWholeWarp, inside);
    if (ends != 0) return base + __ffs(static_cast<int>(ends)) - 1;
  }
}

// The number of output k of a position, or -1 where it has no step.
SEQKIT_DEVICE int output_word(const Word2VecStep& call, int64_t position, int word, int k) {
  if (k == 0) return word;
  if (k > call.n_negatives) return -1;
  const int drawn = call.negatives[position * call.n_negatives + k - 1];
  return is_word(call, drawn) && drawn != word ? drawn : -1;
}

// One window. `rows` holds 2 window rows, and behind them as many moves where there are several tiles of outputs.
template <int kSlots, int kOutputs>
SEQKIT_DEVICE void walk_window(const Word2VecStep& call, int64_t position, float* rows) {
  constexpr int kPadded = 32 * kSlots, kLanesOfOutput = 32 / kOutputs;
  const int lane = threadIdx.x % 32, width = static_cast<int>(call.width);
  const int64_t t = call.begin + position;
  const int word = call.ids[t], window = static_cast<int>(call.window);
  const int asked = call.radii[position], radius = asked < 0 ? 0 : asked < window ? asked : window;
  int left = 0, n_in = 0;
  if (is_word(call, word)) {
    left = reach(call, t, -1, radius);
    n_in = left + reach(call, t, 1, radius);
  }
  if (n_in == 0) {
    if (lane == 0) {
      call.losses[position] = 0.0f;
      call.pairs[position] = 0;
    }
    return;
  }
  const int32_t* const ids = call.ids + (t - left);
  const auto input_row = [&](int r) { return call.inputs + int64_t{ids[r < left ? r : r + 1]} * call.width; };

  // A lane reads what it has written itself, so that no barrier is needed.
  const int n_rows = call.mean ? 1 : n_in;
  if (call.mean) {
    float sum[kSlots] = {};
    for (int r = 0; r < n_in; ++r) {
      const float* const row = input_row(r);
#pragma unroll
      for (int j = 0; j < kSlots; ++j) {
        if (lane + 32 * j < width) sum[j] += load_past_l1(row + lane + 32 * j);
      }
    }
    const float share = 1.0f / static_cast<float>(n_in);
#pragma unroll
    for (int j = 0; j < kSlots; ++j) rows[lane + 32 * j] = share * sum[j];
  } else {
#pragma unroll 2
    for (int r = 0; r < n_in; ++r) {
      const float* const row = input_row(r);
#pragma unroll
      for (int j = 0; j < kSlots; ++j) {
        rows[r * kPadded + lane + 32 * j] = lane + 32 * j < width ? load_past_l1(row + lane + 32 * j) : 0.0f;
      }
    }
  }

  float* const moves = rows + (call.mean ? 1 : 2 * window) * kPadded;
  const int n_out = static_cast<int>(call.n_negatives) + 1;
  float loss = 0.0f;
  for (int first = 0; first < n_out; first += kOutputs) {
    const bool last = first + kOutputs >= n_out;
    float out[kOutputs][kSlots], step[kOutputs][kSlots];
#pragma unroll
    for (int k = 0; k < kOutputs; ++k) {
      const int id = output_word(call, position, word, first + k);
      const float* const row = call.outputs + int64_t{id < 0 ? 0 : id} * call.width;
#pragma unroll
      for (int j = 0; j < kSlots; ++j) {
        out[k][j] = id >= 0 && lane + 32 * j < width ? load_past_l1(row + lane + 32 * j) : 0.0f;
        step[k][j] = 0.0f;
      }
    }
    // Of the output whose sum this lane gets.
    const int own = first + lane / kLanesOfOutput;
    const float sign = own == 0 ? 1.0f : -1.0f;
    const float weight = output_word(call, position, word, own) < 0 ? 0.0f : own == 0 ? 1.0f : call.negative_weight;

    for (int r = 0; r < n_rows; ++r) {
      float x[kSlots], scores[kOutputs], move[kSlots];
#pragma unroll
      for (int j = 0; j < kSlots; ++j) {
        x[j] = rows[r * kPadded + lane + 32 * j];
        move[j] = first == 0 ? 0.0f : moves[r * kPadded + lane + 32 * j];
      }
#pragma unroll
      for (int k = 0; k < kOutputs; ++k) {
        scores[k] = 0.0f;
#pragma unroll
        for (int j = 0; j < kSlots; ++j) scores[k] = fmaf(x[j], out[k][j], scores[k]);
      }
      const float right = sign * warp_sums(scores), e = __expf(-fabsf(right));
      loss += weight * (fmaxf(-right, 0.0f) + __logf(1.0f + e));
      const float mine = call.rate * weight * sign * __fdividef(right >= 0.0f ? e : 1.0f, 1.0f + e);
#pragma unroll
      for (int k = 0; k < kOutputs; ++k) {
        const float g = __shfl_sync(kWholeWarp, mine, k * kLanesOfOutput);
#pragma unroll
        for (int j = 0; j < kSlots; ++j) {
          move[j] = fmaf(g, out[k][j], move[j]);
          step[k][j] = fmaf(g, x[j], step[k][j]);
        }
      }
      if (!last) {
#pragma unroll
        for (int j = 0; j < kSlots; ++j) moves[r * kPadded + lane + 32 * j] = move[j];
        continue;
      }
      for (int i = r; i < (call.mean ? n_in : r + 1); ++i) {
        float* const row = input_row(i);
#pragma unroll
        for (int j = 0; j < kSlots; ++j) {
          if (lane + 32 * j < width) atomicAdd(row + lane + 32 * j, move[j]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kOutputs; ++k) {
      const int id = output_word(call, position, word, first + k);
      if (id < 0) continue;
      float* const row = call.outputs + int64_t{id} * call.width;
#pragma unroll
      for (int j = 0; j < kSlots; ++j) {
        if (lane + 32 * j < width) atomicAdd(row + lane + 32 * j, step[k][j]);
      }
    }
  }
  loss = warp_sum(lane % kLanesOfOutput == 0 ? loss : 0.0f);
  if (lane == 0) {
    call.losses[position] = loss;
    call.pairs[position] = n_rows;
  }
}

// Each warp walks through `stretch` positions.
template <int kSlots, int kOutputs>
__global__ void __launch_bounds__(32 * kMostWarps)
    step_kernel(const Word2VecStep call, int64_t stretch, int64_t shared) {
  SEQKIT_DYNAMIC_SHARED(float, room);  // [warps, shared]
  const unsigned warp = threadIdx.x / 32;
  const int64_t first = (int64_t{blockIdx.x} * (blockDim.x / 32) + warp) * stretch;
  const int64_t end = first + stretch < call.positions ? first + stretch : call.positions;
  for (int64_t position = first; position < end; ++position) {
    walk_window<kSlots, kOutputs>(call, position, room + warp * shared);
  }
}

// Floats of shared memory that one warp needs.
int64_t shared_floats(const Word2VecStep& call) {
  return with_tile(call.width, [&]<int kSlots, int kOutputs>(Tile<kSlots, kOutputs>) {
    return (call.mean ? 1 : 2 * call.window) * (call.n_negatives < kOutputs ? 1 : 2) * 32 * kSlots;
  });
}

}  // namespace

const char* word2vec_step_cuda(const Word2VecStep& call, int64_t concurrency, void* stream) {
  if (call.positions == 0) return nullptr;
  const int64_t stretch = (call.positions + concurrency - 1) / concurrency;
  const int64_t warps = (call.positions + stretch - 1) / stretch, shared = shared_floats(call);
  const int64_t of_block = std::clamp<int64_t>(shared > 0 ? kSharedFloats / shared : kMostWarps, 1, kMostWarps);
  with_tile(call.width, [&]<int kSlots, int kOutputs>(Tile<kSlots, kOutputs>) {
    SEQKIT_LAUNCH((step_kernel<kSlots, kOutputs>), dim3(static_cast<unsigned>((warps + of_block - 1) / of_block)),
                  dim3(static_cast<unsigned>(32 * of_block)), of_block * shared * sizeof(float), stream, call, stretch,
                  shared);
  });
  return launch_error();
}

}  // namespace seqkit
