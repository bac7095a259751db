// Backward of attention.h on CUDA, from the maximum and the sum of each row that the forward has saved.
//
// Two kernels compute the weights again: one has rows of queries and sums their gradient over the keys, the other has
// rows of keys and sums theirs, and that of the values, over the queries. One kernel for both would compute five
// products where these compute seven, but its blocks would have to add to the gradient of the queries at the same time,
// and the order of additions, so the last bits, would differ from run to run.
#include "attention/logits.h"

namespace seqkit {
namespace {

// Rows of a block's own and of the tiles that it meets: two tensors of each, and the second twice, in 96 KiB.
template <typename Number, int kWidth>
constexpr int kOwn = sizeof(Number) == 2 ? 64
                     : kWidth == 64      ? 64
                     : kWidth == 128     ? 32
                                         : 16;
template <typename Number, int kWidth, bool kPlain>
constexpr int kOther = kWidth == 64 || (kWidth == 128 && sizeof(Number) == 2 && kPlain) ? 32 : 16;
// Columns of a gradient that a block sums; another block has the others. More would not fit into registers.
template <typename Number, int kWidth>
constexpr int kSlice = kWidth == 64 || sizeof(Number) == 4 ? 64 : 128;

// delta = sum_d out grad_out + sum_j weight_j d(loss)/d(weight_j): the term of the softmax's gradient that all keys of
// a row share. One warp a row.
constexpr int kDeltaWarps = 4;

template <typename Number>
__global__ void __launch_bounds__(32 * kDeltaWarps)
    delta_kernel(const AttentionShape shape, const AttentionGradients<Number> grads, float* delta) {
  const int64_t flat = int64_t{blockIdx.x} * kDeltaWarps + threadIdx.x / 32;  // of [B, T, H]
  if (flat >= shape.batch * shape.targets * shape.heads) return;
  const int lane = threadIdx.x % 32;
  const int64_t head = flat % shape.heads, row = flat / shape.heads % shape.targets,
                sentence = flat / shape.heads / shape.targets;
  const int64_t at = (sentence * shape.heads + head) * shape.targets + row;
  float sum = 0.0f;
  // A row that does not count has no weights, and its gradient may be anything.
  if (row < clamped(shape.q_lengths, static_cast<int>(sentence), shape.targets)) {
    for (int64_t d = lane; d < shape.value_width; d += 32) {
      sum = fmaf(to_float(grads.out[flat * shape.value_width + d]),
                 to_float(grads.grad_out[flat * shape.value_width + d]), sum);
    }
    for (int64_t key = lane; grads.grad_weights && key < shape.sources; key += 32) {
      const int64_t cell = at * shape.sources + key;
      sum = fmaf(to_float(grads.weights[cell]), to_float(grads.grad_weights[cell]), sum);
    }
  }
  sum = warp_sum(sum);
  if (lane == 0) delta[at] = sum;
}

// The gradient of a logit from the weight, the product of value and gradient, and the row's delta.
template <typename Number, bool kPlain>
SEQKIT_DEVICE float logit_gradient(const Logits<Number, kPlain>& logits, const AttentionGradients<Number>& grads,
                                   int64_t cell, float weight, float product, float kept, float delta) {
  float gradient = product * kept;
  if (!kPlain && grads.grad_weights && weight != 0.0f) gradient += to_float(grads.grad_weights[cell]);
  return weight == 0.0f ? 0.0f : weight * (gradient - delta);
}

template <typename Number, int kWidth, bool kPlain>
__global__ void __launch_bounds__(2 * kOwn<Number, kWidth>)
    queries_kernel(const AttentionShape shape, const AttentionInputs<Number> in, const AttentionGradients<Number> grads,
                   const float* deltas, const Chunked chunked) {
  constexpr int kRows = kOwn<Number, kWidth>, kColumns = kOther<Number, kWidth, kPlain>, kThreads = 2 * kRows;
  constexpr int kSums = kSlice<Number, kWidth>;
  SEQKIT_DYNAMIC_SHARED(Number, q_tile);
  Number* const grad_tile = q_tile + kRows * kWidth;
  Number* const k_tiles = grad_tile + kRows * kWidth;
  Number* const v_tiles = k_tiles + 2 * kColumns * kWidth;

  const int blocks = static_cast<int>((shape.targets + kRows - 1) / kRows), heads = static_cast<int>(shape.heads);
  const int unit = static_cast<int>(blockIdx.x / blocks), sentence = unit / heads, head = unit % heads;
  const int first = (blocks - 1 - static_cast<int>(blockIdx.x % blocks)) * kRows;
  const int column = static_cast<int>(blockIdx.y) * kSums;
  const int kv_head = head / static_cast<int>(shape.heads / shape.kv_heads);
  const auto logits = logits_of<kPlain>(shape, in, sentence, head);
  const Scope& scope = logits.scope;

  const RowsInMemory<Number> q{in.q + sentence * in.q_strides.batch + head * in.q_strides.head, in.q_strides.row,
                               scope.queries, static_cast<int>(shape.width), chunked.q};
  const RowsInMemory<Number> grad{grads.grad_out + (sentence * shape.targets * heads + head) * shape.value_width,
                                  heads * shape.value_width, scope.queries, static_cast<int>(shape.value_width),
                                  chunked.out};
  const RowsInMemory<Number> k{in.k + sentence * in.k_strides.batch + kv_head * in.k_strides.head, in.k_strides.row,
                               scope.keys, static_cast<int>(shape.width), chunked.k};
  const RowsInMemory<Number> v{in.v + sentence * in.v_strides.batch + kv_head * in.v_strides.head, in.v_strides.row,
                               scope.keys, static_cast<int>(shape.value_width), chunked.v};
  const auto load_keys = [&](int key, int stage) {
    load_tile<Number, kWidth, kColumns, kThreads>(k_tiles + stage * kColumns * kWidth, k, key);
    load_tile<Number, kWidth, kColumns, kThreads>(v_tiles + stage * kColumns * kWidth, v, key);
  };

  const int last = min(first + kRows, scope.queries) - 1;
  const int begin = scope.first_key(first) / kColumns * kColumns, end = last < first ? 0 : scope.end_key(last);
  load_tile<Number, kWidth, kRows, kThreads>(q_tile, q, first);
  load_tile<Number, kWidth, kRows, kThreads>(grad_tile, grad, first);
  if (begin < end) load_keys(begin, 0);
  copy_async_commit();

  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
  float largest[2] = {}, inverse[2] = {}, delta[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int query = first + row + lane / 4 + 8 * half;
    const int64_t flat = int64_t{unit} * shape.targets + query;
    if (query < scope.queries) {
      largest[half] = grads.stats[2 * flat];
      inverse[half] = grads.stats[2 * flat + 1];
      delta[half] = deltas[flat];
    }
  }
  const float kept = kPlain ? 1.0f : kept_factor(logits.drop_below);
  float sums[kSums / 8][4] = {};
  for (int key = begin, stage = 0; key < end; key += kColumns, stage ^= 1) {
    if (key + kColumns < end) load_keys(key + kColumns, stage ^ 1);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    const Number* const k_tile = k_tiles + stage * kColumns * kWidth;
    const Number* const v_tile = v_tiles + stage * kColumns * kWidth;

    float p[kColumns / 8][4] = {}, products[kColumns / 8][4] = {};
    multiply_transposed<Number, kWidth>(p, q_tile, row, k_tile);
    multiply_transposed<Number, kWidth>(products, grad_tile, row, v_tile);
    const bool all_seen = scope.sees_all(first + row, 16, key, kColumns);
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int query = first + row + lane / 4 + i / 2 * 8, at = key + 8 * n + lane % 4 * 2 + i % 2;
        const float weight = exp2f(logits.of(p[n][i], query, at, all_seen) - largest[i / 2]) * inverse[i / 2];
        const float keeps = logits.drops_any() ? logits.keeps(query, at) * kept : 1.0f;
        const int64_t cell = (int64_t{unit} * shape.targets + query) * shape.sources + at;
        p[n][i] = logit_gradient(logits, grads, cell, weight, products[n][i], keeps, delta[i / 2]);
        if (!kPlain && grads.grad_bias && column == 0 && scope.sees(query, at)) {
          grads.grad_bias[cell] = from_float<Number>(p[n][i]);
        }
      }
    }
    multiply<Number, kWidth>(sums, p, k_tile, column / kPerChunk<Number>);
    __syncthreads();
  }
  const int64_t position = sentence * shape.targets + first + row;
  const float scale = static_cast<float>(shape.scale);
  write_rows(sums, grads.grad_q + (position * heads + head) * shape.width + column, heads * shape.width,
             static_cast<int>(shape.targets) - first - row, static_cast<int>(shape.width) - column, scale, scale);
}

