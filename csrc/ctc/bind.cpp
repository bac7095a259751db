#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/check.h"
#include "ctc/ctc.h"

namespace seqkit {
namespace {

constexpr int64_t kNumbersPerThread = 20000;  // whose exponentials are worth waking a thread for

// The arguments that forward and backward share.
struct Call {
  const char* where;
  const Tensor &frames, &targets, &input_lengths, &target_lengths;
  int64_t blank;
  bool batch_first;

  int64_t batch() const { return frames.size(batch_first ? 0 : 1); }
  int64_t times() const { return frames.size(batch_first ? 1 : 0); }
  int64_t classes() const { return frames.size(2); }
  int64_t width() const { return targets.size(1); }
  int64_t slots() const { return slots_of(times(), width()); }
  ScalarType real() const {
    return frames.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  }
};

void check(const Call& call) {
  const ScalarType dtype = call.frames.scalar_type();
  if (on_gpu(call.frames)) {
    (void)element_of(call.where, "frames", call.frames);
  } else {
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, call.where,
                    ": frames must have the dtype Float or Double, got ", torch::headeronly::toString(dtype));
  }
  check_shape(call.where, "frames", call.frames, {kAny, kAny, kAny});
  check_contiguous(call.where, "frames", call.frames);
  STD_TORCH_CHECK(call.blank >= 0 && call.blank < call.classes(), call.where, ": blank must be from 0 to ",
                  call.classes() - 1, ", got ", call.blank);
  STD_TORCH_CHECK(call.classes() <= std::numeric_limits<int32_t>::max(), call.where,
                  ": frames must have fewer than 2^31 classes, got ", call.classes());
  check_device(call.where, "targets", call.targets, call.frames);
  check_dtype(call.where, "targets", call.targets, ScalarType::Long);
  check_shape(call.where, "targets", call.targets, {call.batch(), kAny});
  check_contiguous(call.where, "targets", call.targets);
  check_lengths(call.where, "input_lengths", call.input_lengths, call.batch(), call.times(), call.frames);
  check_lengths(call.where, "target_lengths", call.target_lengths, call.batch(), call.width(), call.frames);
  if (on_gpu(call.frames)) return;
  for (int64_t sentence = 0; sentence < call.batch(); ++sentence) {
    const int64_t* labels = data<int64_t>(call.targets) + sentence * call.width();
    for (int64_t i = 0; i < data<int64_t>(call.target_lengths)[sentence]; ++i) {
      STD_TORCH_CHECK(labels[i] >= 0 && labels[i] < call.classes() && labels[i] != call.blank, call.where,
                      ": targets must be from 0 to ", call.classes() - 1, " and not the blank ", call.blank, ", got ",
                      labels[i]);
    }
  }
}

template <typename Number>
CtcInputs<Number> inputs(const Call& call) {
  const int64_t classes = call.classes();
  return {
      .frames = data<Number>(call.frames),
      .frame_stride = call.batch_first ? classes : call.batch() * classes,
      .sentence_stride = call.batch_first ? call.times() * classes : classes,
      .targets = data<int64_t>(call.targets),
      .input_lengths = data<int64_t>(call.input_lengths),
      .target_lengths = data<int64_t>(call.target_lengths),
      .batch = call.batch(),
      .times = call.times(),
      .classes = classes,
      .width = call.width(),
      .blank = call.blank,
  };
}

// Runs `part(begin, end)` over units of `work` numbers each.
template <typename Part>
void in_parallel(int64_t units, int64_t work, const Part& part) {
  torch::stable::parallel_for(0, units, std::max<int64_t>(1, kNumbersPerThread / (work + 1)), part);
}

// The form of a function of a call: what its device and dtype ask for.
#define SEQKIT_PICK_RUN(run, frames) \
  (on_gpu(frames) ? run<void> : (frames).scalar_type() == ScalarType::Float ? run<float> : run<double>)

template <typename Number>
void run_forward(const Call& call, Tensor& losses, Tensor& normalizers, Tensor& occupancy) {
  using Real = RealOf<Number>;
  const CtcInputs<Number> in = inputs<Number>(call);
  const CtcOutputs<Number> out{
      .losses = mutable_data<Real>(losses),
      .normalizers = mutable_data<Real>(normalizers),
      .occupancy = mutable_data<Real>(occupancy),
  };
  if constexpr (std::is_void_v<Number>) {
#ifdef SEQKIT_CUDA
    const bool keep = out.occupancy != nullptr;
    const auto scratch = [&](std::vector<int64_t> shape) {
      return torch::stable::new_empty(losses, shape, ScalarType::Float);
    };
    const int64_t slots = call.slots();
    Tensor emissions = keep ? occupancy : scratch({in.batch, in.times, slots}), totals = scratch({in.batch, 2});
    Tensor alpha = scratch({keep ? in.batch : 0, in.times, slots, 4});
    Tensor beta = scratch({keep ? in.batch : 0, in.times, slots, 4});
    run_on_gpu(call.where, call.frames, [&](void* stream) {
      const CtcScratch rows{.emissions = mutable_data<float>(emissions),
                            .alpha = mutable_data<float>(alpha),
                            .beta = mutable_data<float>(beta),
                            .totals = mutable_data<float>(totals)};
      return ctc_forward_cuda(in, out, rows, element_of(call.where, "frames", call.frames), stream);
    });
#else
    STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
#endif
  } else {
    if (out.normalizers) {
      in_parallel(in.batch * in.times, in.classes,
                  [&](int64_t begin, int64_t end) { ctc_normalizers<Number>(in, out, begin, end); });
    }
    in_parallel(in.batch, in.times * (in.width + 1),
                [&](int64_t begin, int64_t end) { ctc_lattice<Number>(in, out, begin, end); });
  }
}

// The losses; the log-sum-exp of each frame of logits, else nothing; the occupancies where a gradient is wanted.
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& frames, const Tensor& targets, const Tensor& input_lengths,
                                           const Tensor& target_lengths, int64_t blank, bool batch_first, bool logits,
                                           bool with_gradient) {
  const Call call{"ctc_loss", frames, targets, input_lengths, target_lengths, blank, batch_first};
  check(call);
  const auto empty = [&](std::initializer_list<int64_t> shape, bool wanted) {
    const std::vector<int64_t> sizes = wanted ? std::vector<int64_t>(shape) : std::vector<int64_t>{0};
    return torch::stable::new_empty(frames, sizes, call.real());
  };
  Tensor losses = empty({call.batch()}, true), normalizers = empty({call.batch(), call.times()}, logits);
  Tensor occupancy = empty({call.batch(), call.times(), call.slots()}, with_gradient);
  SEQKIT_PICK_RUN(run_forward, frames)(call, losses, normalizers, occupancy);
  return {losses, normalizers, occupancy};
}

