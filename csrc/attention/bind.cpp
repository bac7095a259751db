#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>

#include "attention/attention.h"
#include "common/check.h"

namespace seqkit {
namespace {

constexpr int64_t kWorkPerThread = 100000;  // multiply-adds that are worth waking a thread for

// The arguments that forward and backward share.
struct Call {
  const char* where;
  const Tensor &q, &k, &v;
  const MaybeTensor &q_lengths, &k_lengths, &bias, &slopes, &seed;
  bool causal;
  int64_t window;
  double scale, dropout;
};

// What sums and statistics are kept in.
ScalarType real_of(ScalarType dtype) { return dtype == ScalarType::Double ? dtype : ScalarType::Float; }

void check_rows(const Call& call, const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape,
                std::optional<ScalarType> dtype = std::nullopt) {
  check_device(call.where, name, tensor, call.q);
  check_dtype(call.where, name, tensor, dtype.value_or(call.q.scalar_type()));
  check_shape(call.where, name, tensor, shape);
  const int64_t last = tensor.dim() - 1;
  STD_TORCH_CHECK(tensor.stride(last) == 1 || tensor.size(last) <= 1 || tensor.numel() == 0, call.where, ": ", name,
                  " must have stride 1 in its last axis, got ", tensor.stride(last));
}

void check_dense(const Call& call, const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape,
                 std::optional<ScalarType> dtype = std::nullopt) {
  check_rows(call, name, tensor, shape, dtype);
  check_contiguous(call.where, name, tensor);
}

AttentionShape checked_shape(const Call& call) {
  const ScalarType dtype = call.q.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
                      dtype == ScalarType::BFloat16,
                  call.where, ": q must have the dtype Float, Double, Half or BFloat16, got ",
                  torch::headeronly::toString(dtype));
  check_rows(call, "q", call.q, {kAny, kAny, kAny, kAny});
  const int64_t batch = call.q.size(0), heads = call.q.size(1), targets = call.q.size(2), width = call.q.size(3);
  check_rows(call, "k", call.k, {batch, kAny, kAny, width});
  const int64_t kv_heads = call.k.size(1), sources = call.k.size(2);
  check_rows(call, "v", call.v, {batch, kv_heads, sources, kAny});
  STD_TORCH_CHECK(kv_heads > 0 && heads > 0 && heads % kv_heads == 0, call.where,
                  ": the heads of q must be a multiple of those of k, got ", heads, " and ", kv_heads);
  STD_TORCH_CHECK(width > 0 && call.v.size(3) > 0, call.where, ": the head width must be positive, got ", width,
                  " and ", call.v.size(3));
  STD_TORCH_CHECK(!on_gpu(call.q) || (width <= kWidestCuda && call.v.size(3) <= kWidestCuda), call.where,
                  ": the head width must be at most ", kWidestCuda, " on CUDA, got ", width, " and ", call.v.size(3));
  STD_TORCH_CHECK(!on_gpu(call.q) || batch * heads * std::max(targets, sources) <= kMostRowsCuda, call.where,
                  ": batch times heads times positions must be at most ", kMostRowsCuda, " on CUDA, got ", batch, ", ",
                  heads, " and ", std::max(targets, sources));
  STD_TORCH_CHECK(call.window >= -1, call.where, ": window must be -1 or more, got ", call.window);
  STD_TORCH_CHECK(call.dropout >= 0 && call.dropout < 1, call.where, ": dropout must be from 0 to below 1, got ",
                  call.dropout);
  if (call.q_lengths) check_lengths(call.where, "q_lengths", *call.q_lengths, batch, targets, call.q);
  if (call.k_lengths) check_lengths(call.where, "k_lengths", *call.k_lengths, batch, sources, call.q);
  if (call.slopes) check_dense(call, "alibi_slopes", *call.slopes, {heads}, real_of(dtype));
  if (call.bias) {
    check_device(call.where, "bias", *call.bias, call.q);
    check_dtype(call.where, "bias", *call.bias, dtype);
    check_shape(call.where, "bias", *call.bias, {batch, heads, targets, sources});
    const int64_t step = call.bias->stride(3);
    STD_TORCH_CHECK(step == 0 || step == 1 || sources <= 1, call.where,
                    ": bias must have stride 0 or 1 in its last axis, got ", step);
  }
  uint64_t seed = 0;
  if (call.dropout > 0) {
    STD_TORCH_CHECK(call.seed, call.where, ": seed must be given with dropout, got none");
    check_cpu(call.where, "seed", *call.seed);
    check_dtype(call.where, "seed", *call.seed, ScalarType::Long);
    check_shape(call.where, "seed", *call.seed, {1});
    seed = static_cast<uint64_t>(*data<int64_t>(call.seed));
  }
  return {
      .batch = batch,
      .heads = heads,
      .kv_heads = kv_heads,
      .targets = targets,
      .sources = sources,
      .width = width,
      .value_width = call.v.size(3),
      .q_lengths = data<int64_t>(call.q_lengths),
      .k_lengths = data<int64_t>(call.k_lengths),
      .causal = call.causal,
      .window = std::min(call.window, targets + sources),  // all keys; what is added to it must not overflow
      .scale = call.scale,
      .drop_below = static_cast<uint32_t>(call.dropout * 0x1p32),
      .seed = seed,
  };
}

Strides strides(const Tensor& tensor) { return {tensor.stride(0), tensor.stride(1), tensor.stride(2)}; }

template <typename Number>
AttentionInputs<Number> inputs(const Call& call) {
  return {
      .q = static_cast<const Number*>(call.q.const_data_ptr()),
      .k = static_cast<const Number*>(call.k.const_data_ptr()),
      .v = static_cast<const Number*>(call.v.const_data_ptr()),
      .q_strides = strides(call.q),
      .k_strides = strides(call.k),
      .v_strides = strides(call.v),
      .bias = data<Number>(call.bias),
      .bias_strides = call.bias ? strides(*call.bias) : Strides{},
      .bias_key_stride = call.bias ? call.bias->stride(3) : 0,
      .slopes = data<RealOf<Number>>(call.slopes),
  };
}

int64_t grain(const AttentionShape& shape, int64_t units) {
  const int64_t work = shape.batch * shape.heads * shape.targets * shape.sources * (shape.width + shape.value_width);
  return std::max<int64_t>(1, kWorkPerThread / (work / std::max<int64_t>(units, 1) + 1));
}

template <typename Number>
void run_forward(const Call& call, const AttentionShape& shape, Tensor& out, Tensor& stats, Tensor* weights) {
  const auto in = inputs<Number>(call);
  const AttentionOutputs<Number> to{
      .out = mutable_data<Number>(out),
      .stats = mutable_data<RealOf<Number>>(stats),
      .weights = weights ? mutable_data<Number>(*weights) : nullptr,
  };
  if (on_gpu(call.q)) {
#ifdef SEQKIT_CUDA
    if constexpr (!std::is_same_v<Number, double>) {
      run_on_gpu(call.where, call.q, [&](void* stream) { return attention_forward_cuda(shape, in, to, stream); });
      return;
    }
#endif
    STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built for this dtype, got a build without it");
  }
  const int64_t units = shape.batch * shape.heads * row_blocks(shape);
  torch::stable::parallel_for(0, units, grain(shape, units), [&](int64_t begin, int64_t end) {
    attention_forward<Number>(shape, in, to, begin, end);
  });
}

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const MaybeTensor& q_lengths, const MaybeTensor& k_lengths,
                                           const MaybeTensor& bias, const MaybeTensor& slopes, const MaybeTensor& seed,
                                           bool causal, int64_t window, double scale, double dropout,
                                           bool return_weights) {
  const Call call{"attention", q, k, v, q_lengths, k_lengths, bias, slopes, seed, causal, window, scale, dropout};
  const AttentionShape shape = checked_shape(call);
  const ScalarType dtype = q.scalar_type();
  Tensor out = torch::stable::new_empty(q, {shape.batch, shape.targets, shape.heads, shape.value_width}, dtype);
  Tensor stats = torch::stable::new_empty(q, {shape.batch, shape.heads, shape.targets, 2}, real_of(dtype));
  Tensor weights = return_weights
                       ? torch::stable::new_empty(q, {shape.batch, shape.heads, shape.targets, shape.sources}, dtype)
                       : torch::stable::new_empty(q, {0}, dtype);
  Tensor* wanted = return_weights ? &weights : nullptr;
  const auto run = dtype == ScalarType::Float    ? run_forward<float>
                   : dtype == ScalarType::Double ? run_forward<double>
                   : dtype == ScalarType::Half   ? run_forward<Half>
                                                 : run_forward<Bfloat16>;
  run(call, shape, out, stats, wanted);
  return {out, stats, weights};
}

