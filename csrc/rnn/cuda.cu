// rnn.h on a card, in float32: two kernels a step, the product and then a block for each sentence, so that nothing
// waits for the host and a call can be captured. Sentences stay in their order; one whose length is passed is left
// alone.
#include "attention/rows.h"
#include "common/cuda.h"
#include "rnn/rnn.h"

namespace seqkit {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRows = 8, kColumns = 2;  // of a warp in the product
constexpr float kNormEpsilon = 1e-5f;   // torch.nn.functional.layer_norm's

SEQKIT_DEVICE int64_t length_of(const int64_t* lengths, int64_t sentence, int64_t steps) {
  if (!lengths) return steps;
  const int64_t length = lengths[sentence];
  return length < 0 ? 0 : length > steps ? steps : length;
}

// to[i] = from[i], or zeros.
__global__ void __launch_bounds__(kThreads) begin_kernel(float* to, const float* from, int64_t count) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at < count) to[at] = from ? from[at] : 0.0f;
}

// ---- the product of a step ----

struct Product {
  const float *x, *weight;  // [rows, depth], [columns, depth]
  float* y;                 // [rows, columns]
  const int64_t* lengths;
  int64_t rows, depth, columns, step, steps;
  bool add;
};

// y = x W^T, or y + x W^T with `add`: a warp has a few columns of a few rows, and its lanes share out the depth. Rows
// whose length is passed are not written.
template <bool kWide>
__global__ void __launch_bounds__(kThreads) product_kernel(const Product p) {
  const int64_t column_blocks = (p.columns + kWarps * kColumns - 1) / (kWarps * kColumns);
  const int64_t first_row = blockIdx.x / column_blocks * kRows;
  const int64_t first_column = (blockIdx.x % column_blocks * kWarps + threadIdx.x / 32) * kColumns;
  const int lane = threadIdx.x % 32;
  if (first_column >= p.columns) return;
  const float *x[kRows], *w[kColumns];  // what is beyond the end reads the last row, and is not written
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    x[r] = p.x + (first_row + r < p.rows ? first_row + r : p.rows - 1) * p.depth;
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    w[c] = p.weight + (first_column + c < p.columns ? first_column + c : p.columns - 1) * p.depth;
  }
  float sums[kRows][kColumns] = {};
  for (int64_t k = lane * (kWide ? 4 : 1); k < p.depth; k += kWide ? 128 : 32) {
    if constexpr (kWide) {
      float4 weights[kColumns];
#pragma unroll
      for (int c = 0; c < kColumns; ++c) weights[c] = load_4(w[c] + k);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float4 value = load_4(x[r] + k);
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[r][c] = dot_4(value, weights[c], sums[r][c]);
      }
    } else {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) sums[r][c] = fmaf(x[r][k], w[c][k], sums[r][c]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float sum = warp_sum(sums[r][c]);
      const int64_t row = first_row + r, column = first_column + c;
      if (lane != 0 || row >= p.rows || column >= p.columns) continue;
      if (p.step >= length_of(p.lengths, row, p.steps)) continue;
      float* const y = p.y + row * p.columns + column;
      *y = p.add ? *y + sum : sum;
    }
  }
}

const char* multiply(const Product& product, void* stream) {
  const int64_t blocks =
      (product.columns + kWarps * kColumns - 1) / (kWarps * kColumns) * ((product.rows + kRows - 1) / kRows);
  const auto aligned = [](const float* from) { return reinterpret_cast<uintptr_t>(from) % 16 == 0; };
  const dim3 grid(static_cast<unsigned>(blocks));
  if (product.depth % 4 == 0 && aligned(product.x) && aligned(product.weight)) {
    SEQKIT_LAUNCH((product_kernel<true>), grid, dim3(kThreads), 0, stream, product);
  } else {
    SEQKIT_LAUNCH((product_kernel<false>), grid, dim3(kThreads), 0, stream, product);
  }
  return launch_error();
}

