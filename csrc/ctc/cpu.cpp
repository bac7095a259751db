// The float64 kernels, which are the specification, and the way into the float32 ones.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "common/device.h"
#include "ctc/ctc.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(ctc_normalizer, (const float* row, int64_t classes, float* to));
SEQKIT_DECLARE_LEVELS(ctc_lattice,
                      (const CtcInputs<float>& in, const CtcOutputs<float>& out, int64_t sentence, float* scratch));
SEQKIT_DECLARE_LEVELS(ctc_gradient,
                      (const CtcInputs<float>& in, const CtcGradients<float>& grads, int64_t sentence, int64_t t));
SEQKIT_DECLARE_LEVELS(ctc_align,
                      (const CtcInputs<float>& in, const CtcAlignment<float>& out, int64_t sentence, float* scratch));

namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

double log_add(double a, double b) {
  if (std::isnan(a + b)) return a + b;
  const double most = std::max(a, b);
  return most == kNothing ? kNothing : most + std::log1p(std::exp(std::min(a, b) - most));
}

// The states of a sentence in a row: blank 0, label 0, blank 1, ..., blank L.
struct Lattice {
  const CtcInputs<double>& in;
  const double* normalizers;  // or null
  int64_t sentence;
  const int64_t* labels = in.targets + sentence * in.width;
  int64_t times = in.input_lengths[sentence], length = in.target_lengths[sentence], states = 2 * length + 1;

  double emission(int64_t t, int64_t state) const {
    const double* row = in.frames + t * in.frame_stride + sentence * in.sentence_stride;
    const double normalizer = normalizers ? normalizers[sentence * in.times + t] : 0.0;
    return row[state % 2 ? labels[state / 2] : in.blank] - normalizer;
  }

  // Whether a path may go from the label before this one to it without a blank.
  bool may_skip(int64_t state) const { return state % 2 && state >= 3 && labels[state / 2] != labels[state / 2 - 1]; }
};

void add_up(const Lattice& on, const CtcOutputs<double>& out) {
  out.losses[on.sentence] = -kNothing;
  if (on.length > on.times) return;
  std::vector<double> alpha(static_cast<size_t>((on.times + 1) * on.states), kNothing);
  alpha[0] = 0.0;  // before the first frame a path stands on blank 0
  for (int64_t t = 0; t < on.times; ++t) {
    const double* before = alpha.data() + t * on.states;
    double* now = alpha.data() + (t + 1) * on.states;
    for (int64_t s = 0; s < on.states; ++s) {
      double sum = before[s];
      if (s >= 1) sum = log_add(sum, before[s - 1]);
      if (on.may_skip(s)) sum = log_add(sum, before[s - 2]);
      now[s] = sum + on.emission(t, s);
    }
  }
  const double* last = alpha.data() + on.times * on.states;
  const double total = on.times && on.length ? log_add(last[on.states - 1], last[on.states - 2]) : last[on.states - 1];
  out.losses[on.sentence] = -total;
  if (!out.occupancy || total == kNothing) return;

  const int64_t slots = slots_of(on.in.times, on.in.width);
  std::vector<double> later(static_cast<size_t>(on.states), kNothing);  // with the emission of the frame after
  later[static_cast<size_t>(on.states - 1)] = 0.0;
  for (int64_t t = on.times - 1; t >= 0; --t) {
    const double* now = alpha.data() + (t + 1) * on.states;
    double* occupancy = out.occupancy + (on.sentence * on.in.times + t) * slots;
    occupancy[0] = 0.0;
    for (int64_t s = 0; s < on.states; ++s) {
      double sum = later[s];
      if (s + 1 < on.states) sum = log_add(sum, later[s + 1]);
      if (s + 2 < on.states && on.may_skip(s + 2)) sum = log_add(sum, later[s + 2]);
      // alpha carries the emission of this frame, the sum does not.
      const double share = now[s] == kNothing ? 0.0 : std::exp(now[s] + sum - total);
      if (s % 2) {
        occupancy[1 + s / 2] = share;
      } else {
        occupancy[0] += share;
      }
      later[s] = sum + on.emission(t, s);  // nothing later in this loop reads it
    }
  }
}

