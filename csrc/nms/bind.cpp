#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/check.h"
#include "nms/nms.h"

namespace seqkit {
namespace {

constexpr int64_t kPairsPerThread = 100000;  // that are worth waking a thread for

void check_tensor(const char* where, const char* name, const Tensor& tensor, ScalarType dtype,
                  std::initializer_list<int64_t> shape, const Tensor& same_as) {
  check_device(where, name, tensor, same_as);
  check_dtype(where, name, tensor, dtype);
  check_shape(where, name, tensor, shape);
  check_contiguous(where, name, tensor);
}

void check_real(const char* where, const Tensor& boxes) {
  const ScalarType dtype = boxes.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || (dtype == ScalarType::Double && !on_gpu(boxes)), where,
                  ": boxes must have the dtype Float, or Double on the CPU, got ", torch::headeronly::toString(dtype));
}

// Whether a box can be read at once.
[[maybe_unused]] bool is_aligned(const Tensor& boxes) {
  return reinterpret_cast<uintptr_t>(boxes.const_data_ptr()) % 16 == 0;
}

// Reading a GPU's would wait for it: there a box that is not a number meets nothing.
template <typename Number>
void check_numbers(const char* where, const char* name, const Tensor& tensor) {
  if (on_gpu(tensor)) return;
  const Number* values = data<Number>(tensor);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    STD_TORCH_CHECK(values[i] == values[i], where, ": ", name, " must not hold NaN, got one at ", i);
  }
}

// The first numbers, in memory of their own: what is given back must not hold on to room for all.
Tensor first_of(Tensor& room, int64_t count) { return torch::stable::clone(torch::stable::narrow(room, 0, 0, count)); }

// Calls run(Number{}) with the number of the boxes, after all checks that they and the scores share.
template <typename Run>
void with_boxes(const char* where, const Tensor& boxes, const Tensor& scores, const Run& run) {
  check_cpu(where, "boxes", boxes);
  check_real(where, boxes);
  check_tensor(where, "boxes", boxes, boxes.scalar_type(), {kAny, 4}, boxes);
  check_tensor(where, "scores", scores, boxes.scalar_type(), {boxes.size(0)}, boxes);
  const auto checked = [&]<typename Number>(Number number) {
    check_numbers<Number>(where, "boxes", boxes);
    check_numbers<Number>(where, "scores", scores);
    run(number);
  };
  boxes.scalar_type() == ScalarType::Double ? checked(double{}) : checked(float{});
}

Tensor nms(const Tensor& boxes, const Tensor& scores, const std::optional<Tensor>& classes, double threshold) {
  constexpr const char* kWhere = "nms";
  if (classes) check_tensor(kWhere, "idxs", *classes, ScalarType::Long, {boxes.size(0)}, boxes);
  STD_TORCH_CHECK(threshold == threshold, kWhere, ": iou_threshold must be a number, got NaN");
  Tensor kept;
  with_boxes(kWhere, boxes, scores, [&]<typename Number>(Number) {
    const int64_t count = boxes.size(0);
    Tensor room = torch::stable::new_empty(boxes, {count}, ScalarType::Long);
    const NmsCall<Number> call{.boxes = data<Number>(boxes),
                               .scores = data<Number>(scores),
                               .classes = data<int64_t>(classes),
                               .count = count,
                               .threshold = threshold};
    const int64_t n_kept = count ? nms_run(call, mutable_data<int64_t>(room)) : 0;
    kept = first_of(room, n_kept);
  });
  return kept;
}

// What soft-NMS chooses, in tensors that have room for all boxes.
struct Chosen {
  Tensor kept, scores;
  int64_t count = 0;
};

void check_soft(const char* where, int64_t decay, double sigma, double threshold, double least_score) {
  STD_TORCH_CHECK(decay == 0 || decay == 1, where, ": decay must be 0 or 1, got ", decay);
  STD_TORCH_CHECK(sigma > 0, where, ": sigma must be positive, got ", sigma);
  STD_TORCH_CHECK(threshold == threshold && least_score == least_score, where,
                  ": iou_threshold and score_threshold must be numbers, got NaN");
}

