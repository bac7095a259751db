// The kernels of decode_attention.h for CUDA. A step is bound by memory: each key and each value is read once, 16 bytes
// a lane, and waits in registers for the beams that share it.
//
// A team of four warps serves one hypothesis, or up to four that share their rows. kLanes lanes hold a row, eight
// numbers each, so that a team takes 128 / kLanes positions at a time; such a group of lanes keeps the softmax of its
// own positions. After each kChunk positions the groups are summed, and the chunk is folded into what came before: in
// registers, or where the grid is split over positions by a second kernel, with the same operations. So a result does
// not depend on how the work was divided.
#include <algorithm>

#include "common/cuda.h"
#include "decode_attention/decode_attention.h"

namespace seqkit {
namespace {

constexpr int kWarps = 4;  // of a team
constexpr int kTeamThreads = 32 * kWarps;
constexpr int kMostTeams = 2;    // of a block: neighbours read the same rows, or many of the same
constexpr int kSharers = 4;      // hypotheses that a team serves at most
constexpr int kChunk = 128;      // positions
constexpr int kNumbers = 8;      // of a row in each lane
constexpr int kTogether = 2;     // positions of a group that enter its softmax at once
constexpr int kWidest = 256;     // numbers of a head: 32 lanes
constexpr int kMergers = 128;    // threads of the second kernel
constexpr int kCardTeams = 256;  // two for each multiprocessor of a large card

constexpr float kLog2E = 1.44269504088896341f;

// How a call is divided; by its shapes alone, so that a captured graph serves every step.
struct Plan {
  int64_t tiles;             // blocks of a sentence and head
  int teams;                 // of a block
  int64_t chunks;            // at most, of a row
  int64_t splits;            // of the chunks
  int64_t chunks_per_split;  // each block's share
  bool merged;               // a second kernel folds the chunks
  bool whole;                // rows are read 16 bytes at a time
};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

int beams_per_team(const DecodeAttention& call) { return call.ancestry || call.beams == 1 ? 1 : kSharers; }

int64_t rows_of(const DecodeAttention& call) { return call.batch * call.beams * call.heads; }

bool is_whole(const void* at, const DecodeStrides& strides, const DecodeAttention& call, int64_t beams,
              int64_t positions, int64_t bytes) {
  const auto fits = [&](int64_t size, int64_t stride) { return size <= 1 || stride * bytes % 16 == 0; };
  return reinterpret_cast<uintptr_t>(at) % 16 == 0 && call.width * bytes % 16 == 0 && fits(call.batch, strides.batch) &&
         fits(beams, strides.beam) && fits(positions, strides.position) && fits(call.heads, strides.head);
}

Plan plan_of(const DecodeAttention& call, int64_t bytes) {
  Plan plan{};
  const int64_t tiles = divide_up(call.beams, beams_per_team(call)), teams = call.batch * call.heads * tiles;
  const int64_t longest = call.lengths || call.step_at ? call.capacity : std::min(call.step + 1, call.capacity);
  plan.chunks = std::max<int64_t>(1, divide_up(longest, kChunk));
  const int64_t wanted = std::clamp<int64_t>(kCardTeams / std::max<int64_t>(1, teams), 1, plan.chunks);
  plan.chunks_per_split = divide_up(plan.chunks, wanted);
  plan.splits = divide_up(plan.chunks, plan.chunks_per_split);
  plan.merged = plan.splits > 1 || call.weights;
  plan.teams = tiles > 1 && teams * plan.splits >= kMostTeams * kCardTeams ? kMostTeams : 1;
  plan.tiles = divide_up(tiles, plan.teams);
  plan.whole = is_whole(call.q, call.q_strides, call, call.beams, 1, bytes) &&
               is_whole(call.k, call.k_strides, call, call.cache_beams, call.capacity, bytes) &&
               is_whole(call.v, call.v_strides, call, call.cache_beams, call.capacity, bytes);
  return plan;
}

// What the blocks leave for the second kernel.
struct Scratch {
  float* sums;    // [rows][chunks][width]
  float* tops;    // [rows][chunks]
  float* totals;  // [rows][chunks]
  float* logits;  // [rows][capacity], with weights only
};

Scratch scratch_of(const DecodeAttention& call, const Plan& plan) {
  const int64_t parts = rows_of(call) * plan.chunks;
  float* const tops = call.scratch + parts * call.width;
  return {call.scratch, tops, tops + parts, call.weights ? tops + 2 * parts : nullptr};
}

SEQKIT_DEVICE int64_t clamped(int64_t value, int64_t limit) { return max(int64_t{0}, min(value, limit - 1)); }

// How many positions count, from 0 to the capacity whatever memory says.
SEQKIT_DEVICE int64_t count_of(const DecodeAttention& call, int64_t sentence) {
  if (call.lengths) return clamped(call.lengths[sentence], call.capacity + 1);
  if (call.step_at) return min(clamped(*call.step_at, call.capacity) + 1, call.capacity);
  return call.step + 1;
}

// 2^(value - top), where nothing has come yet (both are -infinity) 0.
SEQKIT_DEVICE float power(float value, float top) { return exp2f(value - (top == -INFINITY ? 0.0f : top)); }

// A softmax under way: the largest logit so far, in units of log 2, and the sum of the others' powers relative to it.
struct Softmax {
  float top = -INFINITY, total = 0.0f;
};

// Takes in a chunk; what was summed so far is to be multiplied by the first result, what the chunk brings by the
// second.
SEQKIT_DEVICE float2 fold(Softmax& softmax, float top, float total) {
  const float above = fmaxf(softmax.top, top);
  const float2 factors = make_float2(power(softmax.top, above), power(top, above));
  softmax.total = fmaf(softmax.total, factors.x, total * factors.y);
  softmax.top = above;
  return factors;
}

SEQKIT_DEVICE float fold_sum(float sum, float value, float2 factors) { return fmaf(sum, factors.x, value * factors.y); }

SEQKIT_DEVICE float inverse(float total) { return total == 0.0f ? 0.0f : 1.0f / total; }

// A lane's eight numbers of a row, as they lie in memory. Lane `part` holds every kLanes-th 16 bytes.
template <typename Number, int kLanes>
struct Slice {
  static constexpr int kPerVector = 16 / sizeof(Number);
  static constexpr int kVectors = kNumbers / kPerVector;
  uint4 bits[kVectors];

