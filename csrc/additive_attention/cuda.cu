// additive_attention.h on a card, in float32 whatever the element, with no order left to chance.
//
// Forward and the gradient of the scores: a block for eight query rows of a sentence, a warp for each key in turn, its
// lanes along A or D. Then, in the same block, the softmax or its gradient, a warp for each row, and the sum of values.
// The energies' gradient: a block for 32 columns of A, a lane for each; a warp holds eight keys and their sums in
// registers while the queries pass in tiles of eight, and the warps' shares of a query are added in their order.
#include "additive_attention/additive_attention.h"
#include "common/cuda.h"

namespace seqkit {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRows = 8;        // of a block
constexpr int kChunk = 1024;    // numbers of a row that are staged at once
constexpr int kTerms = 64;      // of a sum of rows whose coefficients are staged at once
constexpr int kColumns = 4;     // of a sum of rows that a thread holds
constexpr int kKeysOfWarp = 8;  // kWarps of them are kKeysAtOnce
static_assert(kWarps * kKeysOfWarp == kKeysAtOnce && kWarps == kRows);

// Lengths on the card are not checked: they are cut.
template <typename E>
SEQKIT_DEVICE int64_t length_of(const AdditiveInputs<E>& in, int64_t sentence) {
  if (!in.lengths) return in.sources;
  const int64_t length = in.lengths[sentence];
  return length < 0 ? 0 : length > in.sources ? in.sources : length;
}

// Four numbers from a row that has `left` of them, zeros beyond. With kVector all rows are aligned to four numbers.
template <typename E, bool kVector>
SEQKIT_DEVICE void load_four(const E* from, int64_t left, float (&to)[4]) {
  if constexpr (kVector) {
    struct alignas(4 * sizeof(E)) Four {
      E x[4];
    };
    Four four{};
    if (left > 0) four = *reinterpret_cast<const Four*>(from);
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = to_float(four.x[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = i < left ? to_float(from[i]) : 0.0f;
  }
}

SEQKIT_DEVICE void load_four(const float* shared, float (&to)[4]) {
  const float4 four = *reinterpret_cast<const float4*>(shared);
  to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
}

// to[r * to_row + s] = sum over n of v[n] tanh(x[r][n] + y[s][n]), or without v of x[r][n] y[s][n], for `rows` rows x
// and `others` rows y of `count` numbers. Ends with a barrier. Shared: kRows + 1 chunks.
template <typename E, bool kTanh, bool kVector>
SEQKIT_DEVICE void pair_sums(const E* x, int rows, const E* y, int64_t others, const E* v, int64_t count, float* to,
                             int64_t to_row, float* shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float* shared_v = shared + kRows * kChunk;
  for (int64_t begin = 0; begin == 0 || begin < count; begin += kChunk) {
    if (begin) __syncthreads();
    for (int r = 0; r < rows; ++r) {
      for (int n = threadIdx.x; n < kChunk; n += kThreads) {
        shared[r * kChunk + n] = begin + n < count ? to_float(x[r * count + begin + n]) : 0.0f;
      }
    }
    for (int n = threadIdx.x; kTanh && n < kChunk; n += kThreads) {
      shared_v[n] = begin + n < count ? to_float(v[begin + n]) : 0.0f;
    }
    __syncthreads();
    const int64_t left = count - begin;
    const int steps = left < kChunk ? static_cast<int>((left + 127) / 128) : kChunk / 128;
    for (int64_t s = warp; s < others; s += kWarps) {
      float sums[kRows] = {};
      for (int step = 0; step < steps; ++step) {
        const int n = step * 128 + 4 * lane;
        float b[4], factor[4];
        load_four<E, kVector>(y + s * count + begin + n, left - n, b);
        if constexpr (kTanh) load_four(shared_v + n, factor);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r >= rows) break;
          float a[4];
          load_four(shared + r * kChunk + n, a);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            if constexpr (kTanh) {
              sums[r] = fmaf(factor[i], tanhf(a[i] + b[i]), sums[r]);
            } else {
              sums[r] = fmaf(a[i], b[i], sums[r]);
            }
          }
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (r >= rows) break;
        const float total = warp_sum(sums[r]);
        if (lane == 0) to[r * to_row + s] = begin ? to[r * to_row + s] + total : total;
      }
    }
  }
  __syncthreads();
}

// to[r][d] = sum over i, in order, of weights(r, i) x[i][d] for `rows` rows of `width` numbers, weight (r, i) at
// r * row + i * step. Begins with a barrier. Shared: kRows * kTerms.
template <typename E, typename Weight>
SEQKIT_DEVICE void sum_of_rows(const Weight* weights, int64_t row, int64_t step, int rows, const E* x, int64_t terms,
                               int64_t width, E* to, float* shared) {
  for (int64_t column = threadIdx.x; column - threadIdx.x < width; column += kColumns * kThreads) {
    float sums[kRows][kColumns] = {};
    for (int64_t begin = 0; begin < terms; begin += kTerms) {
      __syncthreads();
      for (int n = threadIdx.x; n < rows * kTerms; n += kThreads) {
        const int64_t term = begin + n % kTerms;
        shared[n] = term < terms ? to_float(weights[n / kTerms * row + term * step]) : 0.0f;
      }
      __syncthreads();
      const int count = terms - begin < kTerms ? static_cast<int>(terms - begin) : kTerms;
      for (int i = 0; i < count; ++i) {
        float numbers[kColumns];
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const int64_t d = column + c * kThreads;
          numbers[c] = d < width ? to_float(x[(begin + i) * width + d]) : 0.0f;
        }
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r >= rows) break;
          const float weight = shared[r * kTerms + i];
#pragma unroll
          for (int c = 0; c < kColumns; ++c) sums[r][c] = fmaf(weight, numbers[c], sums[r][c]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) break;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int64_t d = column + c * kThreads;
        if (d < width) to[r * width + d] = from_float<E>(sums[r][c]);
      }
    }
  }
}

