#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "common/check.h"
#include "word2vec_step/word2vec_step.h"

namespace seqkit {
namespace {

constexpr const char* kWhere = "word2vec_step";
constexpr int64_t kMostWindow = 1 << 10, kMostConcurrency = 1 << 24;

void check_rows(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape, const Tensor& same_as) {
  check_device(kWhere, name, tensor, same_as);
  check_dtype(kWhere, name, tensor, ScalarType::Float);
  check_shape(kWhere, name, tensor, shape);
  check_contiguous(kWhere, name, tensor);
}

const int32_t* ints(const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape,
                    const Tensor& same_as) {
  check_device(kWhere, name, tensor, same_as);
  check_dtype(kWhere, name, tensor, ScalarType::Int);
  check_shape(kWhere, name, tensor, shape);
  check_contiguous(kWhere, name, tensor);
  return data<int32_t>(tensor);
}

void check_values(const char* name, const int32_t* values, int64_t count, int64_t lowest, int64_t highest) {
  for (int64_t i = 0; i < count; ++i) {
    STD_TORCH_CHECK(values[i] >= lowest && values[i] <= highest, kWhere, ": ", name, " must be from ", lowest, " to ",
                    highest, ", got ", values[i]);
  }
}

bool apart(const Tensor& a, const Tensor& b) {
  const char *a_begin = static_cast<const char*>(a.const_data_ptr()),
             *b_begin = static_cast<const char*>(b.const_data_ptr());
  return a_begin + a.numel() * a.element_size() <= b_begin || b_begin + b.numel() * b.element_size() <= a_begin;
}

std::tuple<Tensor, Tensor> word2vec_step_op(Tensor inputs, Tensor outputs, const Tensor& ids, const Tensor& radii,
                                            const Tensor& negatives, int64_t begin, int64_t window, double rate,
                                            double negative_weight, bool cbow, int64_t concurrency) {
  check_rows("inputs", inputs, {kAny, kAny}, inputs);
  const int64_t V = inputs.size(0), D = inputs.size(1);
  STD_TORCH_CHECK(V > 0 && D > 0 && V < int64_t{1} << 31, kWhere, ": inputs must have a row and a number, got ",
                  shape_text(inputs));
  check_rows("outputs", outputs, {V, D}, inputs);
  const int32_t* words = ints("ids", ids, {kAny}, inputs);
  const int32_t* reaches = ints("radii", radii, {kAny}, inputs);
  const int64_t N = radii.size(0);
  const int32_t* drawn = ints("negatives", negatives, {N, kAny}, inputs);
  STD_TORCH_CHECK(begin >= 0 && begin <= ids.size(0) && N <= ids.size(0) - begin, kWhere, ": begin must be from 0 to ",
                  ids.size(0) - N, ", the positions but those of radii, got ", begin);
  STD_TORCH_CHECK(window > 0 && window <= kMostWindow, kWhere, ": window must be from 1 to ", kMostWindow, ", got ",
                  window);
  STD_TORCH_CHECK(std::isfinite(static_cast<float>(rate)) && std::isfinite(static_cast<float>(negative_weight)) &&
                      negative_weight >= 0,
                  kWhere, ": rate must be finite and negative_weight not negative, got ", rate, " and ",
                  negative_weight);
  STD_TORCH_CHECK(concurrency > 0 && concurrency <= kMostConcurrency, kWhere, ": concurrency must be from 1 to ",
                  kMostConcurrency, ", got ", concurrency);
  STD_TORCH_CHECK(apart(inputs, outputs), kWhere, ": inputs and outputs must share no memory, got a part of both");
  for (const Tensor* read : {&ids, &radii, &negatives}) {
    STD_TORCH_CHECK(apart(inputs, *read) && apart(outputs, *read), kWhere,
                    ": inputs and outputs must share no memory with what is read, got a part of it");
  }
  Tensor losses = torch::stable::new_empty(inputs, {N});
  Tensor pairs = torch::stable::new_empty(inputs, {N}, ScalarType::Int);
  const Word2VecStep call{
      .ids = words,
      .radii = reaches,
      .negatives = drawn,
      .size = ids.size(0),
      .begin = begin,
      .positions = N,
      .n_negatives = negatives.size(1),
      .window = window,
      .vocabulary = V,
      .width = D,
      .rate = static_cast<float>(rate),
      .negative_weight = static_cast<float>(negative_weight),
      .mean = cbow,
      .inputs = mutable_data<float>(inputs),
      .outputs = mutable_data<float>(outputs),
      .losses = mutable_data<float>(losses),
      .pairs = mutable_data<int32_t>(pairs),
  };
  if (on_gpu(inputs)) {
    STD_TORCH_CHECK(D <= kMostWord2VecWidthCuda && 2 * window * std::max<int64_t>(D, 64) <= kMostWord2VecWindowCuda,
                    kWhere, ": rows must have at most ", kMostWord2VecWidthCuda, " numbers, a window ",
                    kMostWord2VecWindowCuda, " on CUDA, got ", D, " and a window of ", window);
#ifdef SEQKIT_CUDA
    run_on_gpu(kWhere, inputs, [&](void* stream) { return word2vec_step_cuda(call, concurrency, stream); });
#else
    STD_TORCH_CHECK(false, kWhere, ": the CUDA kernel must be built, got a build without it");
#endif
  } else {
    check_values("ids", words, ids.size(0), INT32_MIN, V - 1);
    check_values("radii", reaches, N, 0, window);
    check_values("negatives", drawn, negatives.numel(), 0, V - 1);
    word2vec_step(call);
  }
  return {losses, pairs};
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "word2vec_step(Tensor(a!) inputs, Tensor(b!) outputs, Tensor ids, Tensor radii, Tensor negatives, SymInt begin, "
      "int window, float rate, float negative_weight, bool cbow, int concurrency) -> (Tensor, Tensor)");
}

SEQKIT_LIBRARY_IMPL(CPU, library) { library.impl("word2vec_step", TORCH_BOX(&seqkit::word2vec_step_op)); }

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) { library.impl("word2vec_step", TORCH_BOX(&seqkit::word2vec_step_op)); }
#endif
