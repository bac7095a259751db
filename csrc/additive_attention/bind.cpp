#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <tuple>

#include "additive_attention/additive_attention.h"
#include "common/check.h"

namespace seqkit {
namespace {

std::tuple<Tensor, Tensor> additive_attention(const Tensor& query, const Tensor& keys, const Tensor& values,
                                              const Tensor& v, const std::optional<Tensor>& lengths) {
  constexpr const char* kWhere = "additive_attention";
  check_floats(kWhere, "query", query, {kAny, kAny, kAny});
  const int64_t sentences = query.size(0), targets = query.size(1), depth = query.size(2);
  check_floats(kWhere, "keys", keys, {sentences, kAny, depth});
  const int64_t sources = keys.size(1);
  check_floats(kWhere, "values", values, {sentences, sources, kAny});
  check_floats(kWhere, "v", v, {depth});
  if (lengths) check_lengths(kWhere, "lengths", *lengths, sentences, sources, query);
  Tensor context = torch::stable::empty({sentences, targets, values.size(2)}, ScalarType::Float);
  Tensor weights = torch::stable::empty({sentences, targets, sources}, ScalarType::Float);
  const AdditiveAttention call{
      .query = static_cast<const float*>(query.const_data_ptr()),
      .keys = static_cast<const float*>(keys.const_data_ptr()),
      .values = static_cast<const float*>(values.const_data_ptr()),
      .v = static_cast<const float*>(v.const_data_ptr()),
      .lengths = lengths ? static_cast<const int64_t*>(lengths->const_data_ptr()) : nullptr,
      .context = static_cast<float*>(context.mutable_data_ptr()),
      .weights = static_cast<float*>(weights.mutable_data_ptr()),
      .targets = targets,
      .sources = sources,
      .depth = depth,
      .width = values.size(2),
  };
  torch::stable::parallel_for(0, sentences * targets, 4,
                              [&](int64_t begin, int64_t end) { additive_attention_run(call, begin, end); });
  return {context, weights};
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "additive_attention(Tensor query, Tensor keys, Tensor values, Tensor v, Tensor? lengths) -> (Tensor, Tensor)");
}

SEQKIT_LIBRARY_IMPL(CPU, library) { library.impl("additive_attention", TORCH_BOX(&seqkit::additive_attention)); }
