#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <type_traits>

#include "common/check.h"
#include "crf/crf.h"

namespace seqkit {
namespace {

constexpr int64_t kWorkPerThread = 100000;  // multiply-adds that are worth waking a thread for
constexpr int64_t kMostPaths = 1024;        // of the n best

void check_tensor(const char* where, const char* name, const Tensor& tensor, ScalarType dtype,
                  std::initializer_list<int64_t> shape, const Tensor& same_as) {
  check_device(where, name, tensor, same_as);
  check_dtype(where, name, tensor, dtype);
  check_shape(where, name, tensor, shape);
  check_contiguous(where, name, tensor);
}

// What both operators take.
struct Call {
  const char* where;
  const Tensor &emissions, &transitions, &start, &end, &lengths;

  int64_t batch() const { return emissions.size(0); }
  int64_t positions() const { return emissions.size(1); }
  int64_t tags() const { return emissions.size(2); }

  void check() const {
    const ScalarType dtype = emissions.scalar_type();
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, where,
                    ": emissions must have the dtype Float or Double, got ", torch::headeronly::toString(dtype));
    check_shape(where, "emissions", emissions, {kAny, kAny, kAny});
    check_contiguous(where, "emissions", emissions);
    STD_TORCH_CHECK(positions() > 0 && tags() > 0, where, ": emissions must have a position and a tag, got ",
                    shape_text(emissions));
    check_tensor(where, "transitions", transitions, dtype, {tags(), tags()}, emissions);
    check_tensor(where, "start", start, dtype, {tags()}, emissions);
    check_tensor(where, "end", end, dtype, {tags()}, emissions);
    check_lengths(where, "lengths", lengths, batch(), positions(), emissions);
    if (on_gpu(emissions)) {
      check_dtype(where, "emissions", emissions, ScalarType::Float);
      STD_TORCH_CHECK(positions() + 2 * tags() <= kMostCrfCuda, where, ": emissions must have at most ", kMostCrfCuda,
                      " positions and tags on CUDA, got ", shape_text(emissions));
      return;  // the kernels cut what is out of range
    }
    const int64_t* counts = data<int64_t>(lengths);
    for (int64_t sentence = 0; sentence < batch(); ++sentence) {
      STD_TORCH_CHECK(counts[sentence] > 0, where, ": lengths must be from 1 to ", positions(), ", got 0");
    }
  }

  template <typename Number>
  CrfInputs<Number> inputs() const {
    return {.emissions = data<Number>(emissions),
            .transitions = data<Number>(transitions),
            .start = data<Number>(start),
            .end = data<Number>(end),
            .lengths = data<int64_t>(lengths),
            .batch = batch(),
            .positions = positions(),
            .tags = tags()};
  }