template <typename Number>
void run_backward(const Call& call, const AttentionShape& shape, const Tensor& out, const Tensor& stats,
                  const Tensor& grad_out, const MaybeTensor& weights, const MaybeTensor& grad_weights, Tensor& grad_q,
                  Tensor& grad_k, Tensor& grad_v, Tensor* grad_bias) {
  const auto in = inputs<Number>(call);
  const AttentionGradients<Number> grads{
      .out = static_cast<const Number*>(out.const_data_ptr()),
      .stats = static_cast<const RealOf<Number>*>(stats.const_data_ptr()),
      .weights = data<Number>(weights),
      .grad_out = static_cast<const Number*>(grad_out.const_data_ptr()),
      .grad_weights = data<Number>(grad_weights),
      .grad_q = mutable_data<Number>(grad_q),
      .grad_k = mutable_data<Number>(grad_k),
      .grad_v = mutable_data<Number>(grad_v),
      .grad_bias = grad_bias ? mutable_data<Number>(*grad_bias) : nullptr,
  };
  if (on_gpu(call.q)) {
#ifdef SEQKIT_CUDA
    if constexpr (!std::is_same_v<Number, double>) {
      Tensor delta = torch::stable::new_empty(call.q, {shape.batch, shape.heads, shape.targets}, ScalarType::Float);
      run_on_gpu(call.where, call.q, [&](void* stream) {
        return attention_backward_cuda(shape, in, grads, mutable_data<float>(delta), stream);
      });
      return;
    }
#endif
    STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built for this dtype, got a build without it");
  }
  const int64_t units = shape.targets + shape.sources == 0 ? 0 : shape.batch * shape.kv_heads;  // no work, no loop
  torch::stable::parallel_for(0, units, grain(shape, units), [&](int64_t begin, int64_t end) {
    attention_backward<Number>(shape, in, grads, begin, end);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const MaybeTensor& grad_weights,
                                                    const Tensor& q, const Tensor& k, const Tensor& v,
                                                    const Tensor& out, const Tensor& stats, const MaybeTensor& weights,
                                                    const MaybeTensor& q_lengths, const MaybeTensor& k_lengths,
                                                    const MaybeTensor& bias, const MaybeTensor& slopes,
                                                    const MaybeTensor& seed, bool causal, int64_t window, double scale,
                                                    double dropout, bool bias_gradient) {
  const Call call{
      "attention_backward", q, k, v, q_lengths, k_lengths, bias, slopes, seed, causal, window, scale, dropout};
  const AttentionShape shape = checked_shape(call);
  check_dense(call, "grad_out", grad_out, {shape.batch, shape.targets, shape.heads, shape.value_width});
  check_dense(call, "out", out, {shape.batch, shape.targets, shape.heads, shape.value_width});
  check_dense(call, "stats", stats, {shape.batch, shape.heads, shape.targets, 2}, real_of(q.scalar_type()));
  STD_TORCH_CHECK(!grad_weights || weights, call.where, ": weights must be given with grad_weights, got none");
  for (const auto& [name, given] : {std::pair{"weights", weights}, std::pair{"grad_weights", grad_weights}}) {
    if (given) check_dense(call, name, *given, {shape.batch, shape.heads, shape.targets, shape.sources});
  }
  const ScalarType dtype = q.scalar_type();
  const auto zeros = [&](std::initializer_list<int64_t> size) {
    Tensor tensor = torch::stable::new_empty(q, size, dtype);
    return torch::stable::zero_(tensor);
  };
  // The float64 kernel adds in place; the others write every element.
  const auto sums = [&](std::initializer_list<int64_t> size) {
    return dtype == ScalarType::Double ? zeros(size) : torch::stable::new_empty(q, size, dtype);
  };
  Tensor grad_q = sums({shape.batch, shape.targets, shape.heads, shape.width});
  Tensor grad_k = sums({shape.batch, shape.sources, shape.kv_heads, shape.width});
  Tensor grad_v = sums({shape.batch, shape.sources, shape.kv_heads, shape.value_width});
  Tensor grad_bias = bias_gradient ? zeros({shape.batch, shape.heads, shape.targets, shape.sources})
                                   : torch::stable::new_empty(q, {0}, dtype);
  const auto run = dtype == ScalarType::Float    ? run_backward<float>
                   : dtype == ScalarType::Double ? run_backward<double>
                   : dtype == ScalarType::Half   ? run_backward<Half>
                                                 : run_backward<Bfloat16>;
  run(call, shape, out, stats, grad_out, weights, grad_weights, grad_q, grad_k, grad_v,
      bias_gradient ? &grad_bias : nullptr);
  return {grad_q, grad_k, grad_v, grad_bias};
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "attention_forward(Tensor q, Tensor k, Tensor v, Tensor? q_lengths, Tensor? k_lengths, Tensor? bias, "
      "Tensor? alibi_slopes, Tensor? seed, bool causal, int window, float scale, float dropout, bool return_weights) "
      "-> (Tensor, Tensor, Tensor)");
  library.def(
      "attention_backward(Tensor grad_out, Tensor? grad_weights, Tensor q, Tensor k, Tensor v, Tensor out, "
      "Tensor stats, Tensor? weights, Tensor? q_lengths, Tensor? k_lengths, Tensor? bias, Tensor? alibi_slopes, "
      "Tensor? seed, bool causal, int window, float scale, float dropout, bool bias_gradient) "
      "-> (Tensor, Tensor, Tensor, Tensor)");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("attention_forward", TORCH_BOX(&seqkit::forward));
  library.impl("attention_backward", TORCH_BOX(&seqkit::backward));
}

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("attention_forward", TORCH_BOX(&seqkit::forward));
  library.impl("attention_backward", TORCH_BOX(&seqkit::backward));
}
#endif
