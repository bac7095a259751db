// One row of rnn.h's steps, written once for the vectors of numerics.h and for float64.
//
// `Machine` has Number, Vec, kWidth (units of a Vec) and the functions on them. Everything has internal linkage, see
// device.h.
#pragma once

#include <cstdint>

#include "attention/rows.h"
#include "rnn/rnn.h"

namespace {

using seqkit::Cell;
using seqkit::gates_of;
using seqkit::kRnnStats;
using seqkit::RnnBackward;
using seqkit::RnnForward;
using seqkit::RnnInputs;

#define SEQKIT_ROW inline __attribute__((always_inline))
#define SEQKIT_LAMBDA __attribute__((always_inline))

constexpr double kNormEpsilon = 1e-5;  // torch.nn.functional.layer_norm's

// Where a slot's step stands in [B, T], and where the one before it, or -1 at the first.
struct Place {
  int64_t sentence, row, row_before;
};

template <typename Number>
SEQKIT_ROW Place place_of(const RnnInputs<Number>& in, int64_t slot, int64_t step) {
  const int64_t sentence = in.order[slot], last = in.lengths[slot] - 1;
  const int64_t at = sentence * in.steps + (in.reverse ? last - step : step);
  return {sentence, at, step == 0 ? -1 : in.reverse ? at + 1 : at - 1};
}

template <typename M>
struct Row {
  using Number = typename M::Number;
  using Vec = typename M::Vec;
  static constexpr int kWidth = M::kWidth;

  // ---- layer norm ----

  struct Moments {
    Number mean, scale;
  };

  static Moments moments(const Number* x, int64_t count) {
    Vec total = M::splat(0);
    for (int64_t i = 0; i < count; i += kWidth) total = total + M::load(x + i, left(count - i));
    const Number mean = M::sum(total) / Number(count);
    Vec squares = M::splat(0);
    for (int64_t i = 0; i < count; i += kWidth) {
      const Vec away = M::first(M::load(x + i, left(count - i)) - M::splat(mean), left(count - i));
      squares = M::fma(away, away, squares);
    }
    return {mean, Number(1) / M::root(M::sum(squares) / Number(count) + Number(kNormEpsilon))};
  }

  static SEQKIT_ROW int left(int64_t count) { return count < kWidth ? int(count) : kWidth; }

  static SEQKIT_ROW Vec load_or(const Number* from, int64_t at, int count, Number otherwise) {
    return from ? M::load(from + at, count) : M::splat(otherwise);
  }

  static SEQKIT_ROW void add(Number* to, Vec value, int count) { M::store(to, M::load(to, count) + value, count); }

  // ---- zoneout ----

  // How much of the old hidden state and of the old cell state units from `unit` on keep.
  struct Kept {
    Vec hidden, state;
  };

  static SEQKIT_ROW Kept kept(const RnnInputs<Number>& in, const Place& place, int64_t unit) {
    if (!in.random) return {M::splat(in.zoneout_hidden), M::splat(in.zoneout_state)};
    return drawn(in, place, unit);
  }

  static __attribute__((noinline)) Kept drawn(const RnnInputs<Number>& in, const Place& place, int64_t unit) {
    const auto threshold = [](Number p) { return static_cast<uint64_t>(static_cast<double>(p) * 0x1p32); };
    const uint64_t hidden = threshold(in.zoneout_hidden), state = threshold(in.zoneout_state);
    const int64_t t = place.row - place.sentence * in.steps;
    Number of_hidden[kWidth], of_state[kWidth];
    for (int lane = 0; lane < kWidth; ++lane) {
      const RandomWords words = random_words(in.seed, static_cast<uint32_t>(place.sentence), static_cast<uint32_t>(t),
                                             static_cast<uint32_t>(unit + lane));
      of_hidden[lane] = words.first < hidden ? 1 : 0;
      of_state[lane] = words.second < state ? 1 : 0;
    }
    return {M::load(of_hidden, kWidth), M::load(of_state, kWidth)};
  }

  // share * old + (1 - share) * fresh; a unit that stays, stays to the last bit.
  static SEQKIT_ROW Vec blend(Vec share, Vec old, Vec fresh) {
    return share == M::splat(1) ? old : M::fma(share, old - fresh, fresh);
  }