  int64_t grain(int64_t factor) const {
    return std::max<int64_t>(1, kWorkPerThread / (positions() * tags() * tags() * factor + 1));
  }
};

using Likelihood = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

Likelihood log_likelihood(const Tensor& emissions, const Tensor& tags, const Tensor& transitions, const Tensor& start,
                          const Tensor& end, const Tensor& lengths, bool gradient) {
  const Call call{"crf_log_likelihood", emissions, transitions, start, end, lengths};
  call.check();
  const int64_t B = call.batch(), T = call.positions(), C = call.tags();
  check_tensor(call.where, "tags", tags, ScalarType::Long, {B, T}, emissions);
  const int64_t *observed = data<int64_t>(tags), *counts = data<int64_t>(lengths);
  for (int64_t sentence = 0; sentence < B && !on_gpu(emissions); ++sentence) {
    for (int64_t t = 0; t < counts[sentence]; ++t) {
      const int64_t tag = observed[sentence * T + t];
      STD_TORCH_CHECK(tag >= 0 && tag < C, call.where, ": tags must be from 0 to ", C - 1, ", got ", tag);
    }
  }
  const auto wanted = [&](std::initializer_list<int64_t> shape) {
    return gradient ? torch::stable::new_empty(emissions, shape) : torch::stable::new_empty(emissions, {0});
  };
  Tensor log_likelihoods = torch::stable::new_empty(emissions, {B});
  Tensor grad_emissions = wanted({B, T, C}), grad_transitions = wanted({B, C, C});
  Tensor grad_start = wanted({B, C}), grad_end = wanted({B, C});
  const auto run = [&]<typename Number>(Number) {
    const CrfInputs<Number> in = call.inputs<Number>();
    const CrfLikelihood<Number> out{.observed = observed,
                                    .log_likelihood = mutable_data<Number>(log_likelihoods),
                                    .grad_emissions = mutable_data<Number>(grad_emissions),
                                    .grad_transitions = mutable_data<Number>(grad_transitions),
                                    .grad_start = mutable_data<Number>(grad_start),
                                    .grad_end = mutable_data<Number>(grad_end)};
    if (on_gpu(emissions)) {
#ifdef SEQKIT_CUDA
      if constexpr (std::is_same_v<Number, float>) {
        Tensor alphas = torch::stable::new_empty(emissions, {B, T, C});
        run_on_gpu(call.where, emissions,
                   [&](void* stream) { return crf_likelihood_cuda(in, out, mutable_data<float>(alphas), stream); });
        return;
      }
#endif
      STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
    }
    torch::stable::parallel_for(0, B, call.grain(gradient ? 3 : 1),
                                [&](int64_t first, int64_t last) { crf_likelihood<Number>(in, out, first, last); });
  };
  emissions.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
  return {log_likelihoods, grad_emissions, grad_transitions, grad_start, grad_end};
}

std::tuple<Tensor, Tensor> decode(const Tensor& emissions, const Tensor& transitions, const Tensor& start,
                                  const Tensor& end, const Tensor& lengths, int64_t n_best) {
  const Call call{"crf_decode", emissions, transitions, start, end, lengths};
  call.check();
  STD_TORCH_CHECK(n_best > 0 && n_best <= kMostPaths, call.where, ": n_best must be from 1 to ", kMostPaths, ", got ",
                  n_best);
  const int64_t B = call.batch(), T = call.positions();
  Tensor tags = torch::stable::new_empty(emissions, {B, n_best, T}, ScalarType::Long);
  Tensor scores = torch::stable::new_empty(emissions, {B, n_best});
  const auto run = [&]<typename Number>(Number) {
    const CrfInputs<Number> in = call.inputs<Number>();
    const CrfDecode<Number> out{
        .n_best = n_best, .tags = mutable_data<int64_t>(tags), .scores = mutable_data<Number>(scores)};
    if (on_gpu(emissions)) {
#ifdef SEQKIT_CUDA
      if constexpr (std::is_same_v<Number, float>) {
        const int64_t places = (T * call.tags() + 1) * n_best;
        Tensor lists = torch::stable::new_empty(emissions, {B, places});
        Tensor sources = torch::stable::new_empty(emissions, {B, places}, ScalarType::Int);
        run_on_gpu(call.where, emissions, [&](void* stream) {
          return crf_decode_cuda(in, out, mutable_data<float>(lists), mutable_data<int>(sources), stream);
        });
        return;
      }
#endif
      STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
    }
    torch::stable::parallel_for(0, B, call.grain(n_best),
                                [&](int64_t first, int64_t last) { crf_decode<Number>(in, out, first, last); });
  };
  emissions.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
  return {tags, scores};
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "crf_log_likelihood(Tensor emissions, Tensor tags, Tensor transitions, Tensor start, Tensor end, Tensor lengths, "
      "bool gradient) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "crf_decode(Tensor emissions, Tensor transitions, Tensor start, Tensor end, Tensor lengths, int n_best) -> "
      "(Tensor, Tensor)");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("crf_log_likelihood", TORCH_BOX(&seqkit::log_likelihood));
  library.impl("crf_decode", TORCH_BOX(&seqkit::decode));
}

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("crf_log_likelihood", TORCH_BOX(&seqkit::log_likelihood));
  library.impl("crf_decode", TORCH_BOX(&seqkit::decode));
}
#endif
