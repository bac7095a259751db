// The sweeps over a row of logits, once per machine level.
#include "beam_step/beam_step.h"
#include "common/device.h"
#include "common/numerics.h"

namespace {

using seqkit::kBeamBlock;

constexpr float kInfinity = __builtin_inff();
constexpr float kLargest = 3.402823466e38f;
constexpr int kVectors = kBeamBlock / kLanes;
constexpr int kChains = 4;        // independent sums, to hide the latency of an addition
constexpr int64_t kAhead = 1024;  // numbers that are fetched before they are needed, beyond the end of a page

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

// exp(d) for -86 <= d <= 0, to 2 units in the last place: a third fewer instructions than numerics.h's exp, which has
// to be right for every argument.
SEQKIT_INLINE Vec exp_of_negative(Vec d) {
#if defined(__AVX512F__)
  const Vec log2_e = in_register(1.44269504f);
  // 2^n times a polynomial in the rest: the machine rounds and scales. The polynomial is 1 at 0 and has the least
  // maximum of the relative error over [-1/2, 1/2], 9e-8.
  const Vec n = (Vec)_mm512_roundscale_ps((__m512)(d * log2_e), _MM_FROUND_TO_NEAREST_INT);
  const Vec r = fma(d, log2_e, -n);
  Vec p = in_register(1.326472716e-3f);
  p = fma(p, r, in_register(9.671512642e-3f));
  p = fma(p, r, in_register(5.550733743e-2f));
  p = fma(p, r, in_register(2.402224209e-1f));
  p = fma(p, r, in_register(6.931469776e-1f));
  p = fma(p, r, in_register(1.0f));
  return (Vec)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  const Vec rounder = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves the integer in the lowest bits
  const Vec rounded = fma(d, splat(1.44269504f), rounder), n = rounded - rounder;
  Vec r = fma(n, splat(-0.693359375f), d);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(fma(p, r, splat(1.0f)), r, splat(1.0f));
  VecInt exponent, bits;
  std::memcpy(&exponent, &rounded, sizeof exponent);
  std::memcpy(&bits, &p, sizeof bits);
  bits = bits + (exponent << 23);
  std::memcpy(&p, &bits, sizeof p);
  return p;
#endif
}

// exp(x - shift) for finite x <= shift; below exp(-86), and for NaN, some number below 1e-37, which no sum that holds a
// 1 can see.
SEQKIT_INLINE Vec share(Vec x, Vec shift) { return exp_of_negative(maximum(x - shift, splat(-86.0f))); }

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
  // A copy in which +inf is the largest float.
  const float* bounded(const float* x) {
    for (int64_t i = 0; i < kBeamBlock; ++i) padded[i] = x[i] > kLargest ? kLargest : x[i];
    return padded;
  }
};

}  // namespace

namespace seqkit {

// The maximum of each block and of the row, and the sum of exp(x - maximum), which is at least 1 unless all are -inf.
void SEQKIT_AT_LEVEL(beam_row_sweep)(const float* row, int64_t size, float* block_max, float* row_max, float* row_sum) {
  Block block;
  float top = -kInfinity;
  Vec sums[kChains] = {};
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
    if (whole == -kInfinity) {
      block_max[begin / kBeamBlock] = whole;
      continue;
    }
    if (whole > kLargest) x = block.bounded(x);
    const float here = whole > kLargest ? kLargest : whole;
    block_max[begin / kBeamBlock] = here;
    if (here > top) {
      const Vec factor = share(splat(top), splat(here));
      for (int chain = 0; chain < kChains; ++chain) sums[chain] = sums[chain] * factor;
      top = here;
    }
    const Vec shift = splat(top);
    for (int v = 0; v < kVectors; v += kChains) {
      for (int chain = 0; chain < kChains; ++chain) {
        sums[chain] = sums[chain] + share(load(x + (v + chain) * kLanes), shift);
      }
    }
  }
  *row_max = top;
  *row_sum = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
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
          total = total + share(logp, best);
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
