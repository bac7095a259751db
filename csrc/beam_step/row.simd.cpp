// The sweeps over a row of logits, once per machine level.
#include "beam_step/beam_step.h"
#include "common/device.h"
#include "common/numerics.h"

namespace {

using seqkit::kBeamBlock;

constexpr float kInfinity = __builtin_inff();
constexpr float kLargest = 3.402823466e38f;
constexpr float kFar = 1e5f;  // logits beyond this are not multiplied: the product is rounded by more than 1/256
constexpr int kVectors = kBeamBlock / kLanes;
constexpr int kChains = 4;       // independent sums, to hide the latency of an addition
constexpr int64_t kAhead = 512;  // numbers that are fetched before they are needed, beyond the end of a page

// b where a is NaN. The compiler makes two instructions of the comparison.
SEQKIT_INLINE Vec maximum(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

// +inf becomes the largest float; NaN passes.
SEQKIT_INLINE Vec bounded(Vec x) { return x > splat(kLargest) ? splat(kLargest) : x; }

// A constant that stays in a register: as an operand in memory it would be loaded for every vector.
SEQKIT_INLINE Vec in_register(float value) {
  Vec constant = splat(value);
#if defined(__AVX512F__)
  asm("" : "+v"(constant));
#endif
  return constant;
}

// A bit for each lane where the comparison holds.
SEQKIT_INLINE uint32_t lanes_where(VecInt holds) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)holds);
#elif defined(__AVX2__)
  return uint32_t(_mm256_movemask_ps((__m256)holds));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= uint32_t(holds[lane] & 1) << lane;
  return bits;
#endif
}

constexpr float kLog2E = 1.44269504f;
#if defined(__FMA__)
constexpr bool kFused = true;  // fma rounds once
#else
constexpr bool kFused = false;
#endif

// 2^t for t <= 100, to 2 units in the last place; below 2^-125, and for NaN, some number below 1e-37, which no sum that
// holds a 1 can see. Two thirds of the instructions of numerics.h's exp, which has to be right for every argument.
SEQKIT_INLINE Vec power_of_two(Vec t) {
  t = maximum(t, in_register(-125.0f));
#if defined(__AVX512F__)
  // The machine cuts off the whole part and puts it back. The polynomial has the least maximum of the relative error
  // over [0, 1), 7.5e-8.
  const Vec r = (Vec)_mm512_reduce_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Vec p = in_register(1.877576766e-3f);
  p = fma(p, r, in_register(8.989339877e-3f));
  p = fma(p, r, in_register(5.582631823e-2f));
  p = fma(p, r, in_register(2.401536170e-1f));
  p = fma(p, r, in_register(6.931530732e-1f));
  p = fma(p, r, in_register(0.9999999251f));
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)t);
#else
  const Vec rounder = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves the integer in the lowest bits
  const Vec rounded = t + rounder, r = t - (rounded - rounder);
  // 1 at 0, and the least maximum of the relative error over [-1/2, 1/2], 9e-8.
  Vec p = splat(1.326472716e-3f);
  p = fma(p, r, splat(9.671512642e-3f));
  p = fma(p, r, splat(5.550733743e-2f));
  p = fma(p, r, splat(2.402224209e-1f));
  p = fma(p, r, splat(6.931469776e-1f));
  p = fma(p, r, splat(1.0f));
  VecInt exponent, bits;
  std::memcpy(&exponent, &rounded, sizeof exponent);
  std::memcpy(&bits, &p, sizeof bits);
  bits = bits + (exponent << 23);
  std::memcpy(&p, &bits, sizeof p);
  return p;
#endif
}

// log(x) for 1 <= x < 2^24, to 2 units in the last place (Cephes logf, S. Moshier).
SEQKIT_INLINE Vec log_above_one(Vec x) {
  VecInt bits;
  std::memcpy(&bits, &x, sizeof bits);
  // Mantissa in [sqrt(1/2), sqrt(2)).
  const VecInt shifted = bits - 0x3f3504f3;
  const VecInt exponent = shifted >> 23;
  const VecInt mantissa_bits = (shifted & 0x7fffff) + 0x3f3504f3;
  Vec m;
  std::memcpy(&m, &mantissa_bits, sizeof m);
  const Vec e = __builtin_convertvector(exponent, Vec), r = m - splat(1.0f), square = r * r;
  Vec p = splat(7.0376836292e-2f);
  p = fma(p, r, splat(-1.1514610310e-1f));
  p = fma(p, r, splat(1.1676998740e-1f));
  p = fma(p, r, splat(-1.2420140846e-1f));
  p = fma(p, r, splat(1.4249322787e-1f));
  p = fma(p, r, splat(-1.6668057665e-1f));
  p = fma(p, r, splat(2.0000714765e-1f));
  p = fma(p, r, splat(-2.4999993993e-1f));
  p = fma(p, r, splat(3.3333331174e-1f));
  Vec y = fma(e, splat(-2.12194440e-4f), p * r * square);
  y = fma(square, splat(-0.5f), y);
  return fma(e, splat(0.693359375f), r + y);
}