template <typename Number, int kWidth, bool kPlain>
__global__ void __launch_bounds__(2 * kOwn<Number, kWidth>)
    keys_kernel(const AttentionShape shape, const AttentionInputs<Number> in, const AttentionGradients<Number> grads,
                const float* deltas, const Chunked chunked) {
  constexpr int kRows = kOwn<Number, kWidth>, kColumns = kOther<Number, kWidth, kPlain>, kThreads = 2 * kRows;
  constexpr int kSums = kSlice<Number, kWidth>;
  SEQKIT_DYNAMIC_SHARED(Number, k_tile);
  Number* const v_tile = k_tile + kRows * kWidth;
  Number* const q_tiles = v_tile + kRows * kWidth;
  Number* const grad_tiles = q_tiles + 2 * kColumns * kWidth;
  // A query's maximum, one over its sum and its delta; twice, as the tiles.
  float* const statistics = reinterpret_cast<float*>(grad_tiles + 2 * kColumns * kWidth);

  const int blocks = static_cast<int>((shape.sources + kRows - 1) / kRows);
  const int kv_heads = static_cast<int>(shape.kv_heads), group = static_cast<int>(shape.heads) / kv_heads;
  const int unit = static_cast<int>(blockIdx.x / blocks), sentence = unit / kv_heads, kv_head = unit % kv_heads;
  const int first = static_cast<int>(blockIdx.x % blocks) * kRows;
  const int column = static_cast<int>(blockIdx.y) * kSums;
  auto logits = logits_of<kPlain>(shape, in, sentence, kv_head * group);
  const Scope& scope = logits.scope;

  const RowsInMemory<Number> k{in.k + sentence * in.k_strides.batch + kv_head * in.k_strides.head, in.k_strides.row,
                               scope.keys, static_cast<int>(shape.width), chunked.k};
  const RowsInMemory<Number> v{in.v + sentence * in.v_strides.batch + kv_head * in.v_strides.head, in.v_strides.row,
                               scope.keys, static_cast<int>(shape.value_width), chunked.v};
  const int last = min(first + kRows, scope.keys) - 1;  // before `first` if no key counts
  const int begin = scope.first_query(first) / kColumns * kColumns, end = last < first ? 0 : scope.end_query(last);
  const int per_head = end <= begin ? 0 : (end - begin + kColumns - 1) / kColumns;

  // Step i of the loop meets a tile of queries of head i / per_head of the group.
  const auto load_queries = [&](int step, int stage) {
    const int head = kv_head * group + step / per_head, query = begin + step % per_head * kColumns;
    const RowsInMemory<Number> q{in.q + sentence * in.q_strides.batch + head * in.q_strides.head, in.q_strides.row,
                                 scope.queries, static_cast<int>(shape.width), chunked.q};
    const RowsInMemory<Number> grad{
        grads.grad_out + (sentence * shape.targets * shape.heads + head) * shape.value_width,
        shape.heads * shape.value_width, scope.queries, static_cast<int>(shape.value_width), chunked.out};
    load_tile<Number, kWidth, kColumns, kThreads>(q_tiles + stage * kColumns * kWidth, q, query);
    load_tile<Number, kWidth, kColumns, kThreads>(grad_tiles + stage * kColumns * kWidth, grad, query);
    for (int i = threadIdx.x; i < kColumns; i += kThreads) {
      float* const to = statistics + (stage * kColumns + i) * 3;
      const int64_t flat = (sentence * shape.heads + head) * shape.targets + query + i;
      const bool counts = query + i < scope.queries;
      to[0] = counts ? grads.stats[2 * flat] : 0.0f;
      to[1] = counts ? grads.stats[2 * flat + 1] : 0.0f;
      to[2] = counts ? deltas[flat] : 0.0f;
    }
  };

  const int steps = per_head * group;
  load_tile<Number, kWidth, kRows, kThreads>(k_tile, k, first);
  load_tile<Number, kWidth, kRows, kThreads>(v_tile, v, first);
  if (steps > 0) load_queries(0, 0);
  copy_async_commit();

  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
  const float kept = kPlain ? 1.0f : kept_factor(logits.drop_below);
  float k_sums[kSums / 8][4] = {}, v_sums[kSums / 8][4] = {};
  for (int step = 0, stage = 0; step < steps; ++step, stage ^= 1) {
    if (step + 1 < steps) load_queries(step + 1, stage ^ 1);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    const Number* const q_tile = q_tiles + stage * kColumns * kWidth;
    const Number* const grad_tile = grad_tiles + stage * kColumns * kWidth;
    const int head = kv_head * group + step / per_head, query = begin + step % per_head * kColumns;
    if constexpr (!kPlain) logits.move_to(shape, in, sentence, head);

    float p[kColumns / 8][4] = {}, products[kColumns / 8][4] = {};
    multiply_transposed<Number, kWidth>(p, k_tile, row, q_tile);
    multiply_transposed<Number, kWidth>(products, v_tile, row, grad_tile);
    const bool all_seen = scope.sees_all(query, kColumns, first + row, 16);
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int own = 8 * n + lane % 4 * 2 + i % 2, key = first + row + lane / 4 + i / 2 * 8;
        const float* const statistic = statistics + (stage * kColumns + own) * 3;
        const float weight = exp2f(logits.of(p[n][i], query + own, key, all_seen) - statistic[0]) * statistic[1];
        const float keeps = logits.drops_any() ? logits.keeps(query + own, key) * kept : 1.0f;
        const int64_t cell = ((sentence * shape.heads + head) * shape.targets + query + own) * shape.sources + key;
        products[n][i] = logit_gradient(logits, grads, cell, weight, products[n][i], keeps, statistic[2]);
        p[n][i] = weight * keeps;
      }
    }
    multiply<Number, kWidth>(v_sums, p, grad_tile, column / kPerChunk<Number>);
    multiply<Number, kWidth>(k_sums, products, q_tile, column / kPerChunk<Number>);
    __syncthreads();
  }
  const int64_t position = (sentence * shape.sources + first + row) * kv_heads + kv_head;
  const int count = static_cast<int>(shape.sources) - first - row;
  const float scale = static_cast<float>(shape.scale);
  write_rows(k_sums, grads.grad_k + position * shape.width + column, kv_heads * shape.width, count,
             static_cast<int>(shape.width) - column, scale, scale);
  write_rows(v_sums, grads.grad_v + position * shape.value_width + column, kv_heads * shape.value_width, count,
             static_cast<int>(shape.value_width) - column, 1.0f, 1.0f);
}