// The rows of a sentence that a block stands for.
struct Rows {
  int64_t sentence, first;
  int count;
};

SEQKIT_DEVICE Rows rows_of(int64_t rows) {
  const int64_t tiles = blocks(rows, kRows), first = blockIdx.x % tiles * kRows;
  return {blockIdx.x / tiles, first, static_cast<int>(rows - first < kRows ? rows - first : kRows)};
}

constexpr int kRowsShared = (kRows + 1) * kChunk * static_cast<int>(sizeof(float));
static_assert(kRows * kTerms <= (kRows + 1) * kChunk);

template <typename E, bool kVector>
__global__ void __launch_bounds__(kThreads) forward(AdditiveInputs<E> in, AdditiveOutputs<E> out, float* scores) {
  SEQKIT_DYNAMIC_SHARED(float, shared);
  const Rows rows = rows_of(in.targets);
  const int64_t length = length_of(in, rows.sentence), row = rows.sentence * in.targets + rows.first;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  scores += row * in.sources;
  pair_sums<E, true, kVector>(in.query + row * in.depth, rows.count, in.keys + rows.sentence * in.sources * in.depth,
                              length, in.v, in.depth, scores, in.sources, shared);
  if (warp < rows.count) {
    float* own = scores + warp * in.sources;
    E* weights = out.weights + (row + warp) * in.sources;
    float largest = -INFINITY;
    for (int64_t s = lane; s < length; s += 32) largest = fmaxf(largest, own[s]);
    largest = warp_max(largest);
    float total = 0.0f;
    for (int64_t s = lane; s < length; s += 32) total += own[s] = expf(own[s] - largest);
    total = warp_sum(total);
    for (int64_t s = lane; s < in.sources; s += 32) {
      const float weight = s < length ? own[s] / total : 0.0f;
      own[s] = weight;
      weights[s] = from_float<E>(weight);  // the same place where E is float
    }
  }
  sum_of_rows(scores, in.sources, 1, rows.count, in.values + rows.sentence * in.sources * in.width, length, in.width,
              out.context + row * in.width, shared);
}

template <typename E, bool kVector>
__global__ void __launch_bounds__(kThreads) backward_scores(AdditiveInputs<E> in, AdditiveGradients<E> grads) {
  SEQKIT_DYNAMIC_SHARED(float, shared);
  const Rows rows = rows_of(in.targets);
  const int64_t length = length_of(in, rows.sentence), row = rows.sentence * in.targets + rows.first;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float* slopes = grads.grad_scores + row * in.sources;
  pair_sums<E, false, kVector>(grads.grad_context + row * in.width, rows.count,
                               in.values + rows.sentence * in.sources * in.width, length, nullptr, in.width, slopes,
                               in.sources, shared);
  if (warp >= rows.count) return;
  slopes += warp * in.sources;
  const int64_t flat = (row + warp) * in.sources;
  float mean = 0.0f;
  for (int64_t s = lane; s < length; s += 32) {
    if (grads.grad_weights) slopes[s] += to_float(grads.grad_weights[flat + s]);
    mean = fmaf(to_float(grads.weights[flat + s]), slopes[s], mean);
  }
  mean = warp_sum(mean);
  for (int64_t s = lane; s < length; s += 32) slopes[s] = to_float(grads.weights[flat + s]) * (slopes[s] - mean);
}

