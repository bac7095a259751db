#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "beam_step/beam_step.h"
#include "common/check.h"

namespace seqkit {
namespace {

constexpr const char* kWhere = "beam_step";

void check(const char* name, const Tensor& tensor, ScalarType dtype, std::initializer_list<int64_t> shape) {
  check_cpu(kWhere, name, tensor);
  check_dtype(kWhere, name, tensor, dtype);
  check_shape(kWhere, name, tensor, shape);
  check_contiguous(kWhere, name, tensor);
}

const float* floats(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
  check(name, tensor, ScalarType::Float, shape);
  return static_cast<const float*>(tensor.const_data_ptr());
}

const int64_t* ints(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
  check(name, tensor, ScalarType::Long, shape);
  return static_cast<const int64_t*>(tensor.const_data_ptr());
}

float* float_data(Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }
int64_t* int_data(Tensor& tensor) { return static_cast<int64_t*>(tensor.mutable_data_ptr()); }

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor,
                           Tensor, Tensor, Tensor, Tensor, Tensor>;

Outputs beam_step(const Tensor& logits, const Tensor& logp, const Tensor& lengths, const Tensor& finished_scores,
                  const Tensor& finished_logp, const Tensor& finished_eos_logp, const Tensor& finished_lengths,
                  const Tensor& finished_beams, const Tensor& n_finished, const std::optional<Tensor>& offset,
                  const std::optional<Tensor>& forced, const std::optional<Tensor>& banned,
                  const std::optional<Tensor>& penalised, double penalty, int64_t beam_size, int64_t eos,
                  int64_t min_length, int64_t length_penalty, double alpha, bool count_eos, int64_t first_beam) {
  floats("logits", logits, {kAny, kAny, kAny});
  const int64_t B = logits.size(0), K = logits.size(1), V = logits.size(2);
  check_shape(kWhere, "finished_scores", finished_scores, {B, kAny});
  const int64_t F = finished_scores.size(1), C = 2 * beam_size;
  STD_TORCH_CHECK(beam_size >= 1, kWhere, ": beam_size must be at least 1, got ", beam_size);
  STD_TORCH_CHECK(eos >= 0 && eos < V, kWhere, ": eos must be a token below ", V, ", got ", eos);
  STD_TORCH_CHECK(length_penalty >= 0 && length_penalty <= 2, kWhere, ": length_penalty must be 0 to 2, got ",
                  length_penalty);

  const auto new_floats = [](int64_t rows, int64_t width) {
    return torch::stable::empty({rows, width}, ScalarType::Float);
  };
  const auto new_ints = [](int64_t rows, int64_t width) {
    return torch::stable::empty({rows, width}, ScalarType::Long);
  };
  Tensor live_logp = new_floats(B, beam_size), live_scores = new_floats(B, beam_size);
  Tensor live_parents = new_ints(B, beam_size), live_tokens = new_ints(B, beam_size);
  Tensor live_step_logp = new_floats(B, beam_size);
  Tensor new_lengths = torch::stable::empty({B}, ScalarType::Long);
  Tensor out_scores = new_floats(B, F), out_logp = new_floats(B, F), out_eos_logp = new_floats(B, F);
  Tensor out_lengths = new_ints(B, F), out_beams = new_ints(B, F);
  Tensor out_count = torch::stable::empty({B}, ScalarType::Long);
  Tensor candidate_logp = new_floats(B, C), candidate_scores = new_floats(B, C);
  Tensor candidate_parents = new_ints(B, C), candidate_tokens = new_ints(B, C);
  std::vector<float> float_scratch(2 * B * K * C);
  std::vector<int64_t> int_scratch(B * K * (C + 1));

  const BeamStepCall call{
      .sentences = B,
      .beams = K,
      .vocabulary = V,
      .pool = F,
      .beam_size = beam_size,
      .eos = eos,
      .min_length = min_length,
      .first_beam = first_beam,
      .n_banned = banned ? banned->size(-1) : 0,
      .n_penalised = penalised ? penalised->size(-1) : 0,
      .length_penalty = length_penalty,
      .alpha = alpha,
      .penalty = static_cast<float>(penalty),
      .count_eos = count_eos,
      .logits = floats("logits", logits, {B, K, V}),
      .logp = floats("logp", logp, {B, K}),
      .lengths = ints("lengths", lengths, {B}),
      .old_scores = floats("finished_scores", finished_scores, {B, F}),
      .old_logp = floats("finished_logp", finished_logp, {B, F}),
      .old_eos_logp = floats("finished_eos_logp", finished_eos_logp, {B, F}),
      .old_lengths = ints("finished_lengths", finished_lengths, {B, F}),
      .old_beams = ints("finished_beams", finished_beams, {B, F}),
      .old_count = ints("n_finished", n_finished, {B}),
      .offset = offset ? floats("offset", *offset, {B, K}) : nullptr,
      .forced = forced ? ints("forced", *forced, {B}) : nullptr,
      .banned = banned ? ints("banned", *banned, {B, K, kAny}) : nullptr,
      .penalised = penalised ? ints("penalised", *penalised, {B, kAny}) : nullptr,
      .row_ranking = float_scratch.data(),
      .row_step_logp = float_scratch.data() + B * K * C,
      .row_token = int_scratch.data(),
      .row_count = int_scratch.data() + B * K * C,
      .live_logp = float_data(live_logp),
      .live_scores = float_data(live_scores),
      .live_parents = int_data(live_parents),
      .live_tokens = int_data(live_tokens),
      .live_step_logp = float_data(live_step_logp),
      .new_lengths = int_data(new_lengths),
      .finished_scores = float_data(out_scores),
      .finished_logp = float_data(out_logp),
      .finished_eos_logp = float_data(out_eos_logp),
      .finished_lengths = int_data(out_lengths),
      .finished_beams = int_data(out_beams),
      .n_finished = int_data(out_count),
      .candidate_logp = float_data(candidate_logp),
      .candidate_scores = float_data(candidate_scores),
      .candidate_parents = int_data(candidate_parents),
      .candidate_tokens = int_data(candidate_tokens),
  };
  // A thread is worth waking for some 30,000 logits.
  torch::stable::parallel_for(0, B * K, 30000 / V + 1,
                              [&](int64_t begin, int64_t end) { beam_step_rows(call, begin, end); });
  torch::stable::parallel_for(0, B, 64, [&](int64_t begin, int64_t end) { beam_step_sentences(call, begin, end); });
  return {live_logp,      live_scores,      live_parents,      live_tokens,     live_step_logp, new_lengths,
          out_scores,     out_logp,         out_eos_logp,      out_lengths,     out_beams,      out_count,
          candidate_logp, candidate_scores, candidate_parents, candidate_tokens};
}

Tensor mean_log_softmax(std::vector<Tensor> logits) {
  constexpr const char* kMean = "mean_log_softmax";
  STD_TORCH_CHECK(!logits.empty(), kMean, ": logits must be of one model at least, got none");
  const int64_t rows = logits[0].size(0), V = logits[0].size(-1);
  std::vector<const float*> data;
  for (const Tensor& model : logits) {
    check_cpu(kMean, "logits", model);
    check_dtype(kMean, "logits", model, ScalarType::Float);
    check_shape(kMean, "logits", model, {rows, V});
    check_contiguous(kMean, "logits", model);
    data.push_back(static_cast<const float*>(model.const_data_ptr()));
  }
  Tensor out = torch::stable::empty({rows, V}, ScalarType::Float);
  float* to = float_data(out);
  torch::stable::parallel_for(0, rows, 30000 / (V + 1) + 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scratch(V / kBeamBlock + 1);
    std::vector<const float*> row(data.size());
    for (int64_t r = begin; r < end; ++r) {
      for (size_t model = 0; model < data.size(); ++model) row[model] = data[model] + r * V;
      mean_log_softmax_row(row.data(), int64_t(row.size()), V, to + r * V, scratch.data());
    }
  });
  return out;
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "beam_step(Tensor logits, Tensor logp, Tensor lengths, Tensor finished_scores, Tensor finished_logp, "
      "Tensor finished_eos_logp, Tensor finished_lengths, Tensor finished_beams, Tensor n_finished, Tensor? offset, "
      "Tensor? forced, Tensor? banned, Tensor? penalised, float penalty, int beam_size, int eos, int min_length, "
      "int length_penalty, float alpha, bool count_eos, int first_beam) -> (Tensor, Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def("mean_log_softmax(Tensor[] logits) -> Tensor");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("beam_step", TORCH_BOX(&seqkit::beam_step));
  library.impl("mean_log_softmax", TORCH_BOX(&seqkit::mean_log_softmax));
}