// ---- what both passes do to a row ----

SEQKIT_DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// What each warp has summed, added in their order, in every thread.
SEQKIT_DEVICE float block_sum(float value, float* room) {
  value = warp_sum(value);
  __syncthreads();  // the last sum may still be read
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
  for (int warp = 0; warp < kWarps; ++warp) sum += room[warp];
  return sum;
}

struct Moments {
  float mean, scale;
};

SEQKIT_DEVICE Moments moments(const float* x, int64_t count, float* room) {
  float total = 0.0f, squares = 0.0f;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) total += x[i];
  const float mean = block_sum(total, room) / static_cast<float>(count);
  for (int64_t i = threadIdx.x; i < count; i += kThreads) squares = fmaf(x[i] - mean, x[i] - mean, squares);
  return {mean, 1.0f / sqrtf(block_sum(squares, room) / static_cast<float>(count) + kNormEpsilon)};
}

// share * old + (1 - share) * fresh; a unit that stays, stays to the last bit.
SEQKIT_DEVICE float blend(float share, float old, float fresh) {
  return share == 1.0f ? old : fmaf(share, old - fresh, fresh);
}

SEQKIT_DEVICE float at_or(const float* from, int64_t at, float otherwise) { return from ? from[at] : otherwise; }

// How much of the old hidden state and of the old cell state a unit keeps.
struct Kept {
  float hidden, state;
};

SEQKIT_DEVICE Kept kept(const RnnInputs<float>& in, const int64_t* seed, int64_t sentence, int64_t t, int64_t unit) {
  if (!seed) return {in.zoneout_hidden, in.zoneout_state};
  const auto threshold = [](float p) { return static_cast<uint64_t>(static_cast<double>(p) * 0x1p32); };
  const RandomWords words = random_words(static_cast<uint64_t>(*seed), static_cast<uint32_t>(sentence),
                                         static_cast<uint32_t>(t), static_cast<uint32_t>(unit));
  return {words.first < threshold(in.zoneout_hidden) ? 1.0f : 0.0f,
          words.second < threshold(in.zoneout_state) ? 1.0f : 0.0f};
}

SEQKIT_DEVICE float normed_state(const RnnInputs<float>& in, const Moments& norm, float state, int64_t unit) {
  if (!in.layer_norm) return state;
  return fmaf((state - norm.mean) * norm.scale, at_or(in.gain_state, unit, 1.0f), at_or(in.bias_state, unit, 0.0f));
}

SEQKIT_DEVICE void clear(float* row, int64_t count) {
  for (int64_t i = threadIdx.x; row && i < count; i += kThreads) row[i] = 0.0f;
}

// Where a sentence's step stands in [B, T], and where the one before it, or -1 at the first.
struct Place {
  int64_t row, row_before;
};

SEQKIT_DEVICE Place place_of(const RnnInputs<float>& in, int64_t sentence, int64_t length, int64_t step) {
  const int64_t row = sentence * in.steps + (in.reverse ? length - 1 - step : step);
  return {row, step == 0 ? -1 : in.reverse ? row + 1 : row - 1};
}

// ---- forward ----