void align(const Lattice& on, const CtcAlignment<double>& out) {
  int64_t* labels = out.labels + on.sentence * on.in.times;
  std::fill_n(labels, on.in.times, -1);
  out.scores[on.sentence] = kNothing;
  if (on.length > on.times) return;
  std::vector<int64_t> came_by(static_cast<size_t>(on.times * on.states));  // how many states a path moved up
  std::vector<double> best(static_cast<size_t>(on.states), kNothing);
  best[0] = 0.0;
  for (int64_t t = 0; t < on.times; ++t) {
    for (int64_t s = on.states - 1; s >= 0; --s) {  // downwards: what stands below is still of the frame before
      double& score = best[static_cast<size_t>(s)];
      int64_t& moved = came_by[static_cast<size_t>(t * on.states + s)];
      for (int64_t by = 1; by <= (on.may_skip(s) ? 2 : 1) && by <= s; ++by) {
        const double other = best[static_cast<size_t>(s - by)];
        if (other > score) score = other, moved = by;
      }
      score += on.emission(t, s);
    }
  }
  int64_t state = on.states - 1;
  if (on.length && best[static_cast<size_t>(state - 1)] > best[static_cast<size_t>(state)]) state -= 1;
  out.scores[on.sentence] = best[static_cast<size_t>(state)];
  if (out.scores[on.sentence] == kNothing) return;
  for (int64_t t = on.times - 1; t >= 0; --t) {
    labels[t] = state % 2 ? on.labels[state / 2] : on.in.blank;
    state -= came_by[static_cast<size_t>(t * on.states + state)];
  }
}

// Memory for whole vectors: one that crosses a cache line is read twice.
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<float*>(::operator new(static_cast<size_t>(count) * sizeof(float), kLine))) {}
  ~Scratch() { ::operator delete(data_, kLine); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* get() const { return data_; }

 private:
  static constexpr std::align_val_t kLine{64};
  float* data_;
};

// The most frames and whole vectors of labels that a sentence with a path has.
struct Most {
  int64_t times, lanes;
};

Most most_of(const CtcInputs<float>& in, int64_t begin, int64_t end) {
  Most most{0, 16};
  for (int64_t sentence = begin; sentence < end; ++sentence) {
    const int64_t length = in.target_lengths[sentence];
    if (length > in.input_lengths[sentence]) continue;
    most.times = std::max(most.times, in.input_lengths[sentence]);
    most.lanes = std::max(most.lanes, (length + 16) / 16 * 16);
  }
  return most;
}

// What the lattice of a sentence leaves: no occupancy in its padding, and none at all without a path.
template <typename Number>
void clear_unoccupied(const CtcInputs<Number>& in, const CtcOutputs<Number>& out, int64_t sentence) {
  if (!out.occupancy) return;
  const bool infinite = out.losses[sentence] == std::numeric_limits<Number>::infinity();
  const int64_t slots = slots_of(in.times, in.width), used = infinite ? 0 : in.target_lengths[sentence] + 1;
  for (int64_t t = 0; t < in.times; ++t) {
    Number* occupancy = out.occupancy + (sentence * in.times + t) * slots;
    std::fill(occupancy + (t < in.input_lengths[sentence] ? used : 0), occupancy + slots, Number{0});
  }
}

// One of the B * T frames, in the order of memory: a page is then read and written once.
struct Place {
  int64_t sentence, t;
};

template <typename Number>
Place place_of(const CtcInputs<Number>& in, int64_t frame) {
  if (in.frame_stride == in.classes) return {frame / in.times, frame % in.times};
  return {frame % in.batch, frame / in.batch};
}

template <typename Number>
const Number* frame_at(const CtcInputs<Number>& in, Place at) {
  return in.frames + at.t * in.frame_stride + at.sentence * in.sentence_stride;
}

}  // namespace

template <>
void ctc_normalizers(const CtcInputs<double>& in, const CtcOutputs<double>& out, int64_t begin, int64_t end) {
  for (int64_t frame = begin; frame < end; ++frame) {
    const Place at = place_of(in, frame);
    double& normalizer = out.normalizers[at.sentence * in.times + at.t];
    normalizer = 0.0;
    if (at.t >= in.input_lengths[at.sentence]) continue;
    const double* row = frame_at(in, at);
    const double most = *std::max_element(row, row + in.classes);
    double total = 0.0;
    for (int64_t c = 0; c < in.classes; ++c) total += std::exp(row[c] - most);
    normalizer = most + std::log(total);
  }
}

