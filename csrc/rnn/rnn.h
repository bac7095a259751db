// A layer of an RNN, LSTM or GRU over whole sequences, forward and backward: what stands between the products with the
// inputs (all steps at once, the caller's) and the outputs. The single steps of decoding are recurrent.h's.
//
// Sentences are worked on in slots, the longest first, so that the rows of a step that still count are the first ones.
// At each step come a product (hidden [slots, H] times U^T, or the gradients times U) over panels of columns, then what
// is done unit by unit, with the norms, over slots. A row's numbers do not depend on how many slots there are.
//
// Gates in torch's order: LSTM input, forget, cell, output; GRU reset, update, new. G is their number, 1 for an RNN.
// Layout: from_input [B, T, G H] = x W^T without bias; weights packed [ceil(N / 32)][K][32].
//
// With hidden weights in bfloat16 a step's product rounds its rows to bfloat16 and sums in float32, by the CPU's matrix
// unit where it has one. All else stays float32.
//
// Tried and dropped:
//   MKL's sgemm for 20 rows         94 to 139 GFLOP/s a thread; tiles of 10 rows by 32 columns reach 188
//   chains of all of k              154 GFLOP/s: a panel's part of 128 steps stays in the nearest cache for all rows
//   AMX for the float32 product of a step
//                                   its three-part weights are half as much again to stream, and streaming is the cost
//   AMX for the products of all steps, each float32 as three bfloat16 (six products, no larger error than sgemm's):
//                                   1.1 to 1.4 of sgemm by itself, and nothing in a step of training, 203 ms and 198
#pragma once

#include <cstdint>

#include "common/device.h"

namespace seqkit {

enum class Cell : int64_t { kTanh = 0, kRelu = 1, kLstm = 2, kGru = 3 };

constexpr int64_t kRnnPanel = 32;  // columns that are packed together
constexpr int64_t kSlotGroup = 8;  // slots whose gradients of biases and gains are summed together
constexpr int64_t kRnnStats = 5;   // of a row: mean and 1 / deviation of the input, of U h the latter, both of c
constexpr int64_t kPeepholes = 3;  // to the input, the forget and the output gate

constexpr int64_t gates_of(Cell cell) { return cell == Cell::kLstm ? 4 : cell == Cell::kGru ? 3 : 1; }

// What the passes read.
template <typename Number>
struct RnnInputs {
  Cell cell;
  bool reverse, layer_norm;
  int64_t batch, steps, width;
  const int64_t *order, *lengths;          // [B], by slot: the sentence and its length
  const Number *from_input, *h0, *c0;      // [B, T, G H], [B, H] twice
  const Number *bias_input, *bias_hidden;  // [G H] or null
  const Number *gain_input, *gain_hidden;  // [G H], with layer_norm; or null for ones
  const Number *gain_state, *bias_state;   // [H], with layer_norm in an LSTM; or null for ones and zeros
  const Number* peepholes;                 // [3, H] or null
  Number zoneout_hidden, zoneout_state;    // the share of the old value, or the probability that it stays
  bool random;                             // whether a unit stays as a whole or by that share
  uint64_t seed;
};

template <typename Number>
struct RnnForward {
  Number* outputs;                            // [B, T, H]
  Number *gates, *products, *states, *stats;  // for the backward pass, or null: [B, T, G H] twice, [B, T, H], [B, T, 5]
  Number *hidden, *state, *candidates, *step;  // by slot: [B, H] three times, U h [B, G H]
};

template <typename Number>
struct RnnBackward {
  const Number* grad_outputs;  // [B, T, H] or null
  const Number *outputs, *gates, *products, *states, *stats;
  Number *grad_hidden, *grad_state;     // by slot [B, H]: of what a step leaves, then of what it met
  Number *grad_step_input, *grad_step;  // by slot [B, G H]: the step's gradients of W x (GRU), of U h
  Number *grad_input, *grad_products;   // [B, T, G H]; the second null where it equals the first
  Number* before;                       // [B, T, H]: the hidden state that each step met
  Number* sums;                         // [groups, rnn_sums]
};

// Of a group: gradients of bias_input, bias_hidden, gain_input, gain_hidden [G H each], gain_state, bias_state [H each]
// and the peepholes [3 H].
constexpr int64_t rnn_sums(Cell cell, int64_t width) { return (4 * gates_of(cell) + 2 + kPeepholes) * width; }

// y[r, n] = (y[r, n] if `add`) + sum over k of x[r, k] w[k, n], for the columns of a panel.
template <typename Number>
struct RnnProduct {
  const Number *x, *packed;
  Number* y;
  int64_t rows, depth, columns;
  bool add;
};

inline int64_t panels(int64_t columns) { return (columns + kRnnPanel - 1) / kRnnPanel; }

// Packs panels [begin, end) of w[k, n], which is weight[n, k] or, `turned`, weight[k, n].
template <typename Number>
void rnn_pack(const Number* weight, bool turned, int64_t depth, int64_t columns, Number* to, int64_t begin,
              int64_t end);

// Panels [begin, end).
template <typename Number>
void rnn_product(const RnnProduct<Number>& product, int64_t begin, int64_t end);

// The same product in bfloat16, with float32 sums: x [rows, depth] and weights with zeros up to a depth of whole
// kHalvesDepth, and x with room for whole kHalvesRows. Weights packed [ceil(N / 32)][depth / 32][2][16][16][2]: 16
// columns of 32 steps of k, two steps side by side, as the matrix unit reads them.
constexpr int64_t kHalvesDepth = 32;
constexpr int64_t kHalvesRows = 16;

struct RnnHalvesProduct {
  const Bfloat16 *x, *packed;
  float* y;
  int64_t rows, depth, columns;
  bool add;
};

constexpr int64_t round_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

// As rnn_pack; `depth` is that of the weight.
void rnn_pack_halves(const Bfloat16* weight, bool turned, int64_t depth, int64_t columns, Bfloat16* to, int64_t begin,
                     int64_t end);

// Panels [begin, end).
void rnn_product_halves(const RnnHalvesProduct& product, int64_t begin, int64_t end);

// Rows [begin, end) of x [., depth] to the nearest bfloat16, with zeros up to whole kHalvesDepth.
void rnn_round(const float* x, int64_t depth, Bfloat16* to, int64_t begin, int64_t end);

// Slots [begin, end) of a step, after its product.
template <typename Number>
void rnn_forward(const RnnInputs<Number>& in, const RnnForward<Number>& to, int64_t step, int64_t begin, int64_t end);

// Groups [begin, end) of the first `slots` slots of a step, before its product.
template <typename Number>
void rnn_backward(const RnnInputs<Number>& in, const RnnBackward<Number>& to, int64_t step, int64_t slots,
                  int64_t begin, int64_t end);

// cuda.cu: all steps, in float32 and without slots: `lengths` by sentence or null and cut to 0 .. T, `order` unused,
// `seed` on the card (null: not random), and the running states are the last ones that the caller gets. `sums` are one
// row a sentence; `turned` is the hidden weight [H, G H].
const char* rnn_forward_cuda(const RnnInputs<float>& in, const RnnForward<float>& to, const float* weight,
                             const int64_t* seed, void* stream);
const char* rnn_backward_cuda(const RnnInputs<float>& in, const RnnBackward<float>& to, const float* grad_hidden,
                              const float* grad_state, const float* turned, const int64_t* seed, void* stream);

}  // namespace seqkit