  static SEQKIT_DEVICE int column(int vector, int part) { return (vector * kLanes + part) * kPerVector; }

  // Numbers beyond the width are zeros, as is a row that is not `inside`. A row that does not lie on 16 bytes is
  // gathered into the same registers.
  template <bool kWhole>
  SEQKIT_DEVICE void load(const Number* row, int part, int width, bool inside) {
#pragma unroll
    for (int vector = 0; vector < kVectors; ++vector) {
      const int first = column(vector, part);
      if constexpr (kWhole) {
        bits[vector] = make_uint4(0, 0, 0, 0);
        if (inside && first < width) bits[vector] = __ldg(reinterpret_cast<const uint4*>(row + first));
      } else {
        Number numbers[kPerVector];
#pragma unroll
        for (int i = 0; i < kPerVector; ++i) {
          numbers[i] = from_float<Number>(0.0f);
          if (inside && first + i < width) numbers[i] = row[first + i];
        }
        std::memcpy(&bits[vector], numbers, sizeof numbers);
      }
    }
  }

  SEQKIT_DEVICE void floats(float (&to)[kNumbers]) const {
#pragma unroll
    for (int vector = 0; vector < kVectors; ++vector) {
      Number numbers[kPerVector];
      std::memcpy(numbers, &bits[vector], sizeof numbers);
#pragma unroll
      for (int i = 0; i < kPerVector; ++i) to[vector * kPerVector + i] = to_float(numbers[i]);
    }
  }
};

// query . key in every lane of the group; the query lies in two halves, the first four numbers of each lane before the
// last four.
template <int kLanes>
SEQKIT_DEVICE float group_product(const float4* query, const float (&key)[kNumbers], int part) {
  float product = 0.0f;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float4 four = query[half * kLanes + part];
    product = fmaf(four.x, key[4 * half], product);
    product = fmaf(four.y, key[4 * half + 1], product);
    product = fmaf(four.z, key[4 * half + 2], product);
    product = fmaf(four.w, key[4 * half + 3], product);
  }
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    product += __shfl_xor_sync(kWholeWarp, product, distance);
  }
  return product;
}

// Takes logits into a softmax: they become weights, and the sums are made relative to the new top.
SEQKIT_DEVICE void weigh(Softmax& softmax, float (&logits)[kTogether], float (&sums)[kNumbers]) {
  float top = softmax.top;
#pragma unroll
  for (int j = 0; j < kTogether; ++j) top = fmaxf(top, logits[j]);
  const float kept = power(softmax.top, top);
  softmax.top = top;
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) sums[i] *= kept;
#pragma unroll
  for (int j = 0; j < kTogether; ++j) {
    logits[j] = power(logits[j], top);
    softmax.total = j == 0 ? fmaf(softmax.total, kept, logits[j]) : softmax.total + logits[j];
  }
}

