// The float32 kernels of ctc.h, once per machine level.
//
// A probability is a mantissa and an exponent of its own, a float each: m 2^e with m in [1, 2), or 0. So nothing in the
// lattice can underflow, however unlikely a target is, no logarithm or exponential is taken of a state, and an error is
// that of a product of floats, where the logarithm of a small probability would have lost its last places. Blank i and
// label i are lane i of two rows: a step adds to them its own row and that of the labels moved by one lane.
#include <cmath>

#include "common/device.h"
#include "common/numerics.h"
#include "ctc/ctc.h"

namespace {

using seqkit::CtcAlignment;
using seqkit::CtcGradients;
using seqkit::CtcInputs;
using seqkit::CtcOutputs;
using seqkit::slots_of;

SEQKIT_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
SEQKIT_INLINE int lanes_left(int64_t count) { return int(smaller(count, kLanes)); }

SEQKIT_INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

SEQKIT_INLINE Vec at_least(Vec least, Vec x) { return x < least ? least : x; }  // NaN passes

// ---- numbers with an exponent of their own ----

constexpr float kNothing = -1e38f;  // the exponent of 0: finite, so that differences are

struct Wide {
  Vec m, e;
};

SEQKIT_INLINE Wide nothing() { return {Vec{}, splat(kNothing)}; }

// m 2^by, by an integer up to a few; 0 below 2^-126, where the machine would take a hundred cycles for a subnormal.
SEQKIT_INLINE Vec scaled(Vec m, Vec by) {
#if defined(__AVX512F__)
  const __mmask16 normal = _mm512_cmp_ps_mask((__m512)by, (__m512)splat(-126.0f), _CMP_NLT_UQ);
  return (Vec)_mm512_maskz_scalef_ps(normal, (__m512)m, (__m512)by);
#else
  const Vec clamped = by > splat(-127.0f) ? by : splat(-127.0f);
  const VecInt bits = (__builtin_convertvector(clamped, VecInt) + 127) << 23;  // of 2^-127: 0
  Vec power;
  std::memcpy(&power, &bits, sizeof power);
  return m * power;
#endif
}

// The same number with m in [1, 2).
SEQKIT_INLINE Wide normalised(Vec m, Vec e) {
#if defined(__AVX512F__)
  const __mmask16 some = _mm512_cmp_ps_mask((__m512)m, _mm512_setzero_ps(), _CMP_NEQ_UQ);
  const __m512 mantissa = _mm512_maskz_getmant_ps(some, (__m512)m, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
  const Vec exponent = e + (Vec)_mm512_getexp_ps((__m512)m);  // -infinity for 0
  return {(Vec)mantissa, at_least(splat(kNothing), exponent)};
#else
  VecInt bits;
  std::memcpy(&bits, &m, sizeof bits);
  const Vec exponent = e + __builtin_convertvector((bits >> 23) - 127, Vec);
  bits = (bits & 0x7fffff) | 0x3f800000;
  Vec mantissa;
  std::memcpy(&mantissa, &bits, sizeof mantissa);
  mantissa = m == m ? mantissa : m;  // NaN stays
  const VecInt none = m == Vec{};
  return {none ? Vec{} : mantissa, none ? splat(kNothing) : at_least(splat(kNothing), exponent)};
#endif
}

// The sum, with m up to 4.
SEQKIT_INLINE Wide sum_of(const Wide& a, const Wide& b) {
  const Vec e = larger(a.e, b.e);
  return {scaled(a.m, a.e - e) + scaled(b.m, b.e - e), e};
}

// The sum, with m up to 6; c only where `allowed`.
SEQKIT_INLINE Wide sum_of(const Wide& a, const Wide& b, const Wide& c, VecInt allowed) {
  const Vec c_m = allowed ? c.m : Vec{}, c_e = allowed ? c.e : splat(kNothing);
  const Vec e = larger(larger(a.e, b.e), c_e);
  return {scaled(a.m, a.e - e) + scaled(b.m, b.e - e) + scaled(c_m, c_e - e), e};
}

SEQKIT_INLINE Wide product(const Wide& a, const Wide& b) { return normalised(a.m * b.m, a.e + b.e); }

// exp(x) for any x; m about 1. Beyond 2^22 the exponent is as rough as x is.
SEQKIT_INLINE Wide wide_exp(Vec x) {
  const VecInt none = x == splat(-__builtin_inff());
  const Vec clamped = at_least(splat(-1e37f), x);
  const Vec rounder = splat(12582912.0f), scale = splat(1.44269504f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec rounded = fma(clamped, scale, rounder) - rounder;
  const Vec n = magnitude(clamped) < splat(2.9e6f) ? rounded : clamped * scale;
  Vec r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  r = r > splat(0.5f) ? splat(0.5f) : r;
  r = at_least(splat(-0.5f), r);
  Vec p = splat(1.9875691500e-4f);  // as in numerics.h
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  const Vec m = fma(p, r * r, r) + splat(1.0f);
  return {none ? Vec{} : m, none ? splat(kNothing) : n};
}

// Rows of such numbers: a vector of mantissas, then their exponents.
SEQKIT_INLINE Wide load_wide(const float* from) { return {load(from), load(from + kLanes)}; }

SEQKIT_INLINE void store_wide(float* to, const Wide& value) {
  store(to, value.m);
  store(to + kLanes, value.e);
}

// ---- lanes moved by one, from and to the neighbouring vectors ----

SEQKIT_INLINE Vec moved_up(Vec value, Vec below) {
#if defined(__AVX512F__)
  return (Vec)_mm512_alignr_epi32((__m512i)value, (__m512i)below, 15);
#elif defined(__AVX2__)
  return __builtin_shufflevector(below, value, 7, 8, 9, 10, 11, 12, 13, 14);
#else
  return __builtin_shufflevector(below, value, 3, 4, 5, 6);
#endif
}

SEQKIT_INLINE Vec moved_down(Vec value, Vec above) {
#if defined(__AVX512F__)
  return (Vec)_mm512_alignr_epi32((__m512i)above, (__m512i)value, 1);
#elif defined(__AVX2__)
  return __builtin_shufflevector(value, above, 1, 2, 3, 4, 5, 6, 7, 8);
#else
  return __builtin_shufflevector(value, above, 1, 2, 3, 4);
#endif
}

SEQKIT_INLINE Wide moved_up(const Wide& value, const Wide& below) {
  return {moved_up(value.m, below.m), moved_up(value.e, below.e)};
}

SEQKIT_INLINE Wide moved_down(const Wide& value, const Wide& above) {
  return {moved_down(value.m, above.m), moved_down(value.e, above.e)};
}

// row[index] of each lane, -infinity where the index is negative.
SEQKIT_INLINE Vec gathered(const float* row, VecInt index) {
#if defined(__AVX512F__)
  const __mmask16 some = _mm512_cmpge_epi32_mask((__m512i)index, _mm512_setzero_si512());
  return (Vec)_mm512_mask_i32gather_ps((__m512)splat(-__builtin_inff()), some, (__m512i)index, row, 4);
#else
  Vec value;
  for (int lane = 0; lane < kLanes; ++lane) value[lane] = index[lane] < 0 ? -__builtin_inff() : row[index[lane]];
  return value;
#endif
}

constexpr int64_t kLine = 64 / sizeof(float);  // numbers of a cache line
constexpr int64_t kAhead = 4;                  // frames
constexpr int64_t kRowsAhead = 1024;           // numbers: the machine's own prefetcher stops at the end of a page

// Begins to fetch what a later frame gathers: the numbers lie apart, and frames of a batch are pages apart.
SEQKIT_INLINE void prefetch(const float* frame, const int64_t* labels, int64_t length, int64_t classes) {
  if (classes < length * kLine) {
    for (int64_t c = 0; c < classes; c += kLine) __builtin_prefetch(frame + c);
  } else {
    for (int64_t i = 0; i < length; ++i) __builtin_prefetch(frame + labels[i]);
  }
}

SEQKIT_INLINE VecInt load_ints(const float* from) {
  VecInt value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

SEQKIT_INLINE void store_int(float* to, int32_t value) { std::memcpy(to, &value, sizeof value); }

// The probability of all ways, of which one lane of each of two vectors has a part.
struct Total {
  float m;
  double e;
};

SEQKIT_INLINE Total total_of(const float* row, int64_t lanes, int64_t length) {
  const auto at = [&](int64_t lane, bool label) {
    const float* from = row + (label ? 2 * lanes : 0) + lane / kLanes * 2 * kLanes + lane % kLanes;
    return Total{from[0], from[kLanes]};
  };
  const Total blank = at(length, false);
  if (length == 0) return blank;
  const Total label = at(length - 1, true);
  const double e = blank.e > label.e ? blank.e : label.e;
  return {float(blank.m * std::exp2(blank.e - e) + label.m * std::exp2(label.e - e)), e};
}

}  // namespace

namespace seqkit {

void SEQKIT_AT_LEVEL(ctc_normalizer)(const float* row, int64_t classes, float* to) {
  Vec most = splat(-__builtin_inff());
  int64_t c = 0;
  for (; c + kLanes <= classes; c += kLanes) most = larger(load(row + c), most);
  if (c < classes) {  // the row's first numbers fill the vector up
    Vec tail = splat(row[0]);
    for (int lane = 0; lane < classes - c; ++lane) tail[lane] = row[c + lane];
    most = larger(tail, most);
  }
  const float largest = largest_lane(most);
  const Vec shift = splat(largest);
  Vec total{};
  for (c = 0; c + kLanes <= classes; c += kLanes) total = total + exp(load(row + c) - shift);
  float sums = sum(total);
  if (c < classes) {
    Vec tail = splat(-__builtin_inff());
    for (int lane = 0; lane < classes - c; ++lane) tail[lane] = row[c + lane];
    sums += sum(exp(tail - shift));
  }
  *to = float(double(largest) + std::log(double(sums)));
}

// Scratch: `lanes` is L + 1 in whole vectors. Three rows of integers; four rows of `lanes` before the first frame and
// four behind the last; then for each frame its log-probabilities and its alpha, blanks before labels.
void SEQKIT_AT_LEVEL(ctc_lattice)(const CtcInputs<float>& in, const CtcOutputs<float>& out, int64_t sentence,
                                  float* scratch) {
  const int64_t times = in.input_lengths[sentence], length = in.target_lengths[sentence];
  out.losses[sentence] = __builtin_inff();
  if (length > times) return;
  const int64_t lanes = (length + kLanes) / kLanes * kLanes, row = 4 * lanes;
  const int64_t* labels = in.targets + sentence * in.width;
  float *indices = scratch, *may_skip = indices + lanes, *may_be_skipped_to = may_skip + lanes;
  for (int64_t i = 0; i < lanes; ++i) {
    store_int(indices + i, i < length ? int32_t(labels[i]) : -1);
    store_int(may_skip + i, i > 0 && i < length && labels[i] != labels[i - 1] ? -1 : 0);
    store_int(may_be_skipped_to + i, i + 1 < length && labels[i + 1] != labels[i] ? -1 : 0);
  }
  float *start = may_be_skipped_to + lanes, *finish = start + row, *frames = finish + row;
  for (int64_t v = 0; v < 2 * lanes; v += kLanes) {
    store_wide(start + 2 * v, nothing());
    store_wide(finish + 2 * v, nothing());
  }
  start[0] = 1.0f, start[kLanes] = 0.0f;  // a path begins on blank 0 and ends on blank L
  float* end = finish + length / kLanes * 2 * kLanes + length % kLanes;
  end[0] = 1.0f, end[kLanes] = 0.0f;

  const float* logits = in.frames + sentence * in.sentence_stride;
  const float* normalizers = out.normalizers ? out.normalizers + sentence * in.times : nullptr;
  const bool keep = out.occupancy != nullptr;
  const auto blank_of = [&](int64_t t) {
    return wide_exp(splat(logits[t * in.frame_stride + in.blank]) - splat(normalizers ? normalizers[t] : 0.0f));
  };

  float* before = start;
  for (int64_t t = 0; t < times; ++t) {
    float *logps = keep ? frames + t * (lanes + row) : frames, *now = keep ? logps + lanes : start;
    const float* frame = logits + t * in.frame_stride;
    if (t + kAhead < times) prefetch(frame + kAhead * in.frame_stride, labels, length, in.classes);
    const Vec normalizer = splat(normalizers ? normalizers[t] : 0.0f);
    const Wide y_blank = blank_of(t);
    Wide below = nothing();
    for (int64_t v = 0; v < lanes; v += kLanes) {
      const Vec logp = gathered(frame, load_ints(indices + v)) - normalizer;
      if (keep) store(logps + v, logp);
      const Wide blank = load_wide(before + 2 * v), label = load_wide(before + 2 * lanes + 2 * v);
      const Wide previous = moved_up(label, below);
      below = label;
      const Wide labels_sum = sum_of(label, blank, previous, load_ints(may_skip + v));
      store_wide(now + 2 * v, product(sum_of(blank, previous), y_blank));
      store_wide(now + 2 * lanes + 2 * v, product(labels_sum, wide_exp(logp)));
    }
    before = now;
  }

  const Total total = total_of(before, lanes, length);
  if (total.m == 0.0f) return;
  out.losses[sentence] = float(-(std::log(double(total.m)) + total.e * 0.69314718055994531));
  if (!keep) return;
  const Vec inverse = splat(1.0f / total.m), exponent = splat(float(total.e));
  const int64_t slots = slots_of(in.times, in.width);
  for (int64_t t = times - 1; t >= 0; --t) {
    const float *logps = frames + t * (lanes + row), *alpha = logps + lanes;
    float* occupancy = out.occupancy + (sentence * in.times + t) * slots;
    const Wide y_blank = blank_of(t);
    Wide blank_above = nothing(), label_above = nothing();
    Vec blanks{};
    for (int64_t v = lanes - kLanes; v >= 0; v -= kLanes) {
      const Wide blank = load_wide(finish + 2 * v), label = load_wide(finish + 2 * lanes + 2 * v);
      const Wide next_blank = moved_down(blank, blank_above), next_label = moved_down(label, label_above);
      blank_above = blank;
      label_above = label;
      const Wide from_blank = sum_of(blank, label);
      const Wide from_label = sum_of(label, next_blank, next_label, load_ints(may_be_skipped_to + v));
      const Wide blank_alpha = load_wide(alpha + 2 * v), label_alpha = load_wide(alpha + 2 * lanes + 2 * v);
      blanks = blanks + scaled(blank_alpha.m * from_blank.m * inverse, blank_alpha.e + from_blank.e - exponent);
      const Vec share = scaled(label_alpha.m * from_label.m * inverse, label_alpha.e + from_label.e - exponent);
      if (v < length) store_some(occupancy + 1 + v, share, lanes_left(length - v));
      store_wide(finish + 2 * v, product(from_blank, y_blank));
      store_wide(finish + 2 * lanes + 2 * v, product(from_label, wide_exp(load(logps + v))));
    }
    occupancy[0] = sum(blanks);
  }
}

void SEQKIT_AT_LEVEL(ctc_gradient)(const CtcInputs<float>& in, const CtcGradients<float>& grads, int64_t sentence,
                                   int64_t t) {
  const int64_t frame = sentence * in.times + t;
  const int64_t offset = t * in.frame_stride + sentence * in.sentence_stride;
  float* to = grads.grad + offset;
  const bool infinite = grads.losses[sentence] == __builtin_inff();
  if (t >= in.input_lengths[sentence] || infinite) {
    const bool counts = t < in.input_lengths[sentence] && !grads.zero_infinity;
    const Vec fill = splat(counts ? __builtin_nanf("") : 0.0f);
    for (int64_t c = 0; c < in.classes; c += kLanes) store_some(to + c, fill, lanes_left(in.classes - c));
    return;
  }
  const float* row = in.frames + offset;
  const float slope = grads.grad_losses[sentence];
  const Vec slopes = splat(slope), normalizer = splat(grads.normalizers ? grads.normalizers[frame] : 0.0f);
  int64_t c = 0;
  for (; c + 2 * kLanes <= in.classes; c += 2 * kLanes) {
    for (int64_t line = c + kRowsAhead; line < c + kRowsAhead + 2 * kLanes; line += kLine) {
      __builtin_prefetch(row + line);
      __builtin_prefetch(to + line, 1);
    }
    const Vec one = slopes * exp(load(row + c) - normalizer);
    const Vec two = slopes * exp(load(row + c + kLanes) - normalizer);
    store(to + c, one);
    store(to + c + kLanes, two);
  }
  for (; c < in.classes; c += kLanes) {
    const int count = lanes_left(in.classes - c);
    store_some(to + c, slopes * exp(load_some(row + c, count) - normalizer), count);
  }
  const float* occupancy = grads.occupancy + frame * slots_of(in.times, in.width);
  const int64_t* labels = in.targets + sentence * in.width;
  to[in.blank] -= slope * occupancy[0];
  for (int64_t i = 0; i < in.target_lengths[sentence]; ++i) to[labels[i]] -= slope * occupancy[1 + i];
}

// Scratch: `lanes` is L + 1 in whole vectors. Indices, a mask, the two rows of scores, and for each frame a byte a
// lane: which way its label came, 0 to 2 as in ctc.h, and 4 where its blank came from the label before.
void SEQKIT_AT_LEVEL(ctc_align)(const CtcInputs<float>& in, const CtcAlignment<float>& out, int64_t sentence,
                                float* scratch) {
  typedef uint8_t Bytes __attribute__((vector_size(kLanes)));
  const int64_t times = in.input_lengths[sentence], length = in.target_lengths[sentence];
  const int64_t lanes = (length + kLanes) / kLanes * kLanes;
  const int64_t* targets = in.targets + sentence * in.width;
  int64_t* labels = out.labels + sentence * in.times;
  for (int64_t t = 0; t < in.times; ++t) labels[t] = -1;
  out.scores[sentence] = -__builtin_inff();
  if (length > times) return;
  float *indices = scratch, *may_skip = indices + lanes, *blanks = may_skip + lanes, *ends = blanks + lanes;
  uint8_t* ways = reinterpret_cast<uint8_t*>(ends + lanes);
  for (int64_t i = 0; i < lanes; ++i) {
    store_int(indices + i, i < length ? int32_t(targets[i]) : -1);
    store_int(may_skip + i, i > 0 && i < length && targets[i] != targets[i - 1] ? -1 : 0);
    blanks[i] = i ? -__builtin_inff() : 0.0f;
    ends[i] = -__builtin_inff();
  }

  const float* frame = in.frames + sentence * in.sentence_stride;
  for (int64_t t = 0; t < times; ++t, frame += in.frame_stride) {
    if (t + kAhead < times) prefetch(frame + kAhead * in.frame_stride, targets, length, in.classes);
    const Vec y_blank = splat(frame[in.blank]), none = splat(-__builtin_inff());
    Vec below = none;
    for (int64_t v = 0; v < lanes; v += kLanes) {
      const Vec blank = load(blanks + v), label = load(ends + v), previous = moved_up(label, below);
      below = label;
      const VecInt from_label = previous > blank, step = blank > label;
      const Vec stepped = step ? blank : label, skipping = load_ints(may_skip + v) ? previous : none;
      const VecInt skip = skipping > stepped;
      store(blanks + v, (from_label ? previous : blank) + y_blank);
      store(ends + v, (skip ? skipping : stepped) + gathered(frame, load_ints(indices + v)));
      const VecInt way = (from_label & 4) | (skip ? VecInt{} + 2 : step & 1);
      const Bytes bytes = __builtin_convertvector(way, Bytes);
      std::memcpy(ways + t * lanes + v, &bytes, sizeof bytes);
    }
  }

  bool on_label = length > 0 && ends[length - 1] > blanks[length];
  int64_t i = on_label ? length - 1 : length;
  out.scores[sentence] = on_label ? ends[i] : blanks[i];
  if (out.scores[sentence] == -__builtin_inff()) return;
  for (int64_t t = times - 1; t >= 0; --t) {
    labels[t] = on_label ? targets[i] : in.blank;
    const uint8_t way = ways[t * lanes + i];
    if (on_label) {
      on_label = (way & 3) != 1;
      i -= (way & 3) == 2;
    } else if (way & 4) {
      on_label = true;
      i -= 1;
    }
  }
}

}  // namespace seqkit
