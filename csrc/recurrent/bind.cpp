#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "common/check.h"
#include "recurrent/recurrent.h"

namespace seqkit {
namespace {

constexpr int64_t kRowsPerThread = 64;

std::tuple<Tensor, Tensor> lstm_cell(const Tensor& gates, const Tensor& state) {
  constexpr const char* kWhere = "lstm_cell";
  check_floats(kWhere, "state", state, {kAny, kAny});
  const int64_t rows = state.size(0), width = state.size(1);
  check_floats(kWhere, "gates", gates, {rows, 4 * width});
  Tensor hidden = torch::stable::empty({rows, width}, ScalarType::Float);
  Tensor next_state = torch::stable::empty({rows, width}, ScalarType::Float);
  const LstmCell cell{
      .gates = static_cast<const float*>(gates.const_data_ptr()),
      .state = static_cast<const float*>(state.const_data_ptr()),
      .hidden = static_cast<float*>(hidden.mutable_data_ptr()),
      .next_state = static_cast<float*>(next_state.mutable_data_ptr()),
      .width = width,
  };
  torch::stable::parallel_for(0, width ? rows : 0, kRowsPerThread,
                              [&](int64_t begin, int64_t end) { lstm_cell_run(cell, begin, end); });
  return {hidden, next_state};
}

Tensor gru_cell(const Tensor& from_input, const Tensor& from_hidden, const Tensor& hidden) {
  constexpr const char* kWhere = "gru_cell";
  check_floats(kWhere, "hidden", hidden, {kAny, kAny});
  const int64_t rows = hidden.size(0), width = hidden.size(1);
  check_floats(kWhere, "from_input", from_input, {rows, 3 * width});
  check_floats(kWhere, "from_hidden", from_hidden, {rows, 3 * width});
  Tensor next = torch::stable::empty({rows, width}, ScalarType::Float);
  const GruCell cell{
      .from_input = static_cast<const float*>(from_input.const_data_ptr()),
      .from_hidden = static_cast<const float*>(from_hidden.const_data_ptr()),
      .hidden = static_cast<const float*>(hidden.const_data_ptr()),
      .next = static_cast<float*>(next.mutable_data_ptr()),
      .width = width,
  };
  torch::stable::parallel_for(0, width ? rows : 0, kRowsPerThread,
                              [&](int64_t begin, int64_t end) { gru_cell_run(cell, begin, end); });
  return next;
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def("lstm_cell(Tensor gates, Tensor state) -> (Tensor, Tensor)");
  library.def("gru_cell(Tensor from_input, Tensor from_hidden, Tensor hidden) -> Tensor");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("lstm_cell", TORCH_BOX(&seqkit::lstm_cell));
  library.impl("gru_cell", TORCH_BOX(&seqkit::gru_cell));
}
