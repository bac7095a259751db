#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>
#include <type_traits>

#include "additive_attention/additive_attention.h"
#include "common/check.h"

namespace seqkit {
namespace {

constexpr int64_t kWorkPerThread = 10000;  // tanh that are worth waking a thread for

// The arguments that forward and backward share.
struct Call {
  const char* where;
  const Tensor &query, &keys, &values, &v;
  const MaybeTensor& lengths;

  int64_t batch() const { return query.size(0); }
  int64_t targets() const { return query.size(1); }
  int64_t sources() const { return keys.size(1); }
  int64_t depth() const { return query.size(2); }
  int64_t width() const { return values.size(2); }
};

void check_dense(const Call& call, const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
  check_device(call.where, name, tensor, call.query);
  check_dtype(call.where, name, tensor, call.query.scalar_type());
  check_shape(call.where, name, tensor, shape);
  check_contiguous(call.where, name, tensor);
}

void check(const Call& call) {
  const ScalarType dtype = call.query.scalar_type();
  if (on_gpu(call.query)) {
    (void)element_of(call.where, "query", call.query);
  } else {
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, call.where,
                    ": query must have the dtype Float or Double, got ", torch::headeronly::toString(dtype));
  }
  check_dense(call, "query", call.query, {kAny, kAny, kAny});
  check_dense(call, "keys", call.keys, {call.batch(), kAny, call.depth()});
  check_dense(call, "values", call.values, {call.batch(), call.sources(), kAny});
  check_dense(call, "v", call.v, {call.depth()});
  if (call.lengths) check_lengths(call.where, "lengths", *call.lengths, call.batch(), call.sources(), call.query);
}

template <typename Number>
AdditiveInputs<Number> inputs(const Call& call) {
  return {
      .query = data<Number>(call.query),
      .keys = data<Number>(call.keys),
      .values = data<Number>(call.values),
      .v = data<Number>(call.v),
      .lengths = call.lengths ? data<int64_t>(*call.lengths) : nullptr,
      .batch = call.batch(),
      .targets = call.targets(),
      .sources = call.sources(),
      .depth = call.depth(),
      .width = call.width(),
  };
}

// Runs `part(begin, end)` over units of equal work, `work` in all.
template <typename Part>
void in_parallel(int64_t units, int64_t work, const Part& part) {
  const int64_t grain = std::max<int64_t>(1, kWorkPerThread / (work / std::max<int64_t>(units, 1) + 1));
  torch::stable::parallel_for(0, units, grain, part);
}

[[maybe_unused]] bool is_float(const Tensor& tensor) { return tensor.scalar_type() == ScalarType::Float; }

template <typename Number>
void run_forward(const Call& call, Tensor& context, Tensor& weights) {
  const AdditiveInputs<Number> in = inputs<Number>(call);
  const AdditiveOutputs<Number> out{.context = mutable_data<Number>(context), .weights = mutable_data<Number>(weights)};
  if constexpr (std::is_void_v<Number>) {
#ifdef SEQKIT_CUDA
    Tensor scores = is_float(weights)
                        ? weights
                        : torch::stable::new_empty(weights, {in.batch, in.targets, in.sources}, ScalarType::Float);
    run_on_gpu(call.where, call.query, [&](void* stream) {
      const Element element = element_of(call.where, "query", call.query);
      return additive_forward_cuda(in, out, mutable_data<float>(scores), element, stream);
    });
#else
    STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
#endif
  } else {
    if (context.numel() == 0 && weights.numel() == 0) return;  // of a huge batch of nothing too
    in_parallel(in.batch * blocks(in.targets, kRowBlock), in.batch * in.targets * in.sources * in.depth,
                [&](int64_t begin, int64_t end) { additive_forward<Number>(in, out, begin, end); });
  }
}

// The form of a function of a call: what its device and dtype ask for.
#define SEQKIT_PICK_RUN(run, query) \
  (on_gpu(query) ? run<void> : (query).scalar_type() == ScalarType::Float ? run<float> : run<double>)

std::tuple<Tensor, Tensor> forward(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& v,
                                   const MaybeTensor& lengths) {
  const Call call{"additive_attention", query, keys, values, v, lengths};
  check(call);
  Tensor context = torch::stable::new_empty(query, {call.batch(), call.targets(), call.width()});
  Tensor weights = torch::stable::new_empty(query, {call.batch(), call.targets(), call.sources()});
  SEQKIT_PICK_RUN(run_forward, query)(call, context, weights);
  return {context, weights};
}

// What the backward pass writes: the gradients in the order of the inputs.
struct Gradients {
  Tensor query, keys, values, v;
};

template <typename Number>
void run_backward(const Call& call, const Tensor& weights, const Tensor& grad_context, const MaybeTensor& grad_weights,
                  Gradients& to) {
  using Real = SumOf<Number>;
  const ScalarType real = std::is_same_v<Real, double> ? ScalarType::Double : ScalarType::Float;
  Tensor scores = torch::stable::new_empty(call.query, {call.batch(), call.targets(), call.sources()}, real);
  Tensor v_parts = torch::stable::new_empty(call.query, {call.batch(), call.depth()}, real);
  const AdditiveInputs<Number> in = inputs<Number>(call);
  const AdditiveGradients<Number> grads{
      .weights = data<Number>(weights),
      .grad_context = data<Number>(grad_context),
      .grad_weights = grad_weights ? data<Number>(*grad_weights) : nullptr,
      .grad_scores = mutable_data<Real>(scores),
      .grad_v_parts = mutable_data<Real>(v_parts),
      .grad_query = mutable_data<Number>(to.query),
      .grad_keys = mutable_data<Number>(to.keys),
      .grad_values = mutable_data<Number>(to.values),
      .grad_v = mutable_data<Number>(to.v),
  };
  if constexpr (std::is_void_v<Number>) {
#ifdef SEQKIT_CUDA
    Tensor sums = is_float(to.query) || in.sources <= kKeysAtOnce
                      ? to.query
                      : torch::stable::new_empty(to.query, {in.batch, in.targets, in.depth}, ScalarType::Float);
    run_on_gpu(call.where, call.query, [&](void* stream) {
      const Element element = element_of(call.where, "query", call.query);
      return additive_backward_cuda(in, grads, mutable_data<float>(sums), element, stream);
    });
#else
    STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
#endif
  } else {
    const int64_t pairs = in.batch * in.targets * in.sources;
    in_parallel(in.batch * blocks(in.targets, kRowBlock), pairs * in.width / 8,
                [&](int64_t begin, int64_t end) { additive_backward_scores<Number>(in, grads, begin, end); });
    in_parallel(in.batch * blocks(in.depth, kDepthSlice), pairs * in.depth,
                [&](int64_t begin, int64_t end) { additive_backward_energies<Number>(in, grads, begin, end); });
    in_parallel(in.batch * blocks(in.width, kWidthSlice), pairs * in.width / 8,
                [&](int64_t begin, int64_t end) { additive_backward_values<Number>(in, grads, begin, end); });
    additive_backward_v<Number>(in, grads);
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_context, const MaybeTensor& grad_weights,
                                                    const Tensor& query, const Tensor& keys, const Tensor& values,
                                                    const Tensor& v, const MaybeTensor& lengths,
                                                    const Tensor& weights) {
  const Call call{"additive_attention_backward", query, keys, values, v, lengths};
  check(call);
  check_dense(call, "grad_context", grad_context, {call.batch(), call.targets(), call.width()});
  check_dense(call, "weights", weights, {call.batch(), call.targets(), call.sources()});
  if (grad_weights) {
    check_dense(call, "grad_weights", *grad_weights, {call.batch(), call.targets(), call.sources()});
  }
  Gradients grads{
      .query = torch::stable::new_empty(query, {call.batch(), call.targets(), call.depth()}),
      .keys = torch::stable::new_empty(query, {call.batch(), call.sources(), call.depth()}),
      .values = torch::stable::new_empty(query, {call.batch(), call.sources(), call.width()}),
      .v = torch::stable::new_empty(query, {call.depth()}),
  };
  SEQKIT_PICK_RUN(run_backward, query)(call, weights, grad_context, grad_weights, grads);
  return {grads.query, grads.keys, grads.values, grads.v};
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "additive_attention(Tensor query, Tensor keys, Tensor values, Tensor v, Tensor? lengths) -> (Tensor, Tensor)");
  library.def(
      "additive_attention_backward(Tensor grad_context, Tensor? grad_weights, Tensor query, Tensor keys, "
      "Tensor values, Tensor v, Tensor? lengths, Tensor weights) -> (Tensor, Tensor, Tensor, Tensor)");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("additive_attention", TORCH_BOX(&seqkit::forward));
  library.impl("additive_attention_backward", TORCH_BOX(&seqkit::backward));
}

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("additive_attention", TORCH_BOX(&seqkit::forward));
  library.impl("additive_attention_backward", TORCH_BOX(&seqkit::backward));
}
#endif