// Adds up the groups of a warp.
template <int kLanes>
SEQKIT_DEVICE void sum_groups(Softmax& softmax, float (&sums)[kNumbers]) {
  float top = softmax.top;
#pragma unroll
  for (int distance = kLanes; distance < 32; distance *= 2) {
    top = fmaxf(top, __shfl_xor_sync(kWholeWarp, top, distance));
  }
  const float kept = power(softmax.top, top);
  softmax.top = top;
  softmax.total = rounded_product(softmax.total, kept);
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) sums[i] = rounded_product(sums[i], kept);
#pragma unroll
  for (int distance = kLanes; distance < 32; distance *= 2) {
    softmax.total += __shfl_xor_sync(kWholeWarp, softmax.total, distance);
#pragma unroll
    for (int i = 0; i < kNumbers; ++i) sums[i] += __shfl_xor_sync(kWholeWarp, sums[i], distance);
  }
}

// What a team keeps in shared memory.
constexpr int shared_floats(int lanes, int beams) {
  return beams * ((kWarps + 1) * lanes * kNumbers + kChunk + 2 * kWarps);
}

// kBeams hypotheses share what a team reads, 16 bytes at a time if kWhole. A block is one sentence and head, some of
// its beams and some chunks.
template <typename Number, int kLanes, int kBeams, bool kWhole>
__global__ void __launch_bounds__(kMostTeams* kTeamThreads, kWhole && sizeof(Number) == 2 ? 2 : 1)
    attend(const DecodeAttention call, const Plan plan, const Scratch scratch) {
  using Row = Slice<Number, kLanes>;
  constexpr int kGroups = kTeamThreads / kLanes;  // positions that a team takes at a time
  constexpr int kPadded = kLanes * kNumbers;      // columns
  constexpr int kLoads = kBeams == 1 && kWhole ? 8 / int(sizeof(Number)) : kTogether;  // positions under way in a group
  constexpr int kFolders = kTeamThreads / kBeams;                // threads that fold one beam's chunks
  constexpr int kColumns = (kPadded + kFolders - 1) / kFolders;  // of each of them
  static_assert(kLoads % kTogether == 0 && kTeamThreads % kBeams == 0 && kTeamThreads == kChunk);

  SEQKIT_DYNAMIC_SHARED(float, shared);
  const int thread = threadIdx.x % kTeamThreads, team = threadIdx.x / kTeamThreads;
  const int lane = thread % 32, warp = thread / 32, group = thread / kLanes, part = thread % kLanes;
  float* const own = shared + team * shared_floats(kLanes, kBeams);
  float4* const queries = reinterpret_cast<float4*>(own);             // [beams][2][lanes]
  float* const warp_sums = own + kBeams * kPadded;                    // [warps][beams][columns]
  float* const chunk_logits = warp_sums + kWarps * kBeams * kPadded;  // [beams][chunk]
  float* const warp_tops = chunk_logits + kBeams * kChunk;            // [warps][beams]
  float* const warp_totals = warp_tops + kWarps * kBeams;             // [warps][beams]

  const int64_t unit = blockIdx.x / plan.tiles, sentence = unit / call.heads, head = unit % call.heads;
  const int64_t first_beam = (blockIdx.x % plan.tiles * plan.teams + team) * kBeams;
  const int64_t count = count_of(call, sentence);
  const int64_t first_chunk = blockIdx.y * plan.chunks_per_split;
  const int64_t last_chunk = min(first_chunk + plan.chunks_per_split, (count + kChunk - 1) / kChunk);
  if (plan.merged && first_chunk >= last_chunk) return;
  const int width = static_cast<int>(call.width);

  const Number* const keys =
      static_cast<const Number*>(call.k) + sentence * call.k_strides.batch + head * call.k_strides.head;
  const Number* const values =
      static_cast<const Number*>(call.v) + sentence * call.v_strides.batch + head * call.v_strides.head;
  const int64_t* const ancestry = call.ancestry && first_beam < call.beams
                                      ? call.ancestry + (sentence * call.beams + first_beam) * call.capacity
                                      : nullptr;

  // Each warp brings one query, eight numbers a lane in two halves. The softmax is taken to the base 2, so they carry
  // its logarithm too.
  if (warp < kBeams && lane < kLanes) {
    const Number* const row = static_cast<const Number*>(call.q) + sentence * call.q_strides.batch +
                              (first_beam + warp) * call.q_strides.beam + head * call.q_strides.head;
    const float scale = static_cast<float>(call.scale) * kLog2E;
    Row slice;
    slice.template load<kWhole>(row, part, width, first_beam + warp < call.beams);
    float query[kNumbers];
    slice.floats(query);
    queries[(2 * warp) * kLanes + part] =
        make_float4(query[0] * scale, query[1] * scale, query[2] * scale, query[3] * scale);
    queries[(2 * warp + 1) * kLanes + part] =
        make_float4(query[4] * scale, query[5] * scale, query[6] * scale, query[7] * scale);
  }
  __syncthreads();

  // This thread folds some columns of one beam.
  const int folded_beam = thread / kFolders, first_column = thread % kFolders;
  const bool folds = first_beam + folded_beam < call.beams;
  const int64_t folded_row = (sentence * call.beams + first_beam + folded_beam) * call.heads + head;
  Softmax folded;
  float folded_sums[kColumns] = {};

  for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
    const int64_t begin = chunk * kChunk;
    const int seen = static_cast<int>(min(count - begin, int64_t{kChunk}));
    const Number* const chunk_keys = keys + begin * call.k_strides.position;
    const Number* const chunk_values = values + begin * call.v_strides.position;
    // A group's lanes hold who wrote the positions that it will take, one each.
    int own_writer = 0;
    if (ancestry && part * kGroups + group < seen) {
      own_writer = static_cast<int>(clamped(__ldg(ancestry + begin + part * kGroups + group), call.cache_beams));
    }
    Softmax softmax[kBeams];
    float sums[kBeams][kNumbers] = {};

    // A team beyond the last beam only meets the others at the barriers.
    for (int start = 0; start < seen && first_beam < call.beams; start += kGroups * kLoads) {
      Row key_rows[kLoads], value_rows[kLoads];
      int writers[kLoads];
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const int at = start + load * kGroups + group;
        writers[load] = __shfl_sync(kWholeWarp, own_writer, start / kGroups + load, kLanes);
        const Number* row = chunk_keys + writers[load] * call.k_strides.beam + at * call.k_strides.position;
        key_rows[load].template load<kWhole>(row, part, width, at < seen);
      }
#pragma unroll
      for (int load = 0; load < kLoads; ++load) {
        const int at = start + load * kGroups + group;
        const Number* row = chunk_values + writers[load] * call.v_strides.beam + at * call.v_strides.position;
        value_rows[load].template load<kWhole>(row, part, width, at < seen);
      }

#pragma unroll
      for (int load = 0; load < kLoads; load += kTogether) {
        if (start + load * kGroups >= seen) break;
        float logits[kBeams][kTogether];
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
          float key[kNumbers];
          key_rows[load + j].floats(key);
          const int at = start + (load + j) * kGroups + group;
#pragma unroll
          for (int beam = 0; beam < kBeams; ++beam) {
            const float product = group_product<kLanes>(queries + 2 * beam * kLanes, key, part);
            logits[beam][j] = at < seen ? product : -INFINITY;
            if (scratch.logits && part == 0) chunk_logits[beam * kChunk + at] = product;
          }
        }
#pragma unroll
        for (int beam = 0; beam < kBeams; ++beam) weigh(softmax[beam], logits[beam], sums[beam]);
#pragma unroll
        for (int j = 0; j < kTogether; ++j) {
          float value[kNumbers];
          value_rows[load + j].floats(value);
#pragma unroll
          for (int beam = 0; beam < kBeams; ++beam) {
#pragma unroll
            for (int i = 0; i < kNumbers; ++i) sums[beam][i] = fmaf(logits[beam][j], value[i], sums[beam][i]);
          }
        }
      }
    }

    // Each warp leaves what its groups have summed.
