#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <tuple>

#include "common/check.h"
#include "decode_attention/decode_attention.h"

namespace seqkit {
namespace {

constexpr int64_t kWorkPerThread = 100000;  // multiply-adds that are worth waking a thread for

// Queries, keys or values: the numbers of q on its device, dense within a head.
void check_heads(const char* where, const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape,
                 const Tensor& q) {
  check_device(where, name, tensor, q);
  check_dtype(where, name, tensor, q.scalar_type());
  check_shape(where, name, tensor, shape);
  const int64_t last = tensor.dim() - 1;
  STD_TORCH_CHECK(tensor.stride(last) == 1 || tensor.size(last) <= 1 || tensor.numel() == 0, where, ": ", name,
                  " must have stride 1 in its last axis, got ", tensor.stride(last));
}

// Numbers of hypotheses or positions, contiguous, on the device of another tensor.
void check_table(const char* where, const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape,
                 const Tensor& same_as) {
  check_device(where, name, tensor, same_as);
  check_dtype(where, name, tensor, ScalarType::Long);
  check_shape(where, name, tensor, shape);
  check_contiguous(where, name, tensor);
}

// Whether two contiguous tables share no memory.
bool apart(const Tensor& a, const Tensor& b) {
  const auto* from_a = static_cast<const int64_t*>(a.const_data_ptr());
  const auto* from_b = static_cast<const int64_t*>(b.const_data_ptr());
  return from_a + a.numel() <= from_b || from_b + b.numel() <= from_a;
}

// `rows` rows of `count` of the `row_size` numbers, each from 0 to below `limit`.
void check_values(const char* where, const char* name, const int64_t* values, int64_t rows, int64_t row_size,
                  int64_t count, int64_t limit) {
  for (int64_t row = 0; row < rows; ++row) {
    uint64_t largest = 0;  // a negative number is huge
    for (int64_t i = 0; i < count; ++i) {
      largest = std::max(largest, static_cast<uint64_t>(values[row * row_size + i]));
    }
    STD_TORCH_CHECK(count == 0 || largest < static_cast<uint64_t>(limit), where, ": ", name, " must be from 0 to ",
                    limit - 1, ", got ", static_cast<int64_t>(largest));
  }
}

// The step, checked, on the CPU; a GPU's tensor is left for the kernel to read and to clamp.
int64_t checked_step(const char* where, const MaybeTensor& step_at, int64_t step, int64_t lowest, int64_t capacity,
                     const Tensor& same_as) {
  if (step_at) {
    check_table(where, "step", *step_at, {1}, same_as);
    if (on_gpu(same_as)) return 0;
    step = *data<int64_t>(step_at);
  }
  STD_TORCH_CHECK(step >= lowest && step < capacity, where, ": step must be from ", lowest, " to ", capacity - 1,
                  ", got ", step);
  return step;
}

void check_number(const char* where, const Tensor& q) {
  if (on_gpu(q)) {
    (void)element_of(where, "q", q);
  } else {
    check_dtype(where, "q", q, ScalarType::Float);
  }
}

void run(const char* where, const DecodeAttention& call, const Tensor& q, int64_t longest) {
  const int64_t units = call.batch * call.heads;
  if (units * call.beams == 0) return;
  if (on_gpu(q)) {
#ifdef SEQKIT_CUDA
    STD_TORCH_CHECK(call.width <= 256, where, ": the head width must be at most 256 on a GPU, got ", call.width);
    const Tensor scratch = torch::stable::new_empty(q, {decode_attention_scratch(call)}, ScalarType::Float);
    DecodeAttention with_scratch = call;
    with_scratch.scratch = static_cast<float*>(scratch.mutable_data_ptr());
    run_on_gpu(where, q,
               [&](void* stream) { return decode_attention_cuda(with_scratch, element_of(where, "q", q), stream); });
#else
    STD_TORCH_CHECK(false, where, ": the CUDA kernel must be built, got a build without it");
#endif
    return;
  }
  const int64_t grain = std::max<int64_t>(1, kWorkPerThread / (2 * call.beams * longest * call.width + 1));
  torch::stable::parallel_for(0, units, grain,
                              [&](int64_t begin, int64_t end) { decode_attention_run(call, begin, end); });
}

Tensor decode_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& ancestry,
                        const MaybeTensor& step_at, int64_t step, double scale) {
  constexpr const char* kWhere = "decode_attention";
  check_number(kWhere, q);
  check_heads(kWhere, "q", q, {kAny, kAny, kAny, kAny}, q);
  const int64_t batch = q.size(0), beams = q.size(1), heads = q.size(2), width = q.size(3);
  check_heads(kWhere, "k_cache", k, {batch, kAny, kAny, heads, width}, q);
  const int64_t cache_beams = k.size(1), capacity = k.size(2);
  check_heads(kWhere, "v_cache", v, {batch, cache_beams, capacity, heads, width}, q);
  check_table(kWhere, "ancestry", ancestry, {batch, beams, capacity}, q);
  STD_TORCH_CHECK(cache_beams > 0 && width > 0, kWhere, ": k_cache must have a beam and a head width, got ",
                  shape_text(k));
  const int64_t at = checked_step(kWhere, step_at, step, 0, capacity, q);
  const int64_t* written = static_cast<const int64_t*>(ancestry.const_data_ptr());
  if (!on_gpu(q)) check_values(kWhere, "ancestry", written, batch * beams, capacity, at + 1, cache_beams);
  Tensor out = torch::stable::new_empty(q, {batch, beams, heads, width});
  const DecodeAttention call{
      .q = q.const_data_ptr(),
      .k = k.const_data_ptr(),
      .v = v.const_data_ptr(),
      .q_strides = {q.stride(0), q.stride(1), 0, q.stride(2)},
      .k_strides = {k.stride(0), k.stride(1), k.stride(2), k.stride(3)},
      .v_strides = {v.stride(0), v.stride(1), v.stride(2), v.stride(3)},
      .ancestry = written,
      .lengths = nullptr,
      .step_at = data<int64_t>(step_at),
      .step = step,
      .out = out.mutable_data_ptr(),
      .weights = nullptr,
      .batch = batch,
      .beams = beams,
      .heads = heads,
      .width = width,
      .cache_beams = cache_beams,
      .capacity = capacity,
      .scale = scale,
      .scratch = nullptr,
  };
  run(kWhere, call, q, at + 1);
  return out;
}

std::tuple<Tensor, Tensor> cross_attention_decode(const Tensor& q, const Tensor& k, const Tensor& v,
                                                  const Tensor& lengths, double scale, bool return_weights) {
  constexpr const char* kWhere = "cross_attention_decode";
  check_number(kWhere, q);
  check_heads(kWhere, "q", q, {kAny, kAny, kAny, kAny}, q);
  const int64_t batch = q.size(0), beams = q.size(1), heads = q.size(2), width = q.size(3);
  check_heads(kWhere, "k", k, {batch, heads, kAny, width}, q);
  const int64_t sources = k.size(2);
  check_heads(kWhere, "v", v, {batch, heads, sources, width}, q);
  STD_TORCH_CHECK(width > 0, kWhere, ": the head width must be positive, got ", width);
  check_lengths(kWhere, "lengths", lengths, batch, sources, q);
  Tensor out = torch::stable::new_empty(q, {batch, beams, heads, width});
  Tensor weights =
      return_weights ? torch::stable::new_empty(q, {batch, beams, heads, sources}) : torch::stable::new_empty(q, {0});
  const DecodeAttention call{
      .q = q.const_data_ptr(),
      .k = k.const_data_ptr(),
      .v = v.const_data_ptr(),
      .q_strides = {q.stride(0), q.stride(1), 0, q.stride(2)},
      .k_strides = {k.stride(0), 0, k.stride(2), k.stride(1)},
      .v_strides = {v.stride(0), 0, v.stride(2), v.stride(1)},
      .ancestry = nullptr,
      .lengths = static_cast<const int64_t*>(lengths.const_data_ptr()),
      .step_at = nullptr,
      .step = 0,
      .out = out.mutable_data_ptr(),
      .weights = weights.numel() ? weights.mutable_data_ptr() : nullptr,
      .batch = batch,
      .beams = beams,
      .heads = heads,
      .width = width,
      .cache_beams = 1,
      .capacity = sources,
      .scale = scale,
      .scratch = nullptr,
  };
  run(kWhere, call, q, sources);
  return {out, weights};
}

void extend_ancestry(const Tensor& ancestry, const Tensor& parents, const MaybeTensor& step_at, int64_t step,
                     Tensor out) {
  constexpr const char* kWhere = "extend_ancestry";
  check_table(kWhere, "ancestry", ancestry, {kAny, kAny, kAny}, ancestry);
  const int64_t batch = ancestry.size(0), beams = ancestry.size(1), capacity = ancestry.size(2);
  check_table(kWhere, "parents", parents, {batch, kAny}, ancestry);
  const int64_t new_beams = parents.size(1);
  check_table(kWhere, "out", out, {batch, new_beams, capacity}, ancestry);
  (void)checked_step(kWhere, step_at, step, -1, capacity, ancestry);
  if (out.numel() == 0) return;
  STD_TORCH_CHECK(beams > 0, kWhere, ": ancestry must hold a hypothesis, got ", shape_text(ancestry));
  STD_TORCH_CHECK((new_beams == beams && out.const_data_ptr() == ancestry.const_data_ptr()) || apart(out, ancestry),
                  kWhere, ": out must be ancestry itself or share no memory with it, got a part of it");
  STD_TORCH_CHECK(apart(out, parents) && (!step_at || apart(out, *step_at)), kWhere,
                  ": out must share no memory with parents and step, got a part of them");
  const int64_t* chosen = static_cast<const int64_t*>(parents.const_data_ptr());
  if (!on_gpu(ancestry)) check_values(kWhere, "parents", chosen, 1, 0, batch * new_beams, beams);
  const ExtendAncestry call{
      .from = static_cast<const int64_t*>(ancestry.const_data_ptr()),
      .parents = chosen,
      .step_at = data<int64_t>(step_at),
      .step = step,
      .to = static_cast<int64_t*>(out.mutable_data_ptr()),
      .batch = batch,
      .beams = beams,
      .new_beams = new_beams,
      .capacity = capacity,
  };
  if (on_gpu(ancestry)) {
#ifdef SEQKIT_CUDA
    run_on_gpu(kWhere, ancestry, [&](void* stream) { return extend_ancestry_cuda(call, stream); });
#else
    STD_TORCH_CHECK(false, kWhere, ": the CUDA kernel must be built, got a build without it");
#endif
    return;
  }
  extend_ancestry_run(call);
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "decode_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor ancestry, Tensor? step_at, SymInt step, "
      "float scale) -> Tensor");
  library.def(
      "cross_attention_decode(Tensor q, Tensor k, Tensor v, Tensor lengths, float scale, bool return_weights) -> "
      "(Tensor, Tensor)");
  library.def("extend_ancestry(Tensor ancestry, Tensor parents, Tensor? step_at, SymInt step, Tensor(a!) out) -> ()");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("decode_attention", TORCH_BOX(&seqkit::decode_attention));
  library.impl("cross_attention_decode", TORCH_BOX(&seqkit::cross_attention_decode));
  library.impl("extend_ancestry", TORCH_BOX(&seqkit::extend_ancestry));
}

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("decode_attention", TORCH_BOX(&seqkit::decode_attention));
  library.impl("cross_attention_decode", TORCH_BOX(&seqkit::cross_attention_decode));
  library.impl("extend_ancestry", TORCH_BOX(&seqkit::extend_ancestry));
}
#endif
