#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "beam_step/beam_step.h"
#include "common/check.h"

namespace seqkit {
namespace {

constexpr const char* kWhere = "beam_step";
constexpr const char* kMean = "mean_log_softmax";

constexpr int64_t kMostBeamsOnCpu = 1 << 16;  // no search has them; what is larger is a mistake

// A tensor's data, checked: dense numbers of one kind, on the device of another tensor.
const void* data(const char* name, const Tensor& tensor, ScalarType dtype, std::initializer_list<int64_t> shape,
                 const Tensor& same_as) {
  check_device(kWhere, name, tensor, same_as);
  check_dtype(kWhere, name, tensor, dtype);
  check_shape(kWhere, name, tensor, shape);
  check_contiguous(kWhere, name, tensor);
  return tensor.const_data_ptr();
}

const float* floats(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape,
                    const Tensor& same_as) {
  return static_cast<const float*>(data(name, tensor, ScalarType::Float, shape, same_as));
}

const int64_t* ints(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape,
                    const Tensor& same_as) {
  return static_cast<const int64_t*>(data(name, tensor, ScalarType::Long, shape, same_as));
}

// Logits are float32 on the CPU; a GPU takes 16-bit numbers too.
void check_logits(const char* where, const Tensor& logits, std::initializer_list<int64_t> shape,
                  const Tensor& same_as) {
  check_device(where, "logits", logits, same_as);
  check_shape(where, "logits", logits, shape);
  check_contiguous(where, "logits", logits);
  if (!on_gpu(logits)) {
    check_dtype(where, "logits", logits, ScalarType::Float);
  } else {
    (void)element_of(where, "logits", logits);
    check_dtype(where, "logits", logits, same_as.scalar_type());
  }
}

void check_below(const char* where, const char* name, int64_t value, int64_t most) {
  STD_TORCH_CHECK(value <= most, where, ": ", name, " must be at most ", most, ", got ", value);
}

// Rows of logits that the grids of cuda.cu can count.
void check_grid(const char* where, int64_t rows, int64_t vocabulary) {
  check_below(where, "the number of rows of logits on CUDA", rows, std::numeric_limits<int32_t>::max());
  check_below(where, "the vocabulary on CUDA", vocabulary, kMostTokensOnCuda);
}

int64_t tiles_of(int64_t vocabulary) { return (vocabulary + kBeamTile - 1) / kBeamTile; }

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
  check_logits(kWhere, logits, {kAny, kAny, kAny}, logits);
  const int64_t B = logits.size(0), K = logits.size(1), V = logits.size(2);
  const bool cuda = on_gpu(logits);
  check_device(kWhere, "finished_scores", finished_scores, logits);
  check_shape(kWhere, "finished_scores", finished_scores, {B, kAny});
  if (banned) check_shape(kWhere, "banned", *banned, {kAny, kAny, kAny});
  if (penalised) check_shape(kWhere, "penalised", *penalised, {kAny, kAny});
  STD_TORCH_CHECK(beam_size >= 1, kWhere, ": beam_size must be at least 1, got ", beam_size);
  check_below(kWhere, "beam_size", beam_size, kMostBeamsOnCpu);
  if (cuda) {
    check_below(kWhere, "beam_size on CUDA", beam_size, kMostBeamsOnCuda);
    check_below(kWhere, "the number of beams on CUDA", K, kMostBeamsOnCuda);
    check_grid(kWhere, B * K, V);
  }
  STD_TORCH_CHECK(eos >= 0 && eos < V, kWhere, ": eos must be a token below ", V, ", got ", eos);
  STD_TORCH_CHECK(length_penalty >= 0 && length_penalty <= 2, kWhere, ": length_penalty must be 0 to 2, got ",
                  length_penalty);
  STD_TORCH_CHECK(penalty >= 0 && penalty <= std::numeric_limits<float>::max(), kWhere,
                  ": penalty must be finite and at least 0, got ", penalty);
  STD_TORCH_CHECK(alpha >= 0 && alpha <= std::numeric_limits<double>::max(), kWhere,
                  ": alpha must be finite and at least 0, got ", alpha);
  const float* sums = floats("logp", logp, {B, K}, logits);
  for (int64_t row = 0; row < B * K && !cuda; ++row) {  // reading a GPU's would wait for it
    STD_TORCH_CHECK(sums[row] < std::numeric_limits<float>::infinity(), kWhere,
                    ": logp must be below infinity and not NaN, got ", sums[row]);
  }
  const int64_t F = finished_scores.size(1), C = 2 * beam_size;
  const float* pool = floats("finished_scores", finished_scores, {B, F}, logits);
  for (int64_t place = 1; place < B * F && !cuda; ++place) {
    STD_TORCH_CHECK(place % F == 0 || pool[place - 1] >= pool[place], kWhere,
                    ": finished_scores must be sorted, best first, got ", pool[place - 1], " before ", pool[place]);
  }