template <typename Number>
SoftNmsCall<Number> soft_call(const Tensor& boxes, const Tensor& scores, int64_t decay, double sigma, double threshold,
                              double least_score) {
  return {.boxes = data<Number>(boxes),
          .scores = data<Number>(scores),
          .count = boxes.size(0),
          .decay = static_cast<Decay>(decay),
          .sigma = sigma,
          .threshold = threshold,
          .least_score = least_score};
}

Chosen choose(const char* where, const Tensor& boxes, const Tensor& scores, int64_t decay, double sigma,
              double threshold, double least_score) {
  check_soft(where, decay, sigma, threshold, least_score);
  Chosen chosen;
  with_boxes(where, boxes, scores, [&]<typename Number>(Number) {
    const int64_t count = boxes.size(0);
    chosen.kept = torch::stable::new_empty(boxes, {count}, ScalarType::Long);
    chosen.scores = torch::stable::new_empty(boxes, {count});
    if (count == 0) return;
    const auto call = soft_call<Number>(boxes, scores, decay, sigma, threshold, least_score);
    chosen.count = soft_nms_run(call, mutable_data<int64_t>(chosen.kept), mutable_data<Number>(chosen.scores));
  });
  return chosen;
}

std::tuple<Tensor, Tensor> soft_nms(const Tensor& boxes, const Tensor& scores, int64_t decay, double sigma,
                                    double threshold, double least_score) {
  Chosen chosen = choose("soft_nms", boxes, scores, decay, sigma, threshold, least_score);
  return {first_of(chosen.kept, chosen.count), first_of(chosen.scores, chosen.count)};
}

// The same with a place for each box: behind those that are chosen, -1 and a score of 0.
std::tuple<Tensor, Tensor> soft_nms_padded(const Tensor& boxes, const Tensor& scores, int64_t decay, double sigma,
                                           double threshold, double least_score) {
  constexpr const char* kWhere = "soft_nms_padded";
  const int64_t count = boxes.dim() ? boxes.size(0) : 0;
  if (on_gpu(boxes)) {
    check_soft(kWhere, decay, sigma, threshold, least_score);
    check_real(kWhere, boxes);
    check_tensor(kWhere, "boxes", boxes, ScalarType::Float, {kAny, 4}, boxes);
    check_tensor(kWhere, "scores", scores, ScalarType::Float, {count}, boxes);
    STD_TORCH_CHECK(count < std::numeric_limits<int32_t>::max() - kSoftNmsThreads, kWhere,
                    ": boxes must be fewer than 2^31 on CUDA, got ", count);
    Tensor kept = torch::stable::new_empty(boxes, {count}, ScalarType::Long);
    Tensor lowered = torch::stable::new_empty(boxes, {count});
#ifdef SEQKIT_CUDA
    Tensor room = torch::stable::new_empty(boxes, {soft_nms_room(count), 4});
    const auto call = soft_call<float>(boxes, scores, decay, sigma, threshold, least_score);
    run_on_gpu(kWhere, boxes, [&](void* stream) {
      return soft_nms_cuda(call, mutable_data<float>(room), mutable_data<int64_t>(kept), mutable_data<float>(lowered),
                           stream);
    });
#else
    STD_TORCH_CHECK(false, kWhere, ": the CUDA kernel must be built, got a build without it");
#endif
    return {kept, lowered};
  }
  Chosen chosen = choose(kWhere, boxes, scores, decay, sigma, threshold, least_score);
  std::fill_n(mutable_data<int64_t>(chosen.kept) + chosen.count, count - chosen.count, -1);
  const auto clear = [&]<typename Number>(Number) {
    std::fill_n(mutable_data<Number>(chosen.scores) + chosen.count, count - chosen.count, Number(0));
  };
  boxes.scalar_type() == ScalarType::Double ? clear(double{}) : clear(float{});
  return {chosen.kept, chosen.scores};
}