__global__ void __launch_bounds__(kThreads)
    forward_kernel(const RnnInputs<float> in, const RnnForward<float> to, const int64_t* seed, int64_t step) {
  SEQKIT_DYNAMIC_SHARED(float, room);  // [kWarps]
  const int64_t sentence = blockIdx.x, H = in.width, GH = gates_of(in.cell) * H;
  const int64_t length = length_of(in.lengths, sentence, in.steps);
  if (step >= length) {  // this step's place is padding, whatever the direction
    const int64_t row = sentence * in.steps + step;
    clear(to.outputs + row * H, H);
    if (to.gates) clear(to.gates + row * GH, GH);
    if (to.products) clear(to.products + row * GH, GH);
    if (to.states) clear(to.states + row * H, H);
    if (to.stats) clear(to.stats + row * kRnnStats, kRnnStats);
    return;
  }
  const int64_t row = place_of(in, sentence, length, step).row, t = row - sentence * in.steps;
  float* const hidden = to.hidden + sentence * H;
  float* const u = to.step + sentence * GH;
  float* const gates = to.gates ? to.gates + row * GH : u;  // without a backward pass in the place of U h
  float* const products = to.products ? to.products + row * GH : nullptr;
  float* const stats = to.stats ? to.stats + row * kRnnStats : nullptr;
  const float* const x = in.from_input + row * GH;
  Moments of_x{0.0f, 1.0f}, of_u{0.0f, 1.0f};
  if (in.layer_norm) {
    of_x = moments(x, GH, room);
    of_u = moments(u, GH, room);  // its barriers stand between these reads and the gates that may be stored there
  }
  if (stats && threadIdx.x == 0) {
    stats[0] = of_x.mean;
    stats[1] = of_x.scale;
    stats[2] = of_u.scale;
    if (in.cell != Cell::kLstm) stats[3] = stats[4] = 0.0f;
  }
  const auto input_part = [&](int64_t at) {
    float value = x[at];
    if (in.layer_norm) value = (value - of_x.mean) * of_x.scale * at_or(in.gain_input, at, 1.0f);
    return value + at_or(in.bias_input, at, 0.0f);
  };
  const auto hidden_part = [&](int64_t at) {
    float value = u[at];
    if (in.layer_norm) value = (value - of_u.mean) * of_u.scale;
    if (products) products[at] = value;
    if (in.layer_norm) value *= at_or(in.gain_hidden, at, 1.0f);
    return value + at_or(in.bias_hidden, at, 0.0f);
  };
  const auto both = [&](int64_t at) { return input_part(at) + hidden_part(at); };
  const auto finish = [&](int64_t unit, float fresh, float share) {
    const float value = blend(share, hidden[unit], fresh);
    hidden[unit] = value;
    to.outputs[row * H + unit] = value;
  };

  if (in.cell == Cell::kLstm) {
    float* const state = to.state + sentence * H;
    float* const candidates = to.candidates + sentence * H;
    for (int64_t unit = threadIdx.x; unit < H; unit += kThreads) {
      const float before = state[unit];
      float i = both(unit), f = both(H + unit), g = both(2 * H + unit), o = both(3 * H + unit);
      if (in.peepholes) {
        i = fmaf(in.peepholes[unit], before, i);
        f = fmaf(in.peepholes[H + unit], before, f);
      }
      i = sigmoid(i);
      f = sigmoid(f);
      g = tanhf(g);
      const float candidate = fmaf(f, before, i * g);
      if (in.peepholes) o = fmaf(in.peepholes[2 * H + unit], candidate, o);
      gates[unit] = i;
      gates[H + unit] = f;
      gates[2 * H + unit] = g;
      gates[3 * H + unit] = sigmoid(o);
      candidates[unit] = candidate;
    }
    // A thread reads the candidates that it wrote, so that no barrier is needed.
    const Moments norm = in.layer_norm ? moments(candidates, H, room) : Moments{0.0f, 1.0f};
    if (stats && threadIdx.x == 0) {
      stats[3] = norm.mean;
      stats[4] = norm.scale;
    }
    for (int64_t unit = threadIdx.x; unit < H; unit += kThreads) {
      const Kept share = kept(in, seed, sentence, t, unit);
      const float candidate = candidates[unit], after = blend(share.state, state[unit], candidate);
      state[unit] = after;
      if (to.states) to.states[row * H + unit] = after;
      finish(unit, gates[3 * H + unit] * tanhf(normed_state(in, norm, candidate, unit)), share.hidden);
    }
    return;
  }
  for (int64_t unit = threadIdx.x; unit < H; unit += kThreads) {
    const float share = kept(in, seed, sentence, t, unit).hidden;
    if (in.cell == Cell::kGru) {
      const float r = sigmoid(both(unit)), z = sigmoid(both(H + unit));
      const float n = tanhf(fmaf(r, hidden_part(2 * H + unit), input_part(2 * H + unit)));
      gates[unit] = r;
      gates[H + unit] = z;
      gates[2 * H + unit] = n;
      finish(unit, blend(z, hidden[unit], n), share);
    } else {
      const float sum = both(unit), fresh = in.cell == Cell::kTanh ? tanhf(sum) : sum < 0.0f ? 0.0f : sum;
      gates[unit] = fresh;
      finish(unit, fresh, share);
    }
  }
}

