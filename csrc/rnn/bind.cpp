#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/check.h"
#include "rnn/rnn.h"

namespace seqkit {
namespace {

constexpr int64_t kWorkPerThread = 100000;  // multiply-adds that are worth waking a thread for
constexpr int64_t kUnitWork = 64;           // of a unit's gates and norms
constexpr int64_t kHalvesGrain = 4;         // panels in bfloat16 that take the time of one

// The arguments that both passes share.
struct Call {
  const char* where;
  const Tensor &from_input, &h0;
  const MaybeTensor& c0;
  const Tensor& weight;
  const MaybeTensor &bias_input, &bias_hidden, &gain_input, &gain_hidden, &gain_state, &bias_state, &peepholes,
      &lengths, &seed;
  Cell cell;
  bool reverse, layer_norm;
  double zoneout_hidden, zoneout_state;

  int64_t batch() const { return from_input.size(0); }
  int64_t steps() const { return from_input.size(1); }
  int64_t width() const { return h0.size(1); }
  int64_t gate_width() const { return gates_of(cell) * width(); }
  bool keeps_products() const { return layer_norm || cell == Cell::kGru; }
  bool in_halves() const { return weight.scalar_type() == ScalarType::BFloat16; }
  bool is_double() const { return from_input.scalar_type() == ScalarType::Double; }
};

void check_dense(const Call& call, const char* name, const Tensor& tensor, std::initializer_list<int64_t> shape) {
  check_device(call.where, name, tensor, call.from_input);
  check_dtype(call.where, name, tensor, call.from_input.scalar_type());
  check_shape(call.where, name, tensor, shape);
  check_contiguous(call.where, name, tensor);
}

void check_dense(const Call& call, const char* name, const MaybeTensor& tensor, std::initializer_list<int64_t> shape) {
  if (tensor) check_dense(call, name, *tensor, shape);
}

// On the CPU a float32 layer's may be bfloat16.
void check_weight(const Call& call, std::initializer_list<int64_t> shape) {
  if (!call.in_halves()) return check_dense(call, "weight", call.weight, shape);
  STD_TORCH_CHECK(!on_gpu(call.from_input) && !call.is_double(), call.where,
                  ": weight must have the dtype of from_input unless that is Float on the CPU, got BFloat16");
  check_device(call.where, "weight", call.weight, call.from_input);
  check_shape(call.where, "weight", call.weight, shape);
  check_contiguous(call.where, "weight", call.weight);
}

void check(const Call& call, int64_t cell) {
  STD_TORCH_CHECK(cell >= 0 && cell <= 3, call.where, ": cell must be from 0 to 3, got ", cell);
  const ScalarType dtype = call.from_input.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, call.where,
                  ": from_input must have the dtype Float or Double, got ", torch::headeronly::toString(dtype));
  if (on_gpu(call.from_input)) check_dtype(call.where, "from_input", call.from_input, ScalarType::Float);
  check_dense(call, "from_input", call.from_input, {kAny, kAny, kAny});
  check_dense(call, "h0", call.h0, {call.batch(), kAny});
  const int64_t H = call.width(), GH = call.gate_width();
  check_dense(call, "from_input", call.from_input, {call.batch(), call.steps(), GH});
  check_weight(call, {GH, H});
  STD_TORCH_CHECK(call.c0.has_value() == (call.cell == Cell::kLstm), call.where,
                  ": c0 must be given to an LSTM and to no other, got ", call.c0 ? "one" : "none");
  check_dense(call, "c0", call.c0, {call.batch(), H});
  check_dense(call, "bias_input", call.bias_input, {GH});
  check_dense(call, "bias_hidden", call.bias_hidden, {GH});
  check_dense(call, "gain_input", call.gain_input, {GH});
  check_dense(call, "gain_hidden", call.gain_hidden, {GH});
  check_dense(call, "gain_state", call.gain_state, {H});
  check_dense(call, "bias_state", call.bias_state, {H});
  check_dense(call, "peepholes", call.peepholes, {kPeepholes, H});
  if (call.lengths) check_lengths(call.where, "lengths", *call.lengths, call.batch(), call.steps(), call.from_input);
  for (const double share : {call.zoneout_hidden, call.zoneout_state}) {
    STD_TORCH_CHECK(share >= 0 && share <= 1, call.where, ": zoneout must be from 0 to 1, got ", share);
  }
  if (call.seed) {
    check_device(call.where, "seed", *call.seed, call.from_input);
    check_dtype(call.where, "seed", *call.seed, ScalarType::Long);
    check_shape(call.where, "seed", *call.seed, {1});
  }
}

// Which sentence is in which slot, and how many are left at each step.
struct Slots {
  std::vector<int64_t> order, lengths;

