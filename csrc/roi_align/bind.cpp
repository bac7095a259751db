#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <string>

#include "common/check.h"
#include "roi_align/plan.h"
#include "roi_align/roi_align.h"

namespace seqkit {
namespace {

constexpr int64_t kWorkPerThread = 50000;  // bins of a channel that are worth waking a thread for

// The options of a call, as the operators take them.
struct Options {
  int64_t bins_y, bins_x, sampling_ratio;
  double scale;
  bool aligned;
};

// What is pooled, or gets the gradient: [B, C, H, W].
struct Size {
  int64_t batch, channels, height, width;
};

bool is_double(const Tensor& tensor) { return tensor.scalar_type() == ScalarType::Double; }

void check(const char* where, const char* name, const Tensor& numbers, const Tensor& boxes, const Size& size,
           const Options& options) {
  if (on_gpu(numbers)) {
    (void)element_of(where, name, numbers);
    check_dtype(where, "boxes", boxes, ScalarType::Float);
  } else {
    check_cpu(where, name, numbers);
    STD_TORCH_CHECK(numbers.scalar_type() == ScalarType::Float || is_double(numbers), where, ": ", name,
                    " must have the dtype Float or Double, got ", torch::headeronly::toString(numbers.scalar_type()));
    check_dtype(where, "boxes", boxes, numbers.scalar_type());
  }
  check_contiguous(where, name, numbers);
  check_device(where, "boxes", boxes, numbers);
  check_shape(where, "boxes", boxes, {kAny, 5});
  check_contiguous(where, "boxes", boxes);
  for (const int64_t bins : {options.bins_y, options.bins_x}) {
    STD_TORCH_CHECK(bins >= 1 && bins <= kMostPoints, where, ": output_size must be from 1 to ", kMostPoints, ", got ",
                    bins);
  }
  STD_TORCH_CHECK(options.scale > 0 && options.scale <= std::numeric_limits<float>::max(), where,
                  ": spatial_scale must be positive and finite, got ", options.scale);
  STD_TORCH_CHECK(options.sampling_ratio <= kMostPoints, where, ": sampling_ratio must be at most ", kMostPoints,
                  ", got ", options.sampling_ratio);
  for (const int64_t length : {size.height, size.width}) {
    STD_TORCH_CHECK(length >= 0 && length <= std::numeric_limits<int32_t>::max(), where, ": ", name,
                    " must have at most 2147483647 pixels along an axis, got ", length);
  }
}

template <typename Number>
RoiAlignCall<Number> call_of(const Tensor& boxes, const Size& size, const Options& options) {
  using Coordinate = CoordinateOf<Number>;
  return {
      .boxes = data<Coordinate>(boxes),
      .rois = boxes.size(0),
      .batch = size.batch,
      .channels = size.channels,
      .height = size.height,
      .width = size.width,
      .bins_y = options.bins_y,
      .bins_x = options.bins_x,
      .scale = static_cast<Coordinate>(options.scale),
      .sampling_ratio = std::max<int64_t>(options.sampling_ratio, 0),
      .aligned = options.aligned,
  };
}

template <typename Number>
void check_values(const char* where, const RoiAlignCall<Number>& call) {
  const RoiFaultAt found = roi_align_fault(call);
  if (found.fault == RoiFault::kNone) return;
  const Number* box = call.boxes + found.roi * 5;
  std::string got = "[";
  for (int n = 0; n < 5; ++n) got += (n ? ", " : "") + std::to_string(box[n]);
  got += "] at " + std::to_string(found.roi);
  switch (found.fault) {
    case RoiFault::kNotFinite:
      STD_TORCH_CHECK(false, where, ": boxes must be finite, got ", got);
    case RoiFault::kImage:
      STD_TORCH_CHECK(false, where, ": boxes must begin with the index of an image, from 0 to ", call.batch - 1,
                      ", got ", got);
    case RoiFault::kNegative:
      STD_TORCH_CHECK(false, where, ": boxes must have x1 <= x2 and y1 <= y2, got ", got);
    default:
      STD_TORCH_CHECK(false, where, ": boxes must have at most ", kMostPoints,
                      " sampling points along an axis, got more for ", got);
  }
}

// Runs `part(begin, end)` over the planes of the images; `bins` in all.
template <typename Part>
void for_all_planes(const Size& size, int64_t bins, const Part& part) {
  const int64_t planes = size.batch * size.channels;
  torch::stable::parallel_for(0, planes, std::max<int64_t>(1, kWorkPerThread / (bins / planes + 1)), part);
}

#ifndef SEQKIT_CUDA
void refuse_cuda(const char* where) {
  STD_TORCH_CHECK(false, where, ": the CUDA kernel must be built, got a build without it");
}
#endif

Tensor forward(const Tensor& input, const Tensor& boxes, double spatial_scale, int64_t pooled_height,
               int64_t pooled_width, int64_t sampling_ratio, bool aligned) {
  const char* where = "roi_align";
  const Options options{pooled_height, pooled_width, sampling_ratio, spatial_scale, aligned};
  check_shape(where, "input", input, {kAny, kAny, kAny, kAny});
  const Size size{input.size(0), input.size(1), input.size(2), input.size(3)};
  check(where, "input", input, boxes, size, options);
  Tensor out = torch::stable::new_empty(input, {boxes.size(0), size.channels, pooled_height, pooled_width});
  if (on_gpu(input)) {
#ifdef SEQKIT_CUDA
    run_on_gpu(where, input, [&](void* stream) {
      return roi_align_forward_cuda(call_of<void>(boxes, size, options), data<void>(input), mutable_data<void>(out),
                                    element_of(where, "input", input), stream);
    });
#else
    refuse_cuda(where);
#endif
  } else if (is_double(input)) {
    const auto call = call_of<double>(boxes, size, options);
    check_values(where, call);
    if (!out.numel()) return out;
    if (!input.numel()) return torch::stable::zero_(out);  // also of more empty images than can be counted
    for_all_planes(size, out.numel(), [&](int64_t begin, int64_t end) {
      roi_align_forward(call, data<double>(input), mutable_data<double>(out), begin, end);
    });
  } else {
    const auto call = call_of<float>(boxes, size, options);
    check_values(where, call);
    if (!out.numel()) return out;
    if (!input.numel()) return torch::stable::zero_(out);  // also of more empty images than can be counted
    const RoiPlan plan(call, false);
    for_all_planes(size, out.numel(), [&](int64_t begin, int64_t end) {
      roi_align_forward(call, plan, data<float>(input), mutable_data<float>(out), begin, end);
    });
  }
  return out;
}

Tensor backward(const Tensor& grad, const Tensor& boxes, double spatial_scale, int64_t batch, int64_t height,
                int64_t width, int64_t sampling_ratio, bool aligned) {
  const char* where = "roi_align_backward";
  check_shape(where, "grad", grad, {boxes.dim() ? boxes.size(0) : 0, kAny, kAny, kAny});
  const Options options{grad.size(2), grad.size(3), sampling_ratio, spatial_scale, aligned};
  const Size size{batch, grad.size(1), height, width};
  check(where, "grad", grad, boxes, size, options);
  STD_TORCH_CHECK(batch >= 0, where, ": batch must not be negative, got ", batch);
  Tensor out = torch::stable::new_empty(grad, {batch, size.channels, height, width});
  if (on_gpu(grad)) {
#ifdef SEQKIT_CUDA
    Tensor sums = grad.scalar_type() == ScalarType::Float
                      ? out
                      : torch::stable::new_empty(grad, {batch, size.channels, height, width}, ScalarType::Float);
    run_on_gpu(where, grad, [&](void* stream) {
      return roi_align_backward_cuda(call_of<void>(boxes, size, options), data<void>(grad), mutable_data<float>(sums),
                                     mutable_data<void>(out), element_of(where, "grad", grad), stream);
    });
#else
    refuse_cuda(where);
#endif
  } else if (is_double(grad)) {
    const auto call = call_of<double>(boxes, size, options);
    check_values(where, call);
    if (!out.numel()) return out;
    for_all_planes(size, std::max(grad.numel(), out.numel()), [&](int64_t begin, int64_t end) {
      roi_align_backward(call, data<double>(grad), mutable_data<double>(out), begin, end);
    });
  } else {
    const auto call = call_of<float>(boxes, size, options);
    check_values(where, call);
    if (!out.numel()) return out;
    const RoiPlan plan(call, true);
    for_all_planes(size, std::max(grad.numel(), out.numel()), [&](int64_t begin, int64_t end) {
      roi_align_backward(call, plan, data<float>(grad), mutable_data<float>(out), begin, end);
    });
  }
  return out;
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "roi_align(Tensor input, Tensor boxes, float spatial_scale, int pooled_height, int pooled_width, "
      "int sampling_ratio, bool aligned) -> Tensor");
  library.def(
      "roi_align_backward(Tensor grad, Tensor boxes, float spatial_scale, SymInt batch, SymInt height, SymInt width, "
      "int sampling_ratio, bool aligned) -> Tensor");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("roi_align", TORCH_BOX(&seqkit::forward));
  library.impl("roi_align_backward", TORCH_BOX(&seqkit::backward));
}

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("roi_align", TORCH_BOX(&seqkit::forward));
  library.impl("roi_align_backward", TORCH_BOX(&seqkit::backward));
}
#endif