template <typename E>
__global__ void __launch_bounds__(kThreads) backward_values(AdditiveInputs<E> in, AdditiveGradients<E> grads) {
  SEQKIT_DYNAMIC_SHARED(float, shared);
  const Rows rows = rows_of(in.sources);
  const int64_t length = length_of(in, rows.sentence);
  const int counted = rows.first >= length ? 0 : length - rows.first < rows.count ? length - rows.first : rows.count;
  E* to = grads.grad_values + (rows.sentence * in.sources + rows.first) * in.width;
  sum_of_rows(grads.weights + rows.sentence * in.targets * in.sources + rows.first, 1, in.sources, counted,
              grads.grad_context + rows.sentence * in.targets * in.width, in.targets, in.width, to, shared);
  for (int64_t d = counted * in.width + threadIdx.x; d < rows.count * in.width; d += kThreads) {
    to[d] = from_float<E>(0.0f);
  }
}

constexpr int kEnergiesShared = (kRows * 32 + kRows * kKeysAtOnce + kWarps * kRows * 32) * sizeof(float);

template <typename E>
__global__ void __launch_bounds__(kThreads, 3)
    backward_energies(AdditiveInputs<E> in, AdditiveGradients<E> grads, float* query_sums) {
  SEQKIT_DYNAMIC_SHARED(float, shared_queries);         // [kRows, 32]
  float* shared_slopes = shared_queries + kRows * 32;   // [kRows, kKeysAtOnce]
  float* shares = shared_slopes + kRows * kKeysAtOnce;  // [kWarps, kRows, 32]
  const int64_t slices = blocks(in.depth, 32), sentence = blockIdx.x / slices;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t a = blockIdx.x % slices * 32 + lane, length = length_of(in, sentence);
  const bool inside = a < in.depth;
  const float v = inside ? to_float(in.v[a]) : 0.0f;
  const int64_t rounds = length ? blocks(length, kKeysAtOnce) : 1;
  float v_sum = 0.0f;
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t first = round * kKeysAtOnce, own = first + warp * kKeysOfWarp;
    const E* keys = in.keys + (sentence * in.sources + own) * in.depth + a;
    float key[kKeysOfWarp], key_sums[kKeysOfWarp] = {};
#pragma unroll
    for (int j = 0; j < kKeysOfWarp; ++j) key[j] = inside && own + j < length ? to_float(keys[j * in.depth]) : 0.0f;

    for (int64_t t = 0; t < in.targets; t += kRows) {
      const int64_t row = sentence * in.targets + t;
      const bool mine = inside && t + warp < in.targets;  // the row that this warp stages and adds up
      shared_queries[warp * 32 + lane] = mine ? to_float(in.query[(row + warp) * in.depth + a]) : 0.0f;
      for (int n = threadIdx.x; n < kRows * kKeysAtOnce; n += kThreads) {
        const int64_t r = n / kKeysAtOnce, s = first + n % kKeysAtOnce;
        const bool counts = t + r < in.targets && s < length;
        shared_slopes[n] = counts ? grads.grad_scores[(row + r) * in.sources + s] : 0.0f;
      }
      __syncthreads();
#pragma unroll 1
      for (int r = 0; r < kRows; ++r) {
        float share = 0.0f;
        if (own < length && t + r < in.targets) {
          const float query = shared_queries[r * 32 + lane];
#pragma unroll
          for (int j = 0; j < kKeysOfWarp; ++j) {
            const float slope = shared_slopes[r * kKeysAtOnce + warp * kKeysOfWarp + j];
            const float h = tanhf(query + key[j]), change = slope * fmaf(-h, h, 1.0f);
            share += change;
            key_sums[j] += change;
            v_sum = fmaf(slope, h, v_sum);
          }
        }
        shares[(warp * kRows + r) * 32 + lane] = share;
      }
      __syncthreads();
      if (mine) {
        const int64_t at = (row + warp) * in.depth + a;
        float total = round ? query_sums[at] : 0.0f;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) total += shares[(w * kRows + warp) * 32 + lane];
        if (round + 1 == rounds) {
          grads.grad_query[at] = from_float<E>(v * total);
        } else {
          query_sums[at] = total;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kKeysOfWarp; ++j) {
      if (inside && own + j < in.sources) {
        const float total = own + j < length ? v * key_sums[j] : 0.0f;
        grads.grad_keys[(sentence * in.sources + own + j) * in.depth + a] = from_float<E>(total);
      }
    }
  }
  for (int64_t s = rounds * kKeysAtOnce + warp; inside && s < in.sources; s += kWarps) {
    grads.grad_keys[(sentence * in.sources + s) * in.depth + a] = from_float<E>(0.0f);
  }

  shares[warp * 32 + lane] = v_sum;  // where no other thread has read
  __syncthreads();
  if (warp == 0 && inside) {
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) total += shares[w * 32 + lane];
    grads.grad_v_parts[sentence * in.depth + a] = total;
  }
}

