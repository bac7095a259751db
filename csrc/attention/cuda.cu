// Forward of attention.h on CUDA (FlashAttention-2's scheme: Dao 2023, arXiv:2307.08691, section 3.1): a block has
// some rows of queries of one head, each warp sixteen, and meets the keys and values in tiles of which the next is
// copied while this one is multiplied.
#include "attention/logits.h"

namespace seqkit {
namespace {

// Queries and keys of a block: as many as keep three blocks of 64-wide rows, or one of 256, on a multiprocessor.
template <typename Number, int kWidth>
constexpr int kQueries = sizeof(Number) == 2 ? 64
                         : kWidth == 64      ? 64
                         : kWidth == 128     ? 32
                                             : 16;
template <typename Number, int kWidth>
constexpr int kKeys = sizeof(Number) == 2 ? (kWidth == 256 ? 32 : 64) : (kWidth == 64 ? 32 : 16);

// Columns of the values that a block sums; another block has the others. More would not fit into registers.
template <typename Number, int kWidth>
constexpr int kSlice = sizeof(Number) == 4 ? 64 : kWidth;

// Blocks that a multiprocessor's registers shall hold; 0 leaves it to the compiler, which for floats would spill a few.
template <typename Number>
constexpr int kResident = sizeof(Number) == 4 ? 2 : 0;

template <typename Number, int kWidth, bool kPlain>
__global__ void __launch_bounds__(2 * kQueries<Number, kWidth>, kResident<Number>)
    forward_kernel(const AttentionShape shape, const AttentionInputs<Number> in, const AttentionOutputs<Number> to,
                   const Chunked chunked) {
  constexpr int kRows = kQueries<Number, kWidth>, kColumns = kKeys<Number, kWidth>, kThreads = 2 * kRows;
  constexpr int kSums = kSlice<Number, kWidth>;
  SEQKIT_DYNAMIC_SHARED(Number, q_tile);
  Number* const k_tiles = q_tile + kRows * kWidth;
  Number* const v_tiles = k_tiles + 2 * kColumns * kWidth;

  const int blocks = static_cast<int>((shape.targets + kRows - 1) / kRows), heads = static_cast<int>(shape.heads);
  const int unit = static_cast<int>(blockIdx.x / blocks), sentence = unit / heads, head = unit % heads;
  const int column = static_cast<int>(blockIdx.y) * kSums;
  // The last rows of a causal sentence have the most keys: they begin first.
  const int first = (blocks - 1 - static_cast<int>(blockIdx.x % blocks)) * kRows;
  const int kv_head = head / static_cast<int>(shape.heads / shape.kv_heads);
  const auto logits = logits_of<kPlain>(shape, in, sentence, head);
  const Scope& scope = logits.scope;

  const RowsInMemory<Number> q{in.q + sentence * in.q_strides.batch + head * in.q_strides.head, in.q_strides.row,
                               scope.queries, static_cast<int>(shape.width), chunked.q};
  const RowsInMemory<Number> k{in.k + sentence * in.k_strides.batch + kv_head * in.k_strides.head, in.k_strides.row,
                               scope.keys, static_cast<int>(shape.width), chunked.k};
  const RowsInMemory<Number> v{in.v + sentence * in.v_strides.batch + kv_head * in.v_strides.head, in.v_strides.row,
                               scope.keys, static_cast<int>(shape.value_width), chunked.v};
  const auto load_keys = [&](int key, int stage) {
    load_tile<Number, kWidth, kColumns, kThreads>(k_tiles + stage * kColumns * kWidth, k, key);
    load_tile<Number, kWidth, kColumns, kThreads>(v_tiles + stage * kColumns * kWidth, v, key);
  };

  const int last = min(first + kRows, scope.queries) - 1;  // before `first` if no query counts
  const int begin = scope.first_key(first) / kColumns * kColumns, end = last < first ? 0 : scope.end_key(last);
  load_tile<Number, kWidth, kRows, kThreads>(q_tile, q, first);
  if (begin < end) load_keys(begin, 0);
  copy_async_commit();

  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
  float sums[kSums / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int key = begin, stage = 0; key < end; key += kColumns, stage ^= 1) {
    if (key + kColumns < end) load_keys(key + kColumns, stage ^ 1);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    const Number* const k_tile = k_tiles + stage * kColumns * kWidth;
    const Number* const v_tile = v_tiles + stage * kColumns * kWidth;

    float p[kColumns / 8][4] = {};
    multiply_transposed<Number, kWidth>(p, q_tile, row, k_tile);
    const bool all_seen = scope.sees_all(first + row, 16, key, kColumns);
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        p[n][i] = logits.of(p[n][i], first + row + lane / 4 + i / 2 * 8, key + 8 * n + lane % 4 * 2 + i % 2, all_seen);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = largest[half];
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) top = fmaxf(top, fmaxf(p[n][2 * half], p[n][2 * half + 1]));
      top = fmaxf(top, __shfl_xor_sync(kWholeWarp, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kWholeWarp, top, 2));
      const float shift = top == -INFINITY ? 0.0f : top;
      const float shrink = exp2f(largest[half] - shift);
      largest[half] = top;
      total[half] *= shrink;
#pragma unroll
      for (int n = 0; n < kSums / 8; ++n) {
        sums[n][2 * half] *= shrink;
        sums[n][2 * half + 1] *= shrink;
      }
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& weight = p[n][2 * half + e];
          weight = exp2f(weight - shift);
          total[half] += weight;
        }
      }
    }
    if (logits.drops_any()) {
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          p[n][i] *= logits.keeps(first + row + lane / 4 + i / 2 * 8, key + 8 * n + lane % 4 * 2 + i % 2);
        }
      }
    }
    multiply<Number, kWidth>(sums, p, v_tile, column / kPerChunk<Number>);
    __syncthreads();  // before the next but one tile is copied over this one
  }

  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float all = total[half];
    all += __shfl_xor_sync(kWholeWarp, all, 1);
    all += __shfl_xor_sync(kWholeWarp, all, 2);
    inverse[half] = all == 0.0f ? 0.0f : 1.0f / all;
    const int query = first + row + lane / 4 + 8 * half;
    if (lane % 4 == 0 && query < shape.targets && column == 0) {
      float* stats = to.stats + 2 * (int64_t{unit} * shape.targets + query);
      store_pair(stats, all == 0.0f ? 0.0f : largest[half], inverse[half]);
    }
  }
  const float kept = kept_factor(logits.drop_below);
  const int64_t position = sentence * shape.targets + first + row;
  write_rows(sums, to.out + (position * heads + head) * shape.value_width + column, heads * shape.value_width,
             static_cast<int>(shape.targets) - first - row, static_cast<int>(shape.value_width) - column,
             inverse[0] * kept, inverse[1] * kept);
}