#pragma unroll
    for (int beam = 0; beam < kBeams; ++beam) {
      sum_groups<kLanes>(softmax[beam], sums[beam]);
      if (lane < kLanes) {
        float* const to = warp_sums + (warp * kBeams + beam) * kPadded;
#pragma unroll
        for (int i = 0; i < kNumbers; ++i) {
          to[Row::column(i / Row::kPerVector, part) + i % Row::kPerVector] = sums[beam][i];
        }
      }
      if (lane == 0) {
        warp_tops[warp * kBeams + beam] = softmax[beam].top;
        warp_totals[warp * kBeams + beam] = softmax[beam].total;
      }
    }
    __syncthreads();

    for (int beam = 0; beam < kBeams && scratch.logits && thread < seen && first_beam + beam < call.beams; ++beam) {
      const int64_t row = (sentence * call.beams + first_beam + beam) * call.heads + head;
      scratch.logits[row * call.capacity + begin + thread] = chunk_logits[beam * kChunk + thread];
    }
    // The warps are added up in their order.
    float top = -INFINITY, total = 0.0f, factors[kWarps];
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, warp_tops[w * kBeams + folded_beam]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      factors[w] = power(warp_tops[w * kBeams + folded_beam], top);
      total = fmaf(factors[w], warp_totals[w * kBeams + folded_beam], total);
    }
    const float2 fold_factors = fold(folded, top, total);
    const int64_t stored = folded_row * plan.chunks + chunk;
    if (plan.merged && folds && first_column == 0) {
      scratch.tops[stored] = top;
      scratch.totals[stored] = total;
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int column = first_column + n * kFolders;
      if (!folds || column >= width) continue;
      float value = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        value = fmaf(factors[w], warp_sums[(w * kBeams + folded_beam) * kPadded + column], value);
      }
      if (plan.merged) {
        scratch.sums[stored * width + column] = value;
      } else {
        folded_sums[n] = fold_sum(folded_sums[n], value, fold_factors);
      }
    }
    __syncthreads();  // before the next chunk's sums are written over these
  }

  if (plan.merged || !folds) return;
  const float normaliser = inverse(folded.total);
  Number* const out = static_cast<Number*>(call.out) + folded_row * width;
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    const int column = first_column + n * kFolders;
    if (column < width) out[column] = from_float<Number>(folded_sums[n] * normaliser);
  }
}