template <typename E>
__global__ void __launch_bounds__(kThreads) backward_v(AdditiveInputs<E> in, AdditiveGradients<E> grads) {
  const int64_t a = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (a >= in.depth) return;
  float total = 0.0f;
  for (int64_t sentence = 0; sentence < in.batch; ++sentence) total += grads.grad_v_parts[sentence * in.depth + a];
  grads.grad_v[a] = from_float<E>(total);
}

template <typename E>
AdditiveInputs<E> typed(const AdditiveInputs<void>& in) {
  return {
      .query = static_cast<const E*>(in.query),
      .keys = static_cast<const E*>(in.keys),
      .values = static_cast<const E*>(in.values),
      .v = static_cast<const E*>(in.v),
      .lengths = in.lengths,
      .batch = in.batch,
      .targets = in.targets,
      .sources = in.sources,
      .depth = in.depth,
      .width = in.width,
  };
}

// Whether rows of `count` numbers from here on can be read four at a time.
template <typename E>
bool by_fours(const E* from, int64_t count) {
  return count % 4 == 0 && reinterpret_cast<uintptr_t>(from) % (4 * sizeof(E)) == 0;
}

dim3 grid(int64_t count) { return dim3(static_cast<unsigned>(count)); }

template <typename E>
const char* run_forward(const AdditiveInputs<void>& given, const AdditiveOutputs<void>& to, float* scores,
                        void* stream) {
  const AdditiveInputs<E> in = typed<E>(given);
  const AdditiveOutputs<E> out{.context = static_cast<E*>(to.context), .weights = static_cast<E*>(to.weights)};
  const int64_t count = in.batch * blocks(in.targets, kRows);
  if (count == 0) return nullptr;
  if (by_fours(in.keys, in.depth)) {
    SEQKIT_LAUNCH((forward<E, true>), grid(count), dim3(kThreads), kRowsShared, stream, in, out, scores);
  } else {
    SEQKIT_LAUNCH((forward<E, false>), grid(count), dim3(kThreads), kRowsShared, stream, in, out, scores);
  }
  return launch_error();
}

template <typename E>
const char* run_backward(const AdditiveInputs<void>& given, const AdditiveGradients<void>& to, float* query_sums,
                         void* stream) {
  const AdditiveInputs<E> in = typed<E>(given);
  const AdditiveGradients<E> grads{
      .weights = static_cast<const E*>(to.weights),
      .grad_context = static_cast<const E*>(to.grad_context),
      .grad_weights = static_cast<const E*>(to.grad_weights),
      .grad_scores = to.grad_scores,
      .grad_v_parts = to.grad_v_parts,
      .grad_query = static_cast<E*>(to.grad_query),
      .grad_keys = static_cast<E*>(to.grad_keys),
      .grad_values = static_cast<E*>(to.grad_values),
      .grad_v = static_cast<E*>(to.grad_v),
  };
  if (const int64_t count = in.batch * blocks(in.targets, kRows)) {
    if (by_fours(in.values, in.width)) {
      SEQKIT_LAUNCH((backward_scores<E, true>), grid(count), dim3(kThreads), kRowsShared, stream, in, grads);
    } else {
      SEQKIT_LAUNCH((backward_scores<E, false>), grid(count), dim3(kThreads), kRowsShared, stream, in, grads);
    }
    if (const char* error = launch_error()) return error;
  }
  if (const int64_t count = in.batch * blocks(in.sources, kRows)) {
    SEQKIT_LAUNCH(backward_values<E>, grid(count), dim3(kThreads), kRows * kTerms * sizeof(float), stream, in, grads);
    if (const char* error = launch_error()) return error;
  }
  if (const int64_t count = in.batch * blocks(in.depth, 32)) {
    SEQKIT_LAUNCH(backward_energies<E>, grid(count), dim3(kThreads), kEnergiesShared, stream, in, grads, query_sums);
    if (const char* error = launch_error()) return error;
  }
  if (in.depth == 0) return nullptr;
  SEQKIT_LAUNCH(backward_v<E>, grid(blocks(in.depth, kThreads)), dim3(kThreads), 0, stream, in, grads);
  return launch_error();
}

}  // namespace

const char* additive_forward_cuda(const AdditiveInputs<void>& in, const AdditiveOutputs<void>& out, float* scores,
                                  Element element, void* stream) {
  const auto run = element == Element::kFloat  ? run_forward<float>
                   : element == Element::kHalf ? run_forward<__half>
                                               : run_forward<__nv_bfloat16>;
  return run(in, out, scores, stream);
}

const char* additive_backward_cuda(const AdditiveInputs<void>& in, const AdditiveGradients<void>& grads,
                                   float* query_sums, Element element, void* stream) {
  const auto run = element == Element::kFloat  ? run_backward<float>
                   : element == Element::kHalf ? run_backward<__half>
                                               : run_backward<__nv_bfloat16>;
  return run(in, grads, query_sums, stream);
}

}  // namespace seqkit