Tensor box_iou(const Tensor& a, const Tensor& b) {
  constexpr const char* kWhere = "box_iou";
  check_real(kWhere, a);
  check_tensor(kWhere, "boxes1", a, a.scalar_type(), {kAny, 4}, a);
  check_tensor(kWhere, "boxes2", b, a.scalar_type(), {kAny, 4}, a);
  const int64_t rows = a.size(0), columns = b.size(0);
  Tensor iou = torch::stable::new_empty(a, {rows, columns});
  if (rows == 0 || columns == 0) return iou;
  if (on_gpu(a)) {
#ifdef SEQKIT_CUDA
    STD_TORCH_CHECK(is_aligned(a) && is_aligned(b), kWhere, ": boxes must be aligned to 16 bytes on CUDA, got others");
    run_on_gpu(kWhere, a, [&](void* stream) {
      return box_iou_cuda(data<float>(a), data<float>(b), rows, columns, mutable_data<float>(iou), stream);
    });
#else
    STD_TORCH_CHECK(false, kWhere, ": the CUDA kernel must be built, got a build without it");
#endif
    return iou;
  }
  const auto run = [&]<typename Number>(Number) {
    const int64_t grain = std::max<int64_t>(1, kPairsPerThread / columns);
    torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      box_iou_run(data<Number>(a), data<Number>(b), columns, mutable_data<Number>(iou), begin, end);
    });
  };
  a.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
  return iou;
}

// Which boxes stay, of boxes that stand best first.
Tensor nms_mask(const Tensor& boxes, const std::optional<Tensor>& classes, double threshold) {
  constexpr const char* kWhere = "nms_mask";
  check_real(kWhere, boxes);
  check_tensor(kWhere, "boxes", boxes, boxes.scalar_type(), {kAny, 4}, boxes);
  if (classes) check_tensor(kWhere, "idxs", *classes, ScalarType::Long, {boxes.size(0)}, boxes);
  STD_TORCH_CHECK(threshold == threshold, kWhere, ": iou_threshold must be a number, got NaN");
  const int64_t count = boxes.size(0);
  const int64_t* kinds = data<int64_t>(classes);
  Tensor keep = torch::stable::new_empty(boxes, {count}, ScalarType::Bool);
  if (count == 0) return keep;
  bool* to = mutable_data<bool>(keep);
  if (on_gpu(boxes)) {
#ifdef SEQKIT_CUDA
    STD_TORCH_CHECK(is_aligned(boxes), kWhere, ": boxes must be aligned to 16 bytes on CUDA, got others");
    run_on_gpu(kWhere, boxes, [&](void* stream) {
      return nms_mask_cuda(data<float>(boxes), kinds, count, not_above(threshold), to, stream);
    });
#else
    STD_TORCH_CHECK(false, kWhere, ": the CUDA kernel must be built, got a build without it");
#endif
    return keep;
  }
  const auto run = [&]<typename Number>(Number) {
    check_numbers<Number>(kWhere, "boxes", boxes);
    std::vector<int64_t> kept(count);
    const NmsCall<Number> call{
        .boxes = data<Number>(boxes), .scores = nullptr, .classes = kinds, .count = count, .threshold = threshold};
    const int64_t n_kept = nms_run(call, kept.data());
    std::fill_n(to, count, false);
    for (int64_t i = 0; i < n_kept; ++i) to[kept[i]] = true;
  };
  boxes.scalar_type() == ScalarType::Double ? run(double{}) : run(float{});
  return keep;
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def("nms(Tensor boxes, Tensor scores, Tensor? classes, float threshold) -> Tensor");
  library.def(
      "soft_nms(Tensor boxes, Tensor scores, int decay, float sigma, float threshold, float least_score) -> (Tensor, "
      "Tensor)");
  library.def(
      "soft_nms_padded(Tensor boxes, Tensor scores, int decay, float sigma, float threshold, float least_score) -> "
      "(Tensor, Tensor)");
  library.def("box_iou(Tensor a, Tensor b) -> Tensor");
  library.def("nms_mask(Tensor boxes, Tensor? classes, float threshold) -> Tensor");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("nms", TORCH_BOX(&seqkit::nms));
  library.impl("soft_nms", TORCH_BOX(&seqkit::soft_nms));
  library.impl("soft_nms_padded", TORCH_BOX(&seqkit::soft_nms_padded));
  library.impl("box_iou", TORCH_BOX(&seqkit::box_iou));
  library.impl("nms_mask", TORCH_BOX(&seqkit::nms_mask));
}

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("nms_mask", TORCH_BOX(&seqkit::nms_mask));
  library.impl("soft_nms_padded", TORCH_BOX(&seqkit::soft_nms_padded));
  library.impl("box_iou", TORCH_BOX(&seqkit::box_iou));
}
#endif