  const auto new_floats = [&](int64_t rows, int64_t width) {
    return torch::stable::new_empty(logits, {rows, width}, ScalarType::Float);
  };
  const auto new_ints = [&](int64_t rows, int64_t width) {
    return torch::stable::new_empty(logits, {rows, width}, ScalarType::Long);
  };
  Tensor live_logp = new_floats(B, beam_size), live_scores = new_floats(B, beam_size);
  Tensor live_parents = new_ints(B, beam_size), live_tokens = new_ints(B, beam_size);
  Tensor live_step_logp = new_floats(B, beam_size);
  Tensor new_lengths = torch::stable::new_empty(logits, {B}, ScalarType::Long);
  Tensor out_scores = new_floats(B, F), out_logp = new_floats(B, F), out_eos_logp = new_floats(B, F);
  Tensor out_lengths = new_ints(B, F), out_beams = new_ints(B, F);
  Tensor out_count = torch::stable::new_empty(logits, {B}, ScalarType::Long);
  Tensor candidate_logp = new_floats(B, C), candidate_scores = new_floats(B, C);
  Tensor candidate_parents = new_ints(B, C), candidate_tokens = new_ints(B, C);
  // Scratch: the lists on the CPU, the tiles on a GPU.
  Tensor row_floats = new_floats(cuda ? 0 : 2 * B * K, C), row_ints = new_ints(cuda ? 0 : B * K, C + 1);
  Tensor tiles = new_floats(cuda ? B * K : 0, 2 * tiles_of(V));

  const BeamStepCall call{
      .sentences = B,
      .beams = K,
      .vocabulary = V,
      .pool = F,
      .beam_size = beam_size,
      .eos = eos,
      .min_length = min_length,
      .first_beam = first_beam,
      .n_banned = banned ? banned->size(2) : 0,
      .n_penalised = penalised ? penalised->size(1) : 0,
      .length_penalty = length_penalty,
      .alpha = alpha,
      .penalty = static_cast<float>(penalty),
      .count_eos = count_eos,
      .logits = logits.const_data_ptr(),
      .logp = sums,
      .lengths = ints("lengths", lengths, {B}, logits),
      .old_scores = pool,
      .old_logp = floats("finished_logp", finished_logp, {B, F}, logits),
      .old_eos_logp = floats("finished_eos_logp", finished_eos_logp, {B, F}, logits),
      .old_lengths = ints("finished_lengths", finished_lengths, {B, F}, logits),
      .old_beams = ints("finished_beams", finished_beams, {B, F}, logits),
      .old_count = ints("n_finished", n_finished, {B}, logits),
      .offset = offset ? floats("offset", *offset, {B, K}, logits) : nullptr,
      .forced = forced ? ints("forced", *forced, {B}, logits) : nullptr,
      .banned = banned ? ints("banned", *banned, {B, K, kAny}, logits) : nullptr,
      .penalised = penalised ? ints("penalised", *penalised, {B, kAny}, logits) : nullptr,
      .row_ranking = float_data(row_floats),
      .row_step_logp = float_data(row_floats) + row_floats.numel() / 2,
      .row_token = int_data(row_ints),
      .row_count = int_data(row_ints) + row_ints.numel() / (C + 1) * C,
      .tiles = float_data(tiles),
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
  if (cuda) {
#ifdef SEQKIT_CUDA
    run_on_gpu(kWhere, logits,
               [&](void* stream) { return beam_step_cuda(call, element_of(kWhere, "logits", logits), stream); });
#else
    STD_TORCH_CHECK(false, kWhere, ": the CUDA kernel must be built, got a build without it");
#endif
  } else {
    // A thread is worth waking for some 30,000 logits.
    torch::stable::parallel_for(0, B * K, 30000 / V + 1,
                                [&](int64_t begin, int64_t end) { beam_step_rows(call, begin, end); });
    torch::stable::parallel_for(0, B, 64, [&](int64_t begin, int64_t end) { beam_step_sentences(call, begin, end); });
  }
  return {live_logp,      live_scores,      live_parents,      live_tokens,     live_step_logp, new_lengths,
          out_scores,     out_logp,         out_eos_logp,      out_lengths,     out_beams,      out_count,
          candidate_logp, candidate_scores, candidate_parents, candidate_tokens};
}

// On a GPU; `out` is [rows, V].
void mean_on_gpu([[maybe_unused]] const std::vector<Tensor>& logits, [[maybe_unused]] Tensor& out) {
#ifdef SEQKIT_CUDA
  const int64_t models = int64_t(logits.size()), rows = out.size(0), V = out.size(1);
  check_below(kMean, "the number of models on CUDA", models, kMostModelsOnCuda);
  check_grid(kMean, rows, V);
  Tensor tiles = torch::stable::new_empty(out, {models, rows, 2 * tiles_of(V)});
  MeanLogSoftmax call{
      .logits = {},
      .models = models,
      .rows = rows,
      .vocabulary = V,
      .tiles = float_data(tiles),
      .out = float_data(out),
  };
  for (int64_t model = 0; model < models; ++model) call.logits[model] = logits[model].const_data_ptr();
  run_on_gpu(kMean, out,
             [&](void* stream) { return mean_log_softmax_cuda(call, element_of(kMean, "logits", logits[0]), stream); });
#else
  STD_TORCH_CHECK(false, kMean, ": the CUDA kernel must be built, got a build without it");
#endif
}

Tensor mean_log_softmax(std::vector<Tensor> logits) {
  STD_TORCH_CHECK(!logits.empty(), kMean, ": logits must be of one model at least, got none");
  check_logits(kMean, logits[0], {kAny, kAny}, logits[0]);
  const int64_t rows = logits[0].size(0), V = logits[0].size(1);
  std::vector<const float*> data;
  for (const Tensor& model : logits) {
    check_logits(kMean, model, {rows, V}, logits[0]);
    data.push_back(static_cast<const float*>(model.const_data_ptr()));
  }
  Tensor out = torch::stable::new_empty(logits[0], {rows, V}, ScalarType::Float);
  if (out.numel() == 0) return out;
  if (on_gpu(out)) {
    mean_on_gpu(logits, out);
    return out;
  }
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

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("beam_step", TORCH_BOX(&seqkit::beam_step));
  library.impl("mean_log_softmax", TORCH_BOX(&seqkit::mean_log_softmax));
}
#endif