// The weights of one query, for someone who wants to look: a thread has a key, one product at a time.
constexpr int kWeightThreads = 128;

template <typename Number>
__global__ void __launch_bounds__(kWeightThreads)
    weights_kernel(const AttentionShape shape, const AttentionInputs<Number> in, const AttentionOutputs<Number> to) {
  SEQKIT_DYNAMIC_SHARED(float, query);
  const int64_t flat = blockIdx.x;  // of [B, H, T]
  const int row = static_cast<int>(flat % shape.targets), unit = static_cast<int>(flat / shape.targets);
  const int sentence = unit / static_cast<int>(shape.heads), head = unit % static_cast<int>(shape.heads);
  const auto logits = logits_of<false>(shape, in, sentence, head);
  const Number* q = in.q + sentence * in.q_strides.batch + head * in.q_strides.head + row * in.q_strides.row;
  const Number* k = in.k + sentence * in.k_strides.batch + head / (shape.heads / shape.kv_heads) * in.k_strides.head;
  const bool counts = row < logits.scope.queries;  // else it is not read
  for (int d = threadIdx.x; counts && d < shape.width; d += kWeightThreads) query[d] = to_float(q[d]);
  __syncthreads();
  const float largest = to.stats[2 * flat], inverse = to.stats[2 * flat + 1];
  for (int key = threadIdx.x; key < shape.sources; key += kWeightThreads) {
    float weight = 0.0f;
    if (logits.scope.sees(row, key)) {
      float product = 0.0f;
      for (int d = 0; d < shape.width; ++d) product = fmaf(query[d], to_float(k[key * in.k_strides.row + d]), product);
      weight = exp2f(logits.of(product, row, key, true) - largest) * inverse;
    }
    to.weights[flat * shape.sources + key] = from_float<Number>(weight);
  }
}

template <typename Number, int kWidth, bool kPlain>
void launch_forward(const AttentionShape& shape, const AttentionInputs<Number>& in, const AttentionOutputs<Number>& to,
                    void* stream) {
  constexpr int kRows = kQueries<Number, kWidth>, kColumns = kKeys<Number, kWidth>;
  constexpr size_t kShared = (kRows + 4 * kColumns) * kWidth * sizeof(Number);
  const int64_t blocks = shape.batch * shape.heads * ((shape.targets + kRows - 1) / kRows);
  const dim3 grid(static_cast<unsigned>(blocks), kWidth / kSlice<Number, kWidth>);
  SEQKIT_LAUNCH((forward_kernel<Number, kWidth, kPlain>), grid, dim3(2 * kRows), kShared, stream, shape, in, to,
                chunked_of(shape, in, to.out));
}

}  // namespace

template <typename Number>
const char* attention_forward_cuda(const AttentionShape& shape, const AttentionInputs<Number>& inputs,
                                   const AttentionOutputs<Number>& outputs, void* stream) {
  using Device = typename OnDevice<Number>::Type;
  const auto in = seen_as<AttentionInputs<Device>>(inputs);
  const auto to = seen_as<AttentionOutputs<Device>>(outputs);
  const int64_t rows = shape.batch * shape.heads * shape.targets;
  if (rows == 0) return nullptr;
  for_tile_width(shape, [&](auto width) {
    if (is_plain(shape, in)) {
      launch_forward<Device, width.value, true>(shape, in, to, stream);
    } else {
      launch_forward<Device, width.value, false>(shape, in, to, stream);
    }
  });
  const char* error = launch_error();
  if (error || !to.weights || shape.sources == 0) return error;
  SEQKIT_LAUNCH((weights_kernel<Device>), dim3(static_cast<unsigned>(rows)), dim3(kWeightThreads),
                shape.width * sizeof(float), stream, shape, in, to);
  return launch_error();
}

#define SEQKIT_DEFINE_ATTENTION(Number)                                                                           \
  template const char* attention_forward_cuda(const AttentionShape& shape, const AttentionInputs<Number>& inputs, \
                                              const AttentionOutputs<Number>& outputs, void* stream)
SEQKIT_DEFINE_ATTENTION(float);
SEQKIT_DEFINE_ATTENTION(Half);
SEQKIT_DEFINE_ATTENTION(Bfloat16);

}  // namespace seqkit
