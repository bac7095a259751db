#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>

#include "common/check.h"
#include "linear/linear.h"

namespace seqkit {
namespace {

Tensor pack(const Tensor& weight) {
  constexpr const char* kWhere = "linear_pack";
  check_floats(kWhere, "weight", weight, {kAny, kAny});
  const int64_t columns = weight.size(0), depth = weight.size(1);
  const int64_t panels = (columns + kPanel - 1) / kPanel;
  Tensor packed = torch::stable::empty({panels, depth, kPanel}, ScalarType::Float);
  const float* from = static_cast<const float*>(weight.const_data_ptr());
  float* to = static_cast<float*>(packed.mutable_data_ptr());
  // Panels of no depth hold nothing, however many they are.
  torch::stable::parallel_for(0, depth ? panels : 0, 8,
                              [&](int64_t begin, int64_t end) { linear_pack(from, to, columns, depth, begin, end); });
  return packed;
}

Tensor linear(const Tensor& x, const Tensor& packed, const std::optional<Tensor>& bias, int64_t columns,
              int64_t activation) {
  constexpr const char* kWhere = "linear";
  check_floats(kWhere, "x", x, {kAny, kAny});
  STD_TORCH_CHECK(columns >= 0, kWhere, ": columns must not be negative, got ", columns);
  STD_TORCH_CHECK(activation >= 0 && activation <= 3, kWhere, ": activation must be 0 to 3, got ", activation);
  const int64_t rows = x.size(0), depth = x.size(1);
  check_floats(kWhere, "packed", packed, {(columns + kPanel - 1) / kPanel, depth, kPanel});
  if (bias) check_floats(kWhere, "bias", *bias, {columns});
  Tensor y = torch::stable::empty({rows, columns}, ScalarType::Float);
  const LinearCall call{
      .x = static_cast<const float*>(x.const_data_ptr()),
      .packed = static_cast<const float*>(packed.const_data_ptr()),
      .bias = bias ? static_cast<const float*>(bias->const_data_ptr()) : nullptr,
      .y = static_cast<float*>(y.mutable_data_ptr()),
      .rows = rows,
      .columns = columns,
      .depth = depth,
      .activation = static_cast<Activation>(activation),
  };
  // A thread is worth waking for some 100,000 multiply-adds.
  const int64_t block_work = rows * depth * columns / (linear_blocks(call) + 1) + 1;
  torch::stable::parallel_for(0, linear_blocks(call), 100000 / block_work + 1,
                              [&](int64_t begin, int64_t end) { linear_run(call, begin, end); });
  return y;
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def("linear_pack(Tensor weight) -> Tensor");
  library.def("linear(Tensor x, Tensor packed, Tensor? bias, int columns, int activation) -> Tensor");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("linear_pack", TORCH_BOX(&seqkit::pack));
  library.impl("linear", TORCH_BOX(&seqkit::linear));
}