// ---- backward ----

// What a part's gradient row becomes behind its norm: d of normed values to d of values, in place. The sums of the gain
// and of the bias grow by the row. `normed` gives the normed values.
template <typename Normed>
SEQKIT_DEVICE void through_norm(float* grad, int64_t count, const float* gain, float scale, float* gain_sums,
                                float* bias_sums, float* room, const Normed& normed) {
  float plain = 0.0f, product = 0.0f;
  for (int64_t at = threadIdx.x; at < count; at += kThreads) {
    const float d = grad[at], value = normed(at), slope = d * at_or(gain, at, 1.0f);
    bias_sums[at] += d;
    gain_sums[at] += d * value;
    grad[at] = slope;
    plain += slope;
    product = fmaf(slope, value, product);
  }
  const float mean = block_sum(plain, room) / static_cast<float>(count);
  const float along = block_sum(product, room) / static_cast<float>(count);
  for (int64_t at = threadIdx.x; at < count; at += kThreads) {
    grad[at] = scale * (grad[at] - mean - along * normed(at));
  }
}

__global__ void __launch_bounds__(kThreads)
    backward_kernel(const RnnInputs<float> in, const RnnBackward<float> to, const int64_t* seed, int64_t step) {
  SEQKIT_DYNAMIC_SHARED(float, room);  // [kWarps]
  const int64_t sentence = blockIdx.x, H = in.width, GH = gates_of(in.cell) * H;
  const int64_t length = length_of(in.lengths, sentence, in.steps);
  if (step >= length) {
    const int64_t row = sentence * in.steps + step;
    clear(to.grad_input + row * GH, GH);
    if (to.grad_products) clear(to.grad_products + row * GH, GH);
    clear(to.before + row * H, H);
    return;
  }
  const Place place = place_of(in, sentence, length, step);
  const int64_t row = place.row, t = row - sentence * in.steps;
  const bool two_parts = in.layer_norm || in.cell == Cell::kGru;  // W x and U h have different gradients
  const float* const gates = to.gates + row * GH;
  const float* const products = to.products ? to.products + row * GH : nullptr;
  const float* const stats = to.stats ? to.stats + row * kRnnStats : nullptr;
  const float* const before = place.row_before < 0 ? in.h0 + sentence * H : to.outputs + place.row_before * H;
  float* const grad_hidden = to.grad_hidden + sentence * H;
  float* const d = to.grad_step + sentence * GH;
  float* const d_input = two_parts ? to.grad_step_input + sentence * GH : d;
  float* const bias_input_sums = to.sums + sentence * rnn_sums(in.cell, H);
  float* const bias_hidden_sums = bias_input_sums + GH;
  float* const gain_input_sums = bias_hidden_sums + GH;
  float* const gain_hidden_sums = gain_input_sums + GH;
  float* const gain_state_sums = gain_hidden_sums + GH;
  float* const bias_state_sums = gain_state_sums + H;
  float* const peephole_sums = bias_state_sums + H;
  for (int64_t unit = threadIdx.x; unit < H; unit += kThreads) to.before[row * H + unit] = before[unit];
  const auto met = [&](int64_t unit) {  // the gradient of the step's hidden state
    return to.grad_outputs ? grad_hidden[unit] + to.grad_outputs[row * H + unit] : grad_hidden[unit];
  };

  if (in.cell == Cell::kLstm) {
    const float* const old_state = place.row_before < 0 ? in.c0 + sentence * H : to.states + place.row_before * H;
    float* const grad_state = to.grad_state + sentence * H;
    const Moments norm = in.layer_norm ? Moments{stats[3], stats[4]} : Moments{0.0f, 1.0f};
    const auto candidate = [&](int64_t unit) {
      return fmaf(gates[H + unit], old_state[unit], gates[unit] * gates[2 * H + unit]);
    };
    float* const grad_normed = d;  // the place of the input gate's gradient, which comes later
    for (int64_t unit = threadIdx.x; unit < H; unit += kThreads) {
      const float grad = met(unit), kept_part = kept(in, seed, sentence, t, unit).hidden * grad;
      const float fresh = grad - kept_part, o = gates[3 * H + unit];
      const float y = tanhf(normed_state(in, norm, candidate(unit), unit));
      grad_hidden[unit] = kept_part;
      d[3 * H + unit] = fresh * y * (o - o * o);
      grad_normed[unit] = fresh * o * fmaf(-y, y, 1.0f);
    }
    if (in.layer_norm) {
      through_norm(grad_normed, H, in.gain_state, norm.scale, gain_state_sums, bias_state_sums, room,
                   [&](int64_t unit) { return (candidate(unit) - norm.mean) * norm.scale; });
    }
    for (int64_t unit = threadIdx.x; unit < H; unit += kThreads) {
      const float i = gates[unit], f = gates[H + unit], g = gates[2 * H + unit], old = old_state[unit];
      const float grad_after = grad_state[unit], kept_part = kept(in, seed, sentence, t, unit).state * grad_after;
      float grad = grad_normed[unit] + (grad_after - kept_part);
      if (in.peepholes) {
        const float o = d[3 * H + unit];
        grad = fmaf(in.peepholes[2 * H + unit], o, grad);
        peephole_sums[2 * H + unit] += o * fmaf(f, old, i * g);
      }
      const float to_input = grad * g * (i - i * i), to_forget = grad * old * (f - f * f);
      float to_state = fmaf(grad, f, kept_part);
      if (in.peepholes) {
        to_state = fmaf(in.peepholes[unit], to_input, to_state);
        to_state = fmaf(in.peepholes[H + unit], to_forget, to_state);
        peephole_sums[unit] += to_input * old;
        peephole_sums[H + unit] += to_forget * old;
      }
      grad_state[unit] = to_state;
      d[unit] = to_input;
      d[H + unit] = to_forget;
      d[2 * H + unit] = grad * i * fmaf(-g, g, 1.0f);
    }
  } else {
    for (int64_t unit = threadIdx.x; unit < H; unit += kThreads) {
      const float grad = met(unit), kept_part = kept(in, seed, sentence, t, unit).hidden * grad;
      const float fresh = grad - kept_part;
      if (in.cell == Cell::kGru) {
        const int64_t at = 2 * H + unit;
        const float r = gates[unit], z = gates[H + unit], n = gates[at];
        float of_hidden = products[at];
        if (in.layer_norm) of_hidden *= at_or(in.gain_hidden, at, 1.0f);
        of_hidden += at_or(in.bias_hidden, at, 0.0f);
        const float to_new = (fresh - z * fresh) * fmaf(-n, n, 1.0f);
        const float to_reset = to_new * of_hidden * (r - r * r);
        const float to_update = fresh * (before[unit] - n) * (z - z * z);
        grad_hidden[unit] = fmaf(fresh, z, kept_part);
        d[unit] = d_input[unit] = to_reset;
        d[H + unit] = d_input[H + unit] = to_update;
        d_input[at] = to_new;
        d[at] = to_new * r;
      } else {
        const float y = gates[unit];
        grad_hidden[unit] = kept_part;
        d[unit] = in.cell == Cell::kTanh ? fresh * fmaf(-y, y, 1.0f) : y > 0.0f ? fresh : 0.0f;
      }
    }
  }

  __syncthreads();  // below a thread has other places of the gates
  if (in.layer_norm) {
    const float* const x = in.from_input + row * GH;
    for (int64_t at = threadIdx.x; at < GH && in.cell != Cell::kGru; at += kThreads) d_input[at] = d[at];
    through_norm(d_input, GH, in.gain_input, stats[1], gain_input_sums, bias_input_sums, room,
                 [&](int64_t at) { return (x[at] - stats[0]) * stats[1]; });
    through_norm(d, GH, in.gain_hidden, stats[2], gain_hidden_sums, bias_hidden_sums, room,
                 [&](int64_t at) { return products[at]; });
  }
  for (int64_t at = threadIdx.x; at < GH; at += kThreads) {
    if (!in.layer_norm) {
      bias_input_sums[at] += d_input[at];
      if (in.cell == Cell::kGru) bias_hidden_sums[at] += d[at];
    }
    to.grad_input[row * GH + at] = d_input[at];
    if (to.grad_products) to.grad_products[row * GH + at] = d[at];
  }
}