  explicit Slots(const Call& call) : order(call.batch()), lengths(call.batch(), call.steps()) {
    std::iota(order.begin(), order.end(), 0);
    const int64_t* given = data<int64_t>(call.lengths);
    if (!given) return;
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return given[a] > given[b]; });
    for (size_t slot = 0; slot < order.size(); ++slot) lengths[slot] = given[order[slot]];
  }
  int64_t longest() const { return lengths.empty() ? 0 : lengths[0]; }
  int64_t left(int64_t step) const {
    return std::partition_point(lengths.begin(), lengths.end(), [&](int64_t length) { return length > step; }) -
           lengths.begin();
  }
};

// Without slots on CUDA.
template <typename Number>
RnnInputs<Number> inputs(const Call& call, const Slots* slots) {
  return {
      .cell = call.cell,
      .reverse = call.reverse,
      .layer_norm = call.layer_norm,
      .batch = call.batch(),
      .steps = call.steps(),
      .width = call.width(),
      .order = slots ? slots->order.data() : nullptr,
      .lengths = slots ? slots->lengths.data() : data<int64_t>(call.lengths),
      .from_input = data<Number>(call.from_input),
      .h0 = data<Number>(call.h0),
      .c0 = data<Number>(call.c0),
      .bias_input = data<Number>(call.bias_input),
      .bias_hidden = data<Number>(call.bias_hidden),
      .gain_input = data<Number>(call.gain_input),
      .gain_hidden = data<Number>(call.gain_hidden),
      .gain_state = data<Number>(call.gain_state),
      .bias_state = data<Number>(call.bias_state),
      .peepholes = data<Number>(call.peepholes),
      .zoneout_hidden = static_cast<Number>(call.zoneout_hidden),
      .zoneout_state = static_cast<Number>(call.zoneout_state),
      .random = call.seed.has_value(),
      .seed = slots && call.seed ? static_cast<uint64_t>(*data<int64_t>(call.seed)) : 0,
  };
}

// The product of each step with the hidden weights or, `turned`, of its gradients with them.
template <typename Number>
class StepProduct {
 public:
  StepProduct(const Call& call, bool turned)
      : in_halves_(call.in_halves()),
        depth_(turned ? call.gate_width() : call.width()),
        columns_(turned ? call.width() : call.gate_width()),
        whole_(in_halves_ ? round_up(depth_, kHalvesDepth) : depth_),
        packed_(torch::stable::new_empty(call.weight, {panels(columns_), whole_, kRnnPanel})),
        rows_(torch::stable::new_empty(call.weight, {in_halves_ ? round_up(call.batch(), kHalvesRows) : 0, whole_})) {
    torch::stable::parallel_for(0, panels(columns_), 8, [&](int64_t begin, int64_t end) {
      if (in_halves_) {
        rnn_pack_halves(data<Bfloat16>(call.weight), turned, depth_, columns_, mutable_data<Bfloat16>(packed_), begin,
                        end);
      } else {
        rnn_pack(data<Number>(call.weight), turned, depth_, columns_, mutable_data<Number>(packed_), begin, end);
      }
    });
    if (in_halves_ && rows_.numel()) std::memset(mutable_data<Bfloat16>(rows_), 0, rows_.numel() * sizeof(Bfloat16));
  }