// Folds the chunks of one row that hold something, and with their softmax makes the weights of its logits.
template <typename Number>
__global__ void __launch_bounds__(kMergers) merge(const DecodeAttention call, const Plan plan, const Scratch scratch) {
  constexpr int kColumns = kWidest / kMergers;
  const int64_t row = blockIdx.x, sentence = row / (call.beams * call.heads);
  const int thread = threadIdx.x, width = static_cast<int>(call.width);
  const int64_t count = count_of(call, sentence), chunks = (count + kChunk - 1) / kChunk;
  Softmax folded;
  float sums[kColumns] = {};
#pragma unroll 4
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const int64_t stored = row * plan.chunks + chunk;
    const float2 factors = fold(folded, scratch.tops[stored], scratch.totals[stored]);
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int column = thread + n * kMergers;
      if (column < width) sums[n] = fold_sum(sums[n], scratch.sums[stored * width + column], factors);
    }
  }
  const float normaliser = inverse(folded.total);
  Number* const out = static_cast<Number*>(call.out) + row * width;
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    const int column = thread + n * kMergers;
    if (column < width) out[column] = from_float<Number>(sums[n] * normaliser);
  }
  if (!call.weights) return;
  Number* const weights = static_cast<Number*>(call.weights) + row * call.capacity;
  for (int64_t t = thread; t < call.capacity; t += kMergers) {
    float weight = 0.0f;
    if (t < count) weight = power(scratch.logits[row * call.capacity + t], folded.top) * normaliser;
    weights[t] = from_float<Number>(weight);
  }
}

template <typename Number, int kLanes, int kBeams>
const char* launch(const DecodeAttention& call, void* stream) {
  const Plan plan = plan_of(call, sizeof(Number));
  const Scratch scratch = plan.merged ? scratch_of(call, plan) : Scratch{};
  const dim3 grid(static_cast<unsigned>(call.batch * call.heads * plan.tiles), static_cast<unsigned>(plan.splits));
  const dim3 block(plan.teams * kTeamThreads);
  const size_t shared = plan.teams * shared_floats(kLanes, kBeams) * sizeof(float);
  if (plan.whole) {
    SEQKIT_LAUNCH((attend<Number, kLanes, kBeams, true>), grid, block, shared, stream, call, plan, scratch);
  } else {
    SEQKIT_LAUNCH((attend<Number, kLanes, kBeams, false>), grid, block, shared, stream, call, plan, scratch);
  }
  if (const char* error = launch_error()) return error;
  if (!plan.merged) return nullptr;
  SEQKIT_LAUNCH(merge<Number>, dim3(static_cast<unsigned>(rows_of(call))), dim3(kMergers), 0, stream, call, plan,
                scratch);
  return launch_error();
}