const char* begin(float* to, const float* from, int64_t count, void* stream) {
  if (count == 0) return nullptr;
  SEQKIT_LAUNCH(begin_kernel, dim3(static_cast<unsigned>((count + kThreads - 1) / kThreads)), dim3(kThreads), 0, stream,
                to, from, count);
  return launch_error();
}

}  // namespace

const char* rnn_forward_cuda(const RnnInputs<float>& in, const RnnForward<float>& to, const float* weight,
                             const int64_t* seed, void* stream) {
  if (in.batch == 0 || in.width == 0) return nullptr;
  const int64_t H = in.width, GH = gates_of(in.cell) * H;
  if (const char* error = begin(to.hidden, in.h0, in.batch * H, stream)) return error;
  if (in.cell == Cell::kLstm) {
    if (const char* error = begin(to.state, in.c0, in.batch * H, stream)) return error;
  }
  const dim3 grid(static_cast<unsigned>(in.batch));
  for (int64_t step = 0; step < in.steps; ++step) {
    const Product product{to.hidden, weight, to.step, in.lengths, in.batch, H, GH, step, in.steps, false};
    if (const char* error = multiply(product, stream)) return error;
    SEQKIT_LAUNCH(forward_kernel, grid, dim3(kThreads), kWarps * sizeof(float), stream, in, to, seed, step);
    if (const char* error = launch_error()) return error;
  }
  return nullptr;
}

