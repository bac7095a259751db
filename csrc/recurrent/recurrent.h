// One step of the pointwise part of an LSTM or a GRU, for all rows; the matrix products are linear.h's.
//
// All arrays are contiguous float32. A row's tail runs the same vector code as the rest of it, so that a state's bits
// do not depend on the batch (torch's own sigmoid and tanh round otherwise in the last lanes of a tensor).
#pragma once

#include <cstdint>

namespace seqkit {

// gates [rows, 4 width] in the order input, forget, cell, output; state [rows, width].
// next_state = sigmoid(f) state + sigmoid(i) tanh(g);  hidden = sigmoid(o) tanh(next_state).
struct LstmCell {
  const float* gates;
  const float* state;
  float* hidden;
  float* next_state;
  int64_t width;
};

// from_input and from_hidden [rows, 3 width] in the order reset, update, new; hidden [rows, width].
// n = tanh(x_n + sigmoid(x_r + h_r) h_n);  z = sigmoid(x_z + h_z);  next = n + z (hidden - n).
struct GruCell {
  const float* from_input;
  const float* from_hidden;
  const float* hidden;
  float* next;
  int64_t width;
};

// Computes rows [begin, end).
void lstm_cell_run(const LstmCell& cell, int64_t begin, int64_t end);
void gru_cell_run(const GruCell& cell, int64_t begin, int64_t end);

}  // namespace seqkit