template <typename Number, int kWidth, bool kPlain>
const char* launch_backward(const AttentionShape& shape, const AttentionInputs<Number>& in,
                            const AttentionGradients<Number>& grads, const float* delta, void* stream) {
  constexpr int kRows = kOwn<Number, kWidth>;
  constexpr int kColumns = kOther<Number, kWidth, kPlain>;
  constexpr size_t kShared = (2 * kRows + 4 * kColumns) * kWidth * sizeof(Number);
  constexpr size_t kStatistics = 2 * kColumns * 3 * sizeof(float);
  const Chunked chunked = chunked_of(shape, in, grads.grad_out);
  const auto grid = [](int64_t units, int64_t length) {
    return dim3(static_cast<unsigned>(units * ((length + kRows - 1) / kRows)), kWidth / kSlice<Number, kWidth>);
  };
  if (shape.targets > 0) {
    SEQKIT_LAUNCH((queries_kernel<Number, kWidth, kPlain>), grid(shape.batch * shape.heads, shape.targets),
                  dim3(2 * kRows), kShared, stream, shape, in, grads, delta, chunked);
    if (const char* error = launch_error()) return error;
  }
  if (shape.sources > 0) {
    SEQKIT_LAUNCH((keys_kernel<Number, kWidth, kPlain>), grid(shape.batch * shape.kv_heads, shape.sources),
                  dim3(2 * kRows), kShared + kStatistics, stream, shape, in, grads, delta, chunked);
  }
  return launch_error();
}

}  // namespace