template <typename Number>
void run_backward(const Call& call, const Tensor& grad_losses, const Tensor& losses, const MaybeTensor& normalizers,
                  const Tensor& occupancy, bool zero_infinity, Tensor& grad) {
  using Real = RealOf<Number>;
  const CtcInputs<Number> in = inputs<Number>(call);
  const CtcGradients<Number> grads{
      .grad_losses = data<Real>(grad_losses),
      .losses = data<Real>(losses),
      .normalizers = data<Real>(normalizers),
      .occupancy = data<Real>(occupancy),
      .zero_infinity = zero_infinity,
      .grad = mutable_data<Number>(grad),
  };
  if constexpr (std::is_void_v<Number>) {
#ifdef SEQKIT_CUDA
    run_on_gpu(call.where, call.frames, [&](void* stream) {
      return ctc_gradient_cuda(in, grads, element_of(call.where, "frames", call.frames), stream);
    });
#else
    STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
#endif
  } else {
    in_parallel(in.batch * in.times, in.classes,
                [&](int64_t begin, int64_t end) { ctc_gradient<Number>(in, grads, begin, end); });
  }
}

Tensor backward(const Tensor& grad_losses, const Tensor& frames, const Tensor& targets, const Tensor& input_lengths,
                const Tensor& target_lengths, int64_t blank, bool batch_first, bool zero_infinity, const Tensor& losses,
                const MaybeTensor& normalizers, const Tensor& occupancy) {
  const Call call{"ctc_loss_backward", frames, targets, input_lengths, target_lengths, blank, batch_first};
  check(call);
  const auto check_real = [&](const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
    check_device(call.where, name, tensor, frames);
    check_dtype(call.where, name, tensor, call.real());
    check_shape(call.where, name, tensor, shape);
    check_contiguous(call.where, name, tensor);
  };
  check_real("grad_losses", grad_losses, {call.batch()});
  check_real("losses", losses, {call.batch()});
  if (normalizers) check_real("normalizers", *normalizers, {call.batch(), call.times()});
  check_real("occupancy", occupancy, {call.batch(), call.times(), call.slots()});
  Tensor grad = torch::stable::new_empty(frames, {frames.size(0), frames.size(1), frames.size(2)});
  SEQKIT_PICK_RUN(run_backward, frames)
  (call, grad_losses, losses, normalizers, occupancy, zero_infinity, grad);
  return grad;
}

