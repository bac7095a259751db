// The gates of recurrent.h, once per machine level.
#include "common/device.h"
#include "common/numerics.h"
#include "recurrent/recurrent.h"

namespace seqkit {

void SEQKIT_AT_LEVEL(lstm_rows)(const LstmCell& cell, int64_t begin, int64_t end) {
  const int64_t width = cell.width;
  for (int64_t row = begin; row < end; ++row) {
    const float* gates = cell.gates + row * 4 * width;
    for (int64_t unit = 0; unit < width; unit += kLanes) {
      const int count = width - unit < kLanes ? int(width - unit) : kLanes;
      const Vec input = sigmoid(load_some(gates + unit, count));
      const Vec forget = sigmoid(load_some(gates + width + unit, count));
      const Vec candidate = tanh(load_some(gates + 2 * width + unit, count));
      const Vec output = sigmoid(load_some(gates + 3 * width + unit, count));
      const Vec state = fma(forget, load_some(cell.state + row * width + unit, count), input * candidate);
      store_some(cell.next_state + row * width + unit, state, count);
      store_some(cell.hidden + row * width + unit, output * tanh(state), count);
    }
  }
}

void SEQKIT_AT_LEVEL(gru_rows)(const GruCell& cell, int64_t begin, int64_t end) {
  const int64_t width = cell.width;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = cell.from_input + row * 3 * width;
    const float* h = cell.from_hidden + row * 3 * width;
    for (int64_t unit = 0; unit < width; unit += kLanes) {
      const int count = width - unit < kLanes ? int(width - unit) : kLanes;
      const Vec reset = sigmoid(load_some(x + unit, count) + load_some(h + unit, count));
      const Vec update = sigmoid(load_some(x + width + unit, count) + load_some(h + width + unit, count));
      const Vec fresh =
          tanh(fma(reset, load_some(h + 2 * width + unit, count), load_some(x + 2 * width + unit, count)));
      const Vec before = load_some(cell.hidden + row * width + unit, count);
      store_some(cell.next + row * width + unit, fma(update, before - fresh, fresh), count);
    }
  }
}

}  // namespace seqkit