  // ---- forward ----

  // The two parts of what a gate sums: of W x and of U h, normed and with their biases.
  struct Parts {
    const RnnInputs<Number>& in;
    const Number *x, *u;
    Moments input, hidden;

    SEQKIT_ROW Vec of_input(int64_t at, int count) const {
      Vec value = M::load(x + at, count);
      if (in.layer_norm) {
        value = (value - M::splat(input.mean)) * M::splat(input.scale) * load_or(in.gain_input, at, count, 1);
      }
      return in.bias_input ? value + M::load(in.bias_input + at, count) : value;
    }
    // From U h, already without its mean and scaled where there is a norm.
    SEQKIT_ROW Vec of_hidden(Vec value, int64_t at, int count) const {
      if (in.layer_norm) value = value * load_or(in.gain_hidden, at, count, 1);
      return in.bias_hidden ? value + M::load(in.bias_hidden + at, count) : value;
    }
  };

  static void forward(const RnnInputs<Number>& in, const RnnForward<Number>& to, int64_t step, int64_t slot) {
    const int64_t H = in.width, GH = gates_of(in.cell) * H;
    const Place place = place_of(in, slot, step);
    Number *hidden = to.hidden + slot * H, *u = to.step + slot * GH;
    Number* gates = to.gates ? to.gates + place.row * GH : u;  // without a backward pass in the place of U h
    Number* products = to.products ? to.products + place.row * GH : nullptr;
    Number* output = to.outputs + place.row * H;
    Parts parts{in, in.from_input + place.row * GH, u, {0, 1}, {0, 1}};
    if (in.layer_norm) {
      parts.input = moments(parts.x, GH);
      parts.hidden = moments(u, GH);
    }
    Number* stats = to.stats ? to.stats + place.row * kRnnStats : nullptr;
    if (stats) {
      stats[0] = parts.input.mean;
      stats[1] = parts.input.scale;
      stats[2] = parts.hidden.scale;
      stats[3] = stats[4] = 0;  // an LSTM's, below
    }
    // U h of a gate, normed; kept where the backward pass needs it.
    const auto product = [&](int64_t at, int count) SEQKIT_LAMBDA {
      Vec value = M::load(u + at, count);
      if (in.layer_norm) value = (value - M::splat(parts.hidden.mean)) * M::splat(parts.hidden.scale);
      if (products) M::store(products + at, value, count);
      return value;
    };
    const auto both = [&](int64_t at, int count) SEQKIT_LAMBDA {
      return parts.of_input(at, count) + parts.of_hidden(product(at, count), at, count);
    };
    const auto finish = [&](int64_t unit, int count, Vec fresh, Vec share) SEQKIT_LAMBDA {
      const Vec value = blend(share, M::load(hidden + unit, count), fresh);
      M::store(hidden + unit, value, count);
      M::store(output + unit, value, count);
    };

    if (in.cell == Cell::kLstm) {
      Number *state = to.state + slot * H, *candidates = to.candidates + slot * H;
      for (int64_t unit = 0; unit < H; unit += kWidth) {
        const int count = left(H - unit);
        const Vec before = M::load(state + unit, count);
        Vec i = both(unit, count), f = both(H + unit, count), g = both(2 * H + unit, count),
            o = both(3 * H + unit, count);
        if (in.peepholes) {
          i = M::fma(M::load(in.peepholes + unit, count), before, i);
          f = M::fma(M::load(in.peepholes + H + unit, count), before, f);
        }
        i = M::sigmoid(i);
        f = M::sigmoid(f);
        g = M::tanh(g);
        const Vec candidate = M::fma(f, before, i * g);
        if (in.peepholes) o = M::fma(M::load(in.peepholes + 2 * H + unit, count), candidate, o);
        o = M::sigmoid(o);
        M::store(gates + unit, i, count);
        M::store(gates + H + unit, f, count);
        M::store(gates + 2 * H + unit, g, count);
        M::store(gates + 3 * H + unit, o, count);
        M::store(candidates + unit, candidate, count);
      }
      const Moments norm = in.layer_norm ? moments(candidates, H) : Moments{0, 1};
      if (stats) {
        stats[3] = norm.mean;
        stats[4] = norm.scale;
      }
      for (int64_t unit = 0; unit < H; unit += kWidth) {
        const int count = left(H - unit);
        const Vec candidate = M::load(candidates + unit, count);
        const Kept share = kept(in, place, unit);
        const Vec after = blend(share.state, M::load(state + unit, count), candidate);
        M::store(state + unit, after, count);
        if (to.states) M::store(to.states + place.row * H + unit, after, count);
        const Vec o = M::load(gates + 3 * H + unit, count);
        finish(unit, count, o * M::tanh(normed_state(in, norm, candidate, unit, count)), share.hidden);
      }
      return;
    }
    for (int64_t unit = 0; unit < H; unit += kWidth) {
      const int count = left(H - unit);
      const Vec share = kept(in, place, unit).hidden;
      if (in.cell == Cell::kGru) {
        const Vec r = M::sigmoid(both(unit, count)), z = M::sigmoid(both(H + unit, count));
        const int64_t at = 2 * H + unit;
        const Vec n = M::tanh(M::fma(r, parts.of_hidden(product(at, count), at, count), parts.of_input(at, count)));
        M::store(gates + unit, r, count);
        M::store(gates + H + unit, z, count);
        M::store(gates + at, n, count);
        finish(unit, count, blend(z, M::load(hidden + unit, count), n), share);
      } else {
        const Vec sum = both(unit, count);
        const Vec fresh = in.cell == Cell::kTanh ? M::tanh(sum) : M::relu(sum);
        M::store(gates + unit, fresh, count);
        finish(unit, count, fresh, share);
      }
    }
  }