  // y [rows, columns] = (y if `add`) + x [rows, depth] times the weights.
  void operator()(const Number* x, Number* y, int64_t rows, bool add) {
    const int64_t grain = 1 + kWorkPerThread / (rows * depth_ * kRnnPanel + 1);
    if constexpr (std::is_same_v<Number, float>) {
      if (in_halves_) {
        Bfloat16* halves = mutable_data<Bfloat16>(rows_);
        torch::stable::parallel_for(0, rows, 1 + kWorkPerThread / depth_,
                                    [&](int64_t begin, int64_t end) { rnn_round(x, depth_, halves, begin, end); });
        const RnnHalvesProduct product{halves, data<Bfloat16>(packed_), y, rows, whole_, columns_, add};
        torch::stable::parallel_for(0, panels(columns_), kHalvesGrain * grain,
                                    [&](int64_t begin, int64_t end) { rnn_product_halves(product, begin, end); });
        return;
      }
    }
    const RnnProduct<Number> product{x, data<Number>(packed_), y, rows, depth_, columns_, add};
    torch::stable::parallel_for(0, panels(columns_), grain,
                                [&](int64_t begin, int64_t end) { rnn_product(product, begin, end); });
  }

 private:
  bool in_halves_;
  int64_t depth_, columns_, whole_;
  Tensor packed_, rows_;
};

// Rows of [B, H] put into their slots, or back.
template <typename Number>
void to_slots(const Slots& slots, const Number* from, int64_t width, Number* to) {
  for (size_t slot = 0; slot < slots.order.size(); ++slot) {
    Number* row = to + static_cast<int64_t>(slot) * width;
    if (from) {
      std::copy_n(from + slots.order[slot] * width, width, row);
    } else {
      std::fill_n(row, width, Number(0));
    }
  }
}

template <typename Number>
void from_slots(const Slots& slots, const Number* from, int64_t width, Number* to) {
  for (size_t slot = 0; slot < slots.order.size(); ++slot) {
    std::copy_n(from + static_cast<int64_t>(slot) * width, width, to + slots.order[slot] * width);
  }
}

// Zero beyond the lengths.
template <typename Number>
void clear_padding(const Call& call, const Slots& slots, Tensor& tensor) {
  const int64_t steps = call.steps(), row = tensor.size(2);
  Number* to = mutable_data<Number>(tensor);
  if (!to) return;
  for (size_t slot = 0; slot < slots.order.size(); ++slot) {
    std::fill_n(to + (slots.order[slot] * steps + slots.lengths[slot]) * row, (steps - slots.lengths[slot]) * row,
                Number(0));
  }
}

struct Results {
  Tensor outputs, hidden, state, gates, products, states, stats;
};

template <typename Number>
void run_forward(const Call& call, bool training, Results& results) {
  const int64_t B = call.batch(), H = call.width(), GH = call.gate_width();
  const Slots slots(call);
  for (Tensor* tensor : {&results.outputs, &results.gates, &results.products, &results.states, &results.stats}) {
    clear_padding<Number>(call, slots, *tensor);
  }
  Tensor hidden = torch::stable::new_empty(call.h0, {B, H}), state = torch::stable::new_empty(call.h0, {B, H});
  Tensor candidates = torch::stable::new_empty(call.h0, {B, H}), step = torch::stable::new_empty(call.h0, {B, GH});
  to_slots(slots, data<Number>(call.h0), H, mutable_data<Number>(hidden));
  to_slots(slots, data<Number>(call.c0), H, mutable_data<Number>(state));
  const RnnInputs<Number> in = inputs<Number>(call, &slots);
  const RnnForward<Number> to{
      .outputs = mutable_data<Number>(results.outputs),
      .gates = training ? mutable_data<Number>(results.gates) : nullptr,
      .products = mutable_data<Number>(results.products),
      .states = mutable_data<Number>(results.states),
      .stats = mutable_data<Number>(results.stats),
      .hidden = mutable_data<Number>(hidden),
      .state = mutable_data<Number>(state),
      .candidates = mutable_data<Number>(candidates),
      .step = mutable_data<Number>(step),
  };
  if (H > 0) {
    StepProduct<Number> multiply(call, false);
    for (int64_t t = 0; t < slots.longest(); ++t) {
      const int64_t rows = slots.left(t);
      multiply(to.hidden, to.step, rows, false);
      torch::stable::parallel_for(0, rows, 1 + kWorkPerThread / (GH * kUnitWork),
                                  [&](int64_t begin, int64_t end) { rnn_forward(in, to, t, begin, end); });
    }
  }
  from_slots(slots, data<Number>(hidden), H, mutable_data<Number>(results.hidden));
  if (call.cell == Cell::kLstm) from_slots(slots, data<Number>(state), H, mutable_data<Number>(results.state));
}