// One block of a row, padded with -inf when it is the last and short.
struct Block {
  float padded[kBeamBlock];
  const float* at(const float* row, int64_t begin, int64_t size) {
    if (begin + kBeamBlock <= size) return row + begin;
    for (int64_t i = 0; i < kBeamBlock; ++i) padded[i] = begin + i < size ? row[begin + i] : -kInfinity;
    return padded;
  }
};

}  // namespace

namespace seqkit {

// The maximum of each block and of the row, and the sum of exp(x - maximum), which is at least 1 unless all are -inf.
//
// The sums are of 2^(x log2(e) - shift), one fused instruction and a power of two, where shift is top log2(e) rounded;
// the end makes up for that rounding.
void SEQKIT_AT_LEVEL(beam_row_sweep)(const float* row, int64_t size, float* block_max, float* row_max, float* row_sum) {
  Block block;
  float top = -kInfinity;
  double shift = -kInfinity;
  bool far = false;  // multiply what is left of the top, not the logit
  Vec sums[kChains] = {};
  const Vec log2_e = in_register(kLog2E);
  for (int64_t begin = 0; begin < size; begin += kBeamBlock) {
    const float* x = block.at(row, begin, size);
    for (int64_t ahead = 0; ahead < kBeamBlock; ahead += 16) __builtin_prefetch(x + kAhead + ahead);
    Vec maxima[kChains];
    for (int chain = 0; chain < kChains; ++chain) maxima[chain] = splat(-kInfinity);
    for (int v = 0; v < kVectors; v += kChains) {
      for (int chain = 0; chain < kChains; ++chain) {
        maxima[chain] = maximum(load(x + (v + chain) * kLanes), maxima[chain]);
      }
    }
    const float whole = largest_lane(maximum(maximum(maxima[0], maxima[1]), maximum(maxima[2], maxima[3])));
    const float here = whole > kLargest ? kLargest : whole;
    block_max[begin / kBeamBlock] = here;
    if (here == -kInfinity) continue;
    if (here > top) {
      const double before = shift;
      top = here;
      far = !kFused || !(__builtin_fabsf(top) < kFar);
      shift = far ? double(top) * kLog2E : double(top * kLog2E);
      const Vec factor = splat(float(__builtin_exp2(before - shift)));
      for (int chain = 0; chain < kChains; ++chain) sums[chain] = sums[chain] * factor;
    }
    const Vec highest = splat(top), minus_shift = splat(far ? 0.0f : float(-shift));
    for (int v = 0; v < kVectors; v += kChains) {
      for (int chain = 0; chain < kChains; ++chain) {
        const Vec value = load(x + (v + chain) * kLanes);
        const Vec power = far ? (bounded(value) - highest) * log2_e : fma(value, log2_e, minus_shift);
        sums[chain] = sums[chain] + power_of_two(power);
      }
    }
  }
  *row_max = top;
  *row_sum = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  if (top > -kInfinity) *row_sum *= float(__builtin_exp2(shift - double(top) * kLog2E));
}

// The places of the numbers that are at least `floor`, in order; NaN is not. `floor` is finite.
void SEQKIT_AT_LEVEL(beam_at_least)(const float* x, int64_t size, float floor, int32_t* places, int64_t* count) {
  int64_t n = 0;
  for (int64_t begin = 0; begin < size; begin += kLanes) {
    const int64_t left = size - begin;
    const Vec value = left < kLanes ? load_part(x + begin, int(left)) : load(x + begin);
    uint32_t found = lanes_where(value >= splat(floor));
    if (left < kLanes) found &= (1u << left) - 1;
    for (; found != 0; found &= found - 1) places[n++] = int32_t(begin) + __builtin_ctz(found);
  }
  *count = n;
}

// out[v] = log(mean over models of exp(logits[model][v] - shift[model])); shift is the log-sum-exp of that model's row.
void SEQKIT_AT_LEVEL(beam_mean_sweep)(const float* const* logits, const float* tops, const float* log_sums,
                                      int64_t n_models, int64_t size, float log_models, float* out) {
  for (int64_t begin = 0; begin < size; begin += kLanes) {
    const int64_t left = size - begin;
    const int count = left < kLanes ? int(left) : kLanes;
    Vec best = splat(-kInfinity);
    Vec total{};
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t model = 0; model < n_models; ++model) {
        const float* from = logits[model] + begin;
        const Vec x = bounded(count == kLanes ? load(from) : load_part(from, count));
        const Vec logp = (x - splat(tops[model])) - splat(log_sums[model]);
        if (pass == 0) {
          best = maximum(logp, best);
        } else {
          total = total + power_of_two((logp - best) * splat(kLog2E));
        }
      }
    }
    // Where no model gives a probability, best is -inf, logp - best is NaN and total is next to nothing.
    const Vec safe = maximum(total, splat(1.0f));
    const Vec mean = (best + log_above_one(safe)) - splat(log_models);
    if (count == kLanes) {
      store(out + begin, mean);
    } else {
      store_part(out + begin, mean, count);
    }
  }
}

}  // namespace seqkit