  static SEQKIT_ROW Vec normed_state(const RnnInputs<Number>& in, const Moments& norm, Vec state, int64_t unit,
                                     int count) {
    if (!in.layer_norm) return state;
    const Vec normed = (state - M::splat(norm.mean)) * M::splat(norm.scale);
    return M::fma(normed, load_or(in.gain_state, unit, count, 1), load_or(in.bias_state, unit, count, 0));
  }

  // ---- backward ----

  // Where a group's sums stand.
  struct Sums {
    Number *bias_input, *bias_hidden, *gain_input, *gain_hidden, *gain_state, *bias_state, *peepholes;
  };

  // What a part's gradient row becomes behind its norm: d of normed values to d of values, in place. The sums of the
  // gain and of the bias grow by the row. `normed` gives the normed values.
  template <typename Normed>
  static SEQKIT_ROW void through_norm(Number* grad, int64_t count, const Number* gain, Number scale, Number* gain_sums,
                                      Number* bias_sums, const Normed& normed) {
    Vec plain = M::splat(0), product = M::splat(0);
    for (int64_t at = 0; at < count; at += kWidth) {
      const int lanes = left(count - at);
      const Vec d = M::load(grad + at, lanes), value = M::first(normed(at, lanes), lanes);
      add(bias_sums + at, d, lanes);
      add(gain_sums + at, d * value, lanes);
      const Vec slope = M::first(d * load_or(gain, at, lanes, 1), lanes);
      M::store(grad + at, slope, lanes);
      plain = plain + slope;
      product = M::fma(slope, value, product);
    }
    const Vec mean = M::splat(M::sum(plain) / Number(count)), along = M::splat(M::sum(product) / Number(count));
    for (int64_t at = 0; at < count; at += kWidth) {
      const int lanes = left(count - at);
      const Vec slope = M::load(grad + at, lanes);
      M::store(grad + at, M::splat(scale) * (slope - mean - along * normed(at, lanes)), lanes);
    }
  }