template <typename Number, int kLanes>
const char* launch_for_beams(const DecodeAttention& call, void* stream) {
  return beams_per_team(call) == 1 ? launch<Number, kLanes, 1>(call, stream)
                                   : launch<Number, kLanes, kSharers>(call, stream);
}

template <typename Number>
const char* launch_for_width(const DecodeAttention& call, void* stream) {
  if (call.width <= 8 * kNumbers) return launch_for_beams<Number, 8>(call, stream);
  if (call.width <= 16 * kNumbers) return launch_for_beams<Number, 16>(call, stream);
  return launch_for_beams<Number, 32>(call, stream);
}

constexpr int kColumnPositions = 32;      // a warp's
constexpr int kColumnRows = 8;            // hypotheses that a block moves at a time
constexpr int64_t kMostHeld = 200 << 10;  // bytes of shared memory

// A block moves some positions of one sentence. With kInPlace it holds what all beams have there before it writes.
template <bool kInPlace>
__global__ void __launch_bounds__(kColumnPositions* kColumnRows)
    extend(const ExtendAncestry call, int positions, int64_t blocks) {
  SEQKIT_DYNAMIC_SHARED(int64_t, held);  // [beams][positions]
  const int64_t sentence = blockIdx.x / blocks;
  const int column = threadIdx.x % positions, first_row = threadIdx.x / positions, rows = blockDim.x / positions;
  const int64_t t = blockIdx.x % blocks * positions + column;
  const int64_t step = call.step_at ? max(int64_t{-1}, min(*call.step_at, call.capacity - 1)) : call.step;
  const int64_t* const from = call.from + sentence * call.beams * call.capacity + t;
  int64_t* const to = call.to + sentence * call.new_beams * call.capacity + t;
  const bool inherits = t <= step && t < call.capacity;
  if constexpr (kInPlace) {
    for (int64_t beam = first_row; beam < call.beams && inherits; beam += rows) {
      held[beam * positions + column] = from[beam * call.capacity];
    }
    __syncthreads();
  }
  for (int64_t beam = first_row; beam < call.new_beams && t < call.capacity; beam += rows) {
    int64_t writer = t == step + 1 ? beam : 0;
    if (inherits) {
      const int64_t parent = clamped(call.parents[sentence * call.new_beams + beam], call.beams);
      writer = kInPlace ? held[parent * positions + column] : from[parent * call.capacity];
    }
    to[beam * call.capacity] = writer;
  }
}

}  // namespace

int64_t decode_attention_scratch(const DecodeAttention& call) {
  const Plan plan = plan_of(call, 1);
  if (!plan.merged) return 0;
  return rows_of(call) * (plan.chunks * (call.width + 2) + (call.weights ? call.capacity : 0));
}

const char* decode_attention_cuda(const DecodeAttention& call, Element element, void* stream) {
  if (rows_of(call) == 0) return nullptr;
  if (call.width > kWidest) return "a head wider than 256";
  switch (element) {
    case Element::kFloat:
      return launch_for_width<float>(call, stream);
    case Element::kHalf:
      return launch_for_width<__half>(call, stream);
    case Element::kBfloat16:
      return launch_for_width<__nv_bfloat16>(call, stream);
  }
  return "an unknown kind of number";
}

const char* extend_ancestry_cuda(const ExtendAncestry& call, void* stream) {
  if (call.batch * call.new_beams * call.capacity == 0) return nullptr;
  const bool in_place = call.from == call.to;
  int positions = kColumnPositions;
  const auto held = [&] { return call.beams * positions * int64_t{sizeof(int64_t)}; };
  while (in_place && positions > 1 && held() > kMostHeld) positions /= 2;
  if (in_place && held() > kMostHeld) return "more beams than fit in place";
  const int64_t blocks = divide_up(call.capacity, positions);
  const dim3 grid(static_cast<unsigned>(call.batch * blocks));
  const dim3 block(kColumnPositions * kColumnRows);
  if (in_place) {
    SEQKIT_LAUNCH(extend<true>, grid, block, static_cast<size_t>(held()), stream, call, positions, blocks);
  } else {
    SEQKIT_LAUNCH(extend<false>, grid, block, 0, stream, call, positions, blocks);
  }
  return launch_error();
}

}  // namespace seqkit