const char* rnn_backward_cuda(const RnnInputs<float>& in, const RnnBackward<float>& to, const float* grad_hidden,
                              const float* grad_state, const float* turned, const int64_t* seed, void* stream) {
  if (in.batch == 0 || in.width == 0) return nullptr;
  const int64_t H = in.width, GH = gates_of(in.cell) * H;
  if (const char* error = begin(to.grad_hidden, grad_hidden, in.batch * H, stream)) return error;
  if (in.cell == Cell::kLstm) {
    if (const char* error = begin(to.grad_state, grad_state, in.batch * H, stream)) return error;
  }
  if (const char* error = begin(to.sums, nullptr, in.batch * rnn_sums(in.cell, H), stream)) return error;
  const dim3 grid(static_cast<unsigned>(in.batch));
  for (int64_t step = in.steps - 1; step >= 0; --step) {
    SEQKIT_LAUNCH(backward_kernel, grid, dim3(kThreads), kWarps * sizeof(float), stream, in, to, seed, step);
    if (const char* error = launch_error()) return error;
    const Product product{to.grad_step, turned, to.grad_hidden, in.lengths, in.batch, GH, H, step, in.steps, true};
    if (const char* error = multiply(product, stream)) return error;
  }
  return nullptr;
}

}  // namespace seqkit