void run_forward_cuda(const Call& call, [[maybe_unused]] bool training, [[maybe_unused]] Results& results) {
#ifdef SEQKIT_CUDA
  const int64_t B = call.batch(), H = call.width();
  Tensor candidates = torch::stable::new_empty(call.h0, {call.cell == Cell::kLstm ? B : 0, H});
  Tensor step = torch::stable::new_empty(call.h0, {B, call.gate_width()});
  const RnnForward<float> to{
      .outputs = mutable_data<float>(results.outputs),
      .gates = training ? mutable_data<float>(results.gates) : nullptr,
      .products = mutable_data<float>(results.products),
      .states = mutable_data<float>(results.states),
      .stats = mutable_data<float>(results.stats),
      .hidden = mutable_data<float>(results.hidden),
      .state = mutable_data<float>(results.state),
      .candidates = mutable_data<float>(candidates),
      .step = mutable_data<float>(step),
  };
  run_on_gpu(call.where, call.from_input, [&](void* stream) {
    return rnn_forward_cuda(inputs<float>(call, nullptr), to, data<float>(call.weight), data<int64_t>(call.seed),
                            stream);
  });
#else
  STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
#endif
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> forward(
    const Tensor& from_input, const Tensor& h0, const MaybeTensor& c0, const Tensor& weight,
    const MaybeTensor& bias_input, const MaybeTensor& bias_hidden, const MaybeTensor& gain_input,
    const MaybeTensor& gain_hidden, const MaybeTensor& gain_state, const MaybeTensor& bias_state,
    const MaybeTensor& peepholes, const MaybeTensor& lengths, const MaybeTensor& seed, int64_t cell, bool reverse,
    bool layer_norm, double zoneout_hidden, double zoneout_state, bool training) {
  const Call call{"rnn",        from_input, h0,
                  c0,           weight,     bias_input,
                  bias_hidden,  gain_input, gain_hidden,
                  gain_state,   bias_state, peepholes,
                  lengths,      seed,       static_cast<Cell>(cell),
                  reverse,      layer_norm, zoneout_hidden,
                  zoneout_state};
  check(call, cell);
  const int64_t B = call.batch(), T = call.steps(), H = call.width(), GH = call.gate_width();
  const bool lstm = call.cell == Cell::kLstm;
  const auto saved = [&](bool wanted, int64_t width) {
    return torch::stable::new_empty(from_input, {training && wanted ? B : 0, T, width});
  };
  Results results{
      .outputs = torch::stable::new_empty(from_input, {B, T, H}),
      .hidden = torch::stable::new_empty(from_input, {B, H}),
      .state = torch::stable::new_empty(from_input, {lstm ? B : 0, H}),
      .gates = saved(true, GH),
      .products = saved(call.keeps_products(), GH),
      .states = saved(lstm, H),
      .stats = saved(layer_norm, kRnnStats),
  };
  const auto run = on_gpu(from_input) ? run_forward_cuda : call.is_double() ? run_forward<double> : run_forward<float>;
  run(call, training, results);
  return {results.outputs,  results.hidden, results.state, results.gates,
          results.products, results.states, results.stats};
}

struct Gradients {
  Tensor input, products, h0, c0, before, sums;
};

template <typename Number>
void run_backward(const Call& call, const MaybeTensor& grad_outputs, const MaybeTensor& grad_hidden,
                  const MaybeTensor& grad_state, const Tensor& outputs, const Tensor& gates, const Tensor& products,
                  const Tensor& states, const Tensor& stats, Gradients& grads) {
  const int64_t B = call.batch(), H = call.width(), GH = call.gate_width();
  const Slots slots(call);
  clear_padding<Number>(call, slots, grads.input);
  clear_padding<Number>(call, slots, grads.before);
  if (call.keeps_products()) clear_padding<Number>(call, slots, grads.products);
  Tensor hidden = torch::stable::new_empty(call.h0, {B, H}), state = torch::stable::new_empty(call.h0, {B, H});
  Tensor step = torch::stable::new_empty(call.h0, {B, GH});
  Tensor step_input = torch::stable::new_empty(call.h0, {call.keeps_products() ? B : 0, GH});
  to_slots(slots, data<Number>(grad_hidden), H, mutable_data<Number>(hidden));
  to_slots(slots, data<Number>(grad_state), H, mutable_data<Number>(state));
  const RnnInputs<Number> in = inputs<Number>(call, &slots);
  const auto saved = [](const Tensor& tensor) { return tensor.numel() ? data<Number>(tensor) : nullptr; };
  const RnnBackward<Number> to{
      .grad_outputs = data<Number>(grad_outputs),
      .outputs = data<Number>(outputs),
      .gates = data<Number>(gates),
      .products = saved(products),
      .states = saved(states),
      .stats = saved(stats),
      .grad_hidden = mutable_data<Number>(hidden),
      .grad_state = mutable_data<Number>(state),
      .grad_step_input = mutable_data<Number>(step_input),
      .grad_step = mutable_data<Number>(step),
      .grad_input = mutable_data<Number>(grads.input),
      .grad_products = mutable_data<Number>(grads.products),
      .before = mutable_data<Number>(grads.before),
      .sums = mutable_data<Number>(grads.sums),
  };
  if (to.sums) std::fill_n(to.sums, grads.sums.numel(), Number(0));
  if (H > 0) {
    StepProduct<Number> multiply(call, true);
    for (int64_t t = slots.longest() - 1; t >= 0; --t) {
      const int64_t rows = slots.left(t), groups = (rows + kSlotGroup - 1) / kSlotGroup;
      torch::stable::parallel_for(0, groups, 1 + kWorkPerThread / (GH * kUnitWork * kSlotGroup),
                                  [&](int64_t begin, int64_t end) { rnn_backward(in, to, t, rows, begin, end); });
      multiply(to.grad_step, to.grad_hidden, rows, true);
    }
  }
  from_slots(slots, data<Number>(hidden), H, mutable_data<Number>(grads.h0));
  if (call.cell == Cell::kLstm) from_slots(slots, data<Number>(state), H, mutable_data<Number>(grads.c0));
}

void run_backward_cuda(const Call& call, [[maybe_unused]] const MaybeTensor& grad_outputs,
                       [[maybe_unused]] const MaybeTensor& grad_hidden, [[maybe_unused]] const MaybeTensor& grad_state,
                       [[maybe_unused]] const Tensor& outputs, [[maybe_unused]] const Tensor& gates,
                       [[maybe_unused]] const Tensor& products, [[maybe_unused]] const Tensor& states,
                       [[maybe_unused]] const Tensor& stats, [[maybe_unused]] Gradients& grads) {
#ifdef SEQKIT_CUDA
  const int64_t B = call.batch(), GH = call.gate_width();
  Tensor step = torch::stable::new_empty(call.h0, {B, GH});
  Tensor step_input = torch::stable::new_empty(call.h0, {call.keeps_products() ? B : 0, GH});
  const Tensor turned = torch::stable::contiguous(torch::stable::transpose(call.weight, 0, 1));
  const auto saved = [](const Tensor& tensor) { return tensor.numel() ? data<float>(tensor) : nullptr; };
  const RnnBackward<float> to{
      .grad_outputs = data<float>(grad_outputs),
      .outputs = data<float>(outputs),
      .gates = data<float>(gates),
      .products = saved(products),
      .states = saved(states),
      .stats = saved(stats),
      .grad_hidden = mutable_data<float>(grads.h0),
      .grad_state = mutable_data<float>(grads.c0),
      .grad_step_input = mutable_data<float>(step_input),
      .grad_step = mutable_data<float>(step),
      .grad_input = mutable_data<float>(grads.input),
      .grad_products = mutable_data<float>(grads.products),
      .before = mutable_data<float>(grads.before),
      .sums = mutable_data<float>(grads.sums),
  };
  run_on_gpu(call.where, call.from_input, [&](void* stream) {
    return rnn_backward_cuda(inputs<float>(call, nullptr), to, data<float>(grad_hidden), data<float>(grad_state),
                             data<float>(turned), data<int64_t>(call.seed), stream);
  });
#else
  STD_TORCH_CHECK(false, call.where, ": the CUDA kernel must be built, got a build without it");
#endif
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    const MaybeTensor& grad_outputs, const MaybeTensor& grad_hidden, const MaybeTensor& grad_state,
    const Tensor& from_input, const Tensor& h0, const MaybeTensor& c0, const Tensor& weight,
    const MaybeTensor& bias_input, const MaybeTensor& bias_hidden, const MaybeTensor& gain_input,
    const MaybeTensor& gain_hidden, const MaybeTensor& gain_state, const MaybeTensor& bias_state,
    const MaybeTensor& peepholes, const MaybeTensor& lengths, const MaybeTensor& seed, int64_t cell, bool reverse,
    bool layer_norm, double zoneout_hidden, double zoneout_state, const Tensor& outputs, const Tensor& gates,
    const Tensor& products, const Tensor& states, const Tensor& stats) {
  const Call call{"rnn_backward",
                  from_input,
                  h0,
                  c0,
                  weight,
                  bias_input,
                  bias_hidden,
                  gain_input,
                  gain_hidden,
                  gain_state,
                  bias_state,
                  peepholes,
                  lengths,
                  seed,
                  static_cast<Cell>(cell),
                  reverse,
                  layer_norm,
                  zoneout_hidden,
                  zoneout_state};
  check(call, cell);
  const int64_t B = call.batch(), T = call.steps(), H = call.width(), GH = call.gate_width();
  const bool lstm = call.cell == Cell::kLstm;
  check_dense(call, "grad_outputs", grad_outputs, {B, T, H});
  check_dense(call, "grad_hidden", grad_hidden, {B, H});
  check_dense(call, "grad_state", grad_state, {B, H});
  check_dense(call, "outputs", outputs, {B, T, H});
  check_dense(call, "gates", gates, {B, T, GH});
  check_dense(call, "products", products, {call.keeps_products() ? B : 0, T, GH});
  check_dense(call, "states", states, {lstm ? B : 0, T, H});
  check_dense(call, "stats", stats, {layer_norm ? B : 0, T, kRnnStats});
  const int64_t groups = on_gpu(from_input) ? B : (B + kSlotGroup - 1) / kSlotGroup;
  Gradients grads{
      .input = torch::stable::new_empty(from_input, {B, T, GH}),
      .products = torch::stable::new_empty(from_input, {call.keeps_products() ? B : 0, T, GH}),
      .h0 = torch::stable::new_empty(from_input, {B, H}),
      .c0 = torch::stable::new_empty(from_input, {lstm ? B : 0, H}),
      .before = torch::stable::new_empty(from_input, {B, T, H}),
      .sums = torch::stable::new_empty(from_input, {groups, rnn_sums(call.cell, H)}),
  };
  const auto run = on_gpu(from_input) ? run_backward_cuda
                   : call.is_double() ? run_backward<double>
                                      : run_backward<float>;
  run(call, grad_outputs, grad_hidden, grad_state, outputs, gates, products, states, stats, grads);
  return {grads.input, grads.products, grads.h0, grads.c0, grads.before, grads.sums};
}

}  // namespace
}  // namespace seqkit