template <typename Number>
void run_align(const Call& call, Tensor& labels, Tensor& scores) {
  const CtcInputs<Number> in = inputs<Number>(call);
  const CtcAlignment<Number> out{.labels = mutable_data<int64_t>(labels),
                                 .scores = mutable_data<RealOf<Number>>(scores)};
  if constexpr (std::is_void_v<Number>) {
#ifdef SEQKIT_CUDA
    const std::vector<int64_t> shape{in.batch, in.times, call.slots()};
    Tensor emissions = torch::stable::new_empty(scores, shape, ScalarType::Float);
    Tensor ways = torch::stable::new_empty(scores, shape, ScalarType::Byte);
    run_on_gpu(call.where, call.frames, [&](void* stream) {
      const Element element = element_of(call.where, "frames", call.frames);
      return ctc_align_cuda(in, out, mutable_data<float>(emissions), mutable_data<uint8_t>(ways), element, stream);
    });
#else
    STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
#endif
  } else {
    in_parallel(in.batch, in.times * (in.width + 1),
                [&](int64_t begin, int64_t end) { ctc_align<Number>(in, out, begin, end); });
  }
}

std::tuple<Tensor, Tensor> align(const Tensor& frames, const Tensor& targets, const Tensor& input_lengths,
                                 const Tensor& target_lengths, int64_t blank, bool batch_first) {
  const Call call{"viterbi_align", frames, targets, input_lengths, target_lengths, blank, batch_first};
  check(call);
  Tensor labels = torch::stable::new_empty(frames, {call.batch(), call.times()}, ScalarType::Long);
  Tensor scores = torch::stable::new_empty(frames, {call.batch()}, call.real());
  SEQKIT_PICK_RUN(run_align, frames)(call, labels, scores);
  return {labels, scores};
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "ctc_loss(Tensor frames, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
      "bool batch_first, bool logits, bool with_gradient) -> (Tensor, Tensor, Tensor)");
  library.def(
      "ctc_loss_backward(Tensor grad_losses, Tensor frames, Tensor targets, Tensor input_lengths, "
      "Tensor target_lengths, int blank, bool batch_first, bool zero_infinity, Tensor losses, Tensor? normalizers, "
      "Tensor occupancy) -> Tensor");
  library.def(
      "viterbi_align(Tensor frames, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank, "
      "bool batch_first) -> (Tensor, Tensor)");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("ctc_loss", TORCH_BOX(&seqkit::forward));
  library.impl("ctc_loss_backward", TORCH_BOX(&seqkit::backward));
  library.impl("viterbi_align", TORCH_BOX(&seqkit::align));
}

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("ctc_loss", TORCH_BOX(&seqkit::forward));
  library.impl("ctc_loss_backward", TORCH_BOX(&seqkit::backward));
  library.impl("viterbi_align", TORCH_BOX(&seqkit::align));
}
#endif