template <typename Number>
const char* attention_backward_cuda(const AttentionShape& shape, const AttentionInputs<Number>& inputs,
                                    const AttentionGradients<Number>& gradients, float* delta, void* stream) {
  using Device = typename OnDevice<Number>::Type;
  const auto in = seen_as<AttentionInputs<Device>>(inputs);
  const auto grads = seen_as<AttentionGradients<Device>>(gradients);
  if (shape.batch == 0) return nullptr;
  const int64_t rows = shape.batch * shape.targets * shape.heads;
  if (rows > 0) {
    SEQKIT_LAUNCH((delta_kernel<Device>), dim3(static_cast<unsigned>((rows + kDeltaWarps - 1) / kDeltaWarps)),
                  dim3(32 * kDeltaWarps), 0, stream, shape, grads, delta);
    if (const char* error = launch_error()) return error;
  }
  const char* error = nullptr;
  for_tile_width(shape, [&](auto width) {
    if (is_plain(shape, in) && !grads.grad_weights && !grads.grad_bias) {
      error = launch_backward<Device, width.value, true>(shape, in, grads, delta, stream);
    } else {
      error = launch_backward<Device, width.value, false>(shape, in, grads, delta, stream);
    }
  });
  return error;
}

#define SEQKIT_DEFINE_ATTENTION(Number)                                                                            \
  template const char* attention_backward_cuda(const AttentionShape& shape, const AttentionInputs<Number>& inputs, \
                                               const AttentionGradients<Number>& gradients, float* delta,          \
                                               void* stream)
SEQKIT_DEFINE_ATTENTION(float);
SEQKIT_DEFINE_ATTENTION(Half);
SEQKIT_DEFINE_ATTENTION(Bfloat16);

}  // namespace seqkit