#define SEQKIT_RNN_ARGUMENTS                                                                             \
  "Tensor from_input, Tensor h0, Tensor? c0, Tensor weight, Tensor? bias_input, Tensor? bias_hidden, "   \
  "Tensor? gain_input, Tensor? gain_hidden, Tensor? gain_state, Tensor? bias_state, Tensor? peepholes, " \
  "Tensor? lengths, Tensor? seed, int cell, bool reverse, bool layer_norm, float zoneout_hidden, "       \
  "float zoneout_state, "

SEQKIT_LIBRARY(library) {
  library.def("rnn(" SEQKIT_RNN_ARGUMENTS "bool training) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "rnn_backward(Tensor? grad_outputs, Tensor? grad_hidden, Tensor? grad_state, " SEQKIT_RNN_ARGUMENTS
      "Tensor outputs, Tensor gates, Tensor products, Tensor states, Tensor stats) -> (Tensor, Tensor, Tensor, Tensor, "
      "Tensor, Tensor)");
}

SEQKIT_LIBRARY_IMPL(CPU, library) {
  library.impl("rnn", TORCH_BOX(&seqkit::forward));
  library.impl("rnn_backward", TORCH_BOX(&seqkit::backward));
}

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) {
  library.impl("rnn", TORCH_BOX(&seqkit::forward));
  library.impl("rnn_backward", TORCH_BOX(&seqkit::backward));
}
#endif