  static void backward(const RnnInputs<Number>& in, const RnnBackward<Number>& to, int64_t step, int64_t slot,
                       const Sums& sums) {
    const int64_t H = in.width, GH = gates_of(in.cell) * H;
    const Place place = place_of(in, slot, step);
    const Number* gates = to.gates + place.row * GH;
    const Number* products = to.products ? to.products + place.row * GH : nullptr;
    const Number* stats = to.stats ? to.stats + place.row * kRnnStats : nullptr;
    const Number* grad_output = to.grad_outputs ? to.grad_outputs + place.row * H : nullptr;
    const Number* before = place.row_before < 0 ? in.h0 + place.sentence * H : to.outputs + place.row_before * H;
    Number *grad_hidden = to.grad_hidden + slot * H, *d = to.grad_step + slot * GH;
    Number* d_input = in.cell == Cell::kGru || in.layer_norm ? to.grad_step_input + slot * GH : d;
    for (int64_t unit = 0; unit < H; unit += kWidth) {
      const int count = left(H - unit);
      M::store(to.before + place.row * H + unit, M::load(before + unit, count), count);
    }
    const auto met = [&](int64_t unit, int count) SEQKIT_LAMBDA {  // the gradient of the step's hidden state
      const Vec carried = M::load(grad_hidden + unit, count);
      return grad_output ? carried + M::load(grad_output + unit, count) : carried;
    };

    if (in.cell == Cell::kLstm) {
      const Number* state_before = place.row_before < 0 ? in.c0 + place.sentence * H : to.states + place.row_before * H;
      Number* grad_state = to.grad_state + slot * H;
      const Moments norm = in.layer_norm ? Moments{stats[3], stats[4]} : Moments{0, 1};
      const auto candidate = [&](int64_t unit, int count) SEQKIT_LAMBDA {
        const Vec i = M::load(gates + unit, count), f = M::load(gates + H + unit, count);
        return M::fma(f, M::load(state_before + unit, count), i * M::load(gates + 2 * H + unit, count));
      };
      Number* grad_normed = d;  // the place of the input gate's gradient, which comes later
      for (int64_t unit = 0; unit < H; unit += kWidth) {
        const int count = left(H - unit);
        const Vec share = kept(in, place, unit).hidden, grad = met(unit, count),
                  o = M::load(gates + 3 * H + unit, count);
        const Vec y = M::tanh(normed_state(in, norm, candidate(unit, count), unit, count));
        const Vec fresh = grad - share * grad;
        M::store(grad_hidden + unit, share * grad, count);
        M::store(d + 3 * H + unit, fresh * y * (o - o * o), count);
        M::store(grad_normed + unit, fresh * o * M::fma(-y, y, M::splat(1)), count);
      }
      if (in.layer_norm) {
        through_norm(grad_normed, H, in.gain_state, norm.scale, sums.gain_state, sums.bias_state,
                     [&](int64_t unit, int count) SEQKIT_LAMBDA {
                       return (candidate(unit, count) - M::splat(norm.mean)) * M::splat(norm.scale);
                     });
      }
      for (int64_t unit = 0; unit < H; unit += kWidth) {
        const int count = left(H - unit);
        const Vec share = kept(in, place, unit).state, old = M::load(state_before + unit, count);
        const Vec i = M::load(gates + unit, count), f = M::load(gates + H + unit, count);
        const Vec g = M::load(gates + 2 * H + unit, count);
        const Vec grad_after = M::load(grad_state + unit, count), kept_part = share * grad_after;
        Vec grad = M::load(grad_normed + unit, count) + (grad_after - kept_part);
        if (in.peepholes) {
          const Vec o = M::load(d + 3 * H + unit, count);
          grad = M::fma(M::load(in.peepholes + 2 * H + unit, count), o, grad);
          add(sums.peepholes + 2 * H + unit, o * M::fma(f, old, i * g), count);
        }
        const Vec to_input = grad * g * (i - i * i), to_forget = grad * old * (f - f * f);
        Vec to_state = M::fma(grad, f, kept_part);
        if (in.peepholes) {
          to_state = M::fma(M::load(in.peepholes + unit, count), to_input, to_state);
          to_state = M::fma(M::load(in.peepholes + H + unit, count), to_forget, to_state);
          add(sums.peepholes + unit, to_input * old, count);
          add(sums.peepholes + H + unit, to_forget * old, count);
        }
        M::store(grad_state + unit, to_state, count);
        M::store(d + unit, to_input, count);
        M::store(d + H + unit, to_forget, count);
        M::store(d + 2 * H + unit, grad * i * M::fma(-g, g, M::splat(1)), count);
      }
    } else {
      for (int64_t unit = 0; unit < H; unit += kWidth) {
        const int count = left(H - unit);
        const Vec share = kept(in, place, unit).hidden, grad = met(unit, count), kept_part = share * grad;
        const Vec fresh = grad - kept_part;
        if (in.cell == Cell::kGru) {
          const int64_t at = 2 * H + unit;
          const Vec r = M::load(gates + unit, count), z = M::load(gates + H + unit, count);
          const Vec n = M::load(gates + at, count);
          Vec of_hidden = M::load(products + at, count);
          if (in.layer_norm) of_hidden = of_hidden * load_or(in.gain_hidden, at, count, 1);
          if (in.bias_hidden) of_hidden = of_hidden + M::load(in.bias_hidden + at, count);
          const Vec to_new = (fresh - z * fresh) * M::fma(-n, n, M::splat(1));
          const Vec to_reset = to_new * of_hidden * (r - r * r);
          const Vec to_update = fresh * (M::load(before + unit, count) - n) * (z - z * z);
          M::store(grad_hidden + unit, M::fma(fresh, z, kept_part), count);
          M::store(d + unit, to_reset, count);
          M::store(d_input + unit, to_reset, count);
          M::store(d + H + unit, to_update, count);
          M::store(d_input + H + unit, to_update, count);
          M::store(d_input + at, to_new, count);
          M::store(d + at, to_new * r, count);
        } else {
          const Vec y = M::load(gates + unit, count);
          const Vec slope = in.cell == Cell::kTanh ? fresh * M::fma(-y, y, M::splat(1)) : M::where_positive(y, fresh);
          M::store(grad_hidden + unit, kept_part, count);
          M::store(d + unit, slope, count);
        }
      }
    }

    Number* grad_input = to.grad_input + place.row * GH;
    if (in.layer_norm) {
      const Number *x = in.from_input + place.row * GH, mean = stats[0], scale = stats[1];
      if (in.cell != Cell::kGru) copy(d, d_input, GH);
      through_norm(d_input, GH, in.gain_input, scale, sums.gain_input, sums.bias_input,
                   [&](int64_t at, int lanes)
                       SEQKIT_LAMBDA { return (M::load(x + at, lanes) - M::splat(mean)) * M::splat(scale); });
      through_norm(d, GH, in.gain_hidden, stats[2], sums.gain_hidden, sums.bias_hidden,
                   [&](int64_t at, int lanes) SEQKIT_LAMBDA { return M::load(products + at, lanes); });
    } else {
      for (int64_t at = 0; at < GH; at += kWidth) {
        const int lanes = left(GH - at);
        add(sums.bias_input + at, M::load(d_input + at, lanes), lanes);
        if (in.cell == Cell::kGru) add(sums.bias_hidden + at, M::load(d + at, lanes), lanes);
      }
    }
    copy(d_input, grad_input, GH);
    if (to.grad_products) copy(d, to.grad_products + place.row * GH, GH);
  }

  static void copy(const Number* from, Number* to, int64_t count) {
    for (int64_t at = 0; at < count; at += kWidth) {
      M::store(to + at, M::load(from + at, left(count - at)), left(count - at));
    }
  }

  static void backward_group(const RnnInputs<Number>& in, const RnnBackward<Number>& to, int64_t step, int64_t slots,
                             int64_t group) {
    const int64_t H = in.width, GH = gates_of(in.cell) * H;
    Number* sums = to.sums + group * seqkit::rnn_sums(in.cell, H);
    const Sums places{sums,          sums + GH,         sums + 2 * GH,        sums + 3 * GH,
                      sums + 4 * GH, sums + 4 * GH + H, sums + 4 * GH + 2 * H};
    const int64_t first = group * seqkit::kSlotGroup;
    const int64_t last = slots < first + seqkit::kSlotGroup ? slots : first + seqkit::kSlotGroup;
    for (int64_t slot = first; slot < last; ++slot) backward(in, to, step, slot, places);
  }
};

}  // namespace