template <>
void ctc_lattice(const CtcInputs<double>& in, const CtcOutputs<double>& out, int64_t begin, int64_t end) {
  for (int64_t sentence = begin; sentence < end; ++sentence) {
    add_up({in, out.normalizers, sentence}, out);
    clear_unoccupied(in, out, sentence);
  }
}

template <>
void ctc_gradient(const CtcInputs<double>& in, const CtcGradients<double>& grads, int64_t begin, int64_t end) {
  const int64_t slots = slots_of(in.times, in.width);
  for (int64_t frame = begin; frame < end; ++frame) {
    const auto [sentence, t] = place_of(in, frame);
    const double *row = frame_at(in, {sentence, t}), *occupancy = grads.occupancy + (sentence * in.times + t) * slots;
    double* to = grads.grad + (row - in.frames);
    const bool infinite = grads.losses[sentence] == std::numeric_limits<double>::infinity();
    const bool counts = t < in.input_lengths[sentence];
    if (!counts || (infinite && grads.zero_infinity)) {
      std::fill_n(to, in.classes, 0.0);
    } else if (infinite) {
      std::fill_n(to, in.classes, std::numeric_limits<double>::quiet_NaN());
    } else {
      const double slope = grads.grad_losses[sentence];
      const double normalizer = grads.normalizers ? grads.normalizers[sentence * in.times + t] : 0.0;
      for (int64_t c = 0; c < in.classes; ++c) to[c] = slope * std::exp(row[c] - normalizer);
      to[in.blank] -= slope * occupancy[0];
      for (int64_t i = 0; i < in.target_lengths[sentence]; ++i) {
        to[in.targets[sentence * in.width + i]] -= slope * occupancy[1 + i];
      }
    }
  }
}

template <>
void ctc_normalizers(const CtcInputs<float>& in, const CtcOutputs<float>& out, int64_t begin, int64_t end) {
  const auto one_row = SEQKIT_PICK_LEVEL(ctc_normalizer);
  for (int64_t frame = begin; frame < end; ++frame) {
    const Place at = place_of(in, frame);
    float* normalizer = out.normalizers + at.sentence * in.times + at.t;
    *normalizer = 0.0f;
    if (at.t < in.input_lengths[at.sentence]) one_row(frame_at(in, at), in.classes, normalizer);
  }
}

template <>
void ctc_lattice(const CtcInputs<float>& in, const CtcOutputs<float>& out, int64_t begin, int64_t end) {
  const auto one = SEQKIT_PICK_LEVEL(ctc_lattice);
  const auto [longest, lanes] = most_of(in, begin, end);
  // Whole vectors of labels: three of indices and masks, a row of four before the first frame and one behind the last,
  // and for each frame the log-probabilities and a row of four.
  const Scratch scratch(lanes * (3 + 4 + 4 + (out.occupancy ? 5 * longest : 1)));
  for (int64_t sentence = begin; sentence < end; ++sentence) {
    one(in, out, sentence, scratch.get());
    clear_unoccupied(in, out, sentence);
  }
}

template <>
void ctc_gradient(const CtcInputs<float>& in, const CtcGradients<float>& grads, int64_t begin, int64_t end) {
  const auto one_frame = SEQKIT_PICK_LEVEL(ctc_gradient);
  for (int64_t frame = begin; frame < end; ++frame) {
    const Place at = place_of(in, frame);
    one_frame(in, grads, at.sentence, at.t);
  }
}

template <>
void ctc_align(const CtcInputs<double>& in, const CtcAlignment<double>& out, int64_t begin, int64_t end) {
  for (int64_t sentence = begin; sentence < end; ++sentence) align({in, nullptr, sentence}, out);
}

template <>
void ctc_align(const CtcInputs<float>& in, const CtcAlignment<float>& out, int64_t begin, int64_t end) {
  const auto one = SEQKIT_PICK_LEVEL(ctc_align);
  const auto [longest, lanes] = most_of(in, begin, end);
  const Scratch scratch(lanes * (4 + (longest + 3) / 4));  // four rows of floats and a byte for each frame
  for (int64_t sentence = begin; sentence < end; ++sentence) one(in, out, sentence, scratch.get());
}

}  // namespace seqkit
