// Vectors of the width this file is compiled for, and the functions that kernels share.
//
// Everything has internal linkage and is inlined, so that no code of one machine level can reach another (device.h).
// Contraction is off in the whole build: a multiply-add is fused where `fma` is written and nowhere else. Together with
// tails that run the same vector code as full vectors, a result never depends on where in a row it was computed.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/device.h"
#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

#define SEQKIT_INLINE inline __attribute__((always_inline))

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t VecInt __attribute__((vector_size(kLanes * sizeof(float))));

// Written for the machine where it can be: `Vec{} + value` adds, since 0 + -0 is 0, and broadcasts from a register, not
// from memory, which halves the speed of a matrix product.
SEQKIT_INLINE Vec splat(float value) {
#if defined(__AVX512F__)
  return (Vec)_mm512_set1_ps(value);
#elif defined(__AVX2__)
  return (Vec)_mm256_set1_ps(value);
#else
  return Vec{value, value, value, value};
#endif
}

SEQKIT_INLINE Vec load(const float* from) {
  Vec value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

SEQKIT_INLINE void store(float* to, Vec value) { std::memcpy(to, &value, sizeof value); }

// The first `count` lanes; the others are zero and untouched in memory.
SEQKIT_INLINE Vec load_part(const float* from, int count) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
#else
  Vec value{};
  for (int lane = 0; lane < count; ++lane) value[lane] = from[lane];
  return value;
#endif
}

SEQKIT_INLINE void store_part(float* to, Vec value, int count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)value);
#else
  for (int lane = 0; lane < count; ++lane) to[lane] = value[lane];
#endif
}

// A whole vector, or its first `count` lanes at the end of a row.
SEQKIT_INLINE Vec load_some(const float* from, int count) {
  return count == kLanes ? load(from) : load_part(from, count);
}

SEQKIT_INLINE void store_some(float* to, Vec value, int count) {
  if (count == kLanes) {
    store(to, value);
  } else {
    store_part(to, value, count);
  }
}

// ---- 16-bit numbers in memory, floats in registers; rounded to nearest, ties to even ----

typedef uint16_t VecBits __attribute__((vector_size(kLanes * sizeof(uint16_t))));

SEQKIT_INLINE Vec widen(VecBits bits, const seqkit::Bfloat16*) {
  const VecInt wide = __builtin_convertvector(bits, VecInt) << 16;
  Vec value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

SEQKIT_INLINE VecBits narrow(Vec value, const seqkit::Bfloat16*) {
  typedef uint32_t VecWide __attribute__((vector_size(kLanes * sizeof(uint32_t))));
  VecWide wide;
  std::memcpy(&wide, &value, sizeof wide);
  const VecWide rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
  const VecWide quiet = (wide >> 16) | 0x40;
  return __builtin_convertvector((VecWide)(value == value) ? rounded : quiet, VecBits);
}

SEQKIT_INLINE Vec widen(VecBits bits, const seqkit::Half*) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtph_ps((__m256i)bits);
#elif defined(__AVX2__)
  return (Vec)_mm256_cvtph_ps((__m128i)bits);
#else
  // A normal number keeps its mantissa and gets the other bias; a subnormal one is a multiple of 2^-24.
  const VecInt wide = __builtin_convertvector(bits, VecInt);
  const VecInt sign = (wide & 0x8000) << 16, magnitude_bits = wide & 0x7fff;
  const Vec small = __builtin_convertvector(magnitude_bits, Vec) * splat(0x1p-24f);
  VecInt small_bits;
  std::memcpy(&small_bits, &small, sizeof small_bits);
  const VecInt normal =
      (magnitude_bits << 13) + (magnitude_bits >= 0x7c00 ? VecInt{} + 0x70000000 : VecInt{} + 0x38000000);
  const VecInt result = sign | (magnitude_bits < 0x400 ? small_bits : normal);
  Vec value;
  std::memcpy(&value, &result, sizeof value);
  return value;
#endif
}

SEQKIT_INLINE VecBits narrow(Vec value, const seqkit::Half*) {
#if defined(__AVX512F__)
  return (VecBits)_mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__AVX2__)
  return (VecBits)_mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
#else
  // Below 2^-14 the last place is 2^-24: adding 1/2 leaves it in the lowest bits. Above, the mantissa is rounded in
  // place.
  VecInt bits;
  std::memcpy(&bits, &value, sizeof bits);
  const VecInt sign = (bits >> 16) & 0x8000, size = bits & 0x7fffffff;
  Vec positive;
  std::memcpy(&positive, &size, sizeof positive);
  const Vec shifted = positive + splat(0.5f);
  VecInt small;
  std::memcpy(&small, &shifted, sizeof small);
  small = small - 0x3f000000;
  const VecInt normal = (size - 0x38000000 + 0xfff + ((size >> 13) & 1)) >> 13;
  const VecInt nan_or_infinity = size > 0x7f800000 ? VecInt{} + 0x7e00 : VecInt{} + 0x7c00;
  VecInt result = size < 0x38800000 ? small : normal;
  result = size >= 0x47800000 ? nan_or_infinity : result;
  return __builtin_convertvector(sign | result, VecBits);
#endif
}

template <typename Number>
SEQKIT_INLINE Vec load_some(const Number* from, int count) {
  VecBits bits{};
  if (count == kLanes) {
    std::memcpy(&bits, from, sizeof bits);
  } else {
    for (int lane = 0; lane < count; ++lane) bits[lane] = from[lane].bits;
  }
  return widen(bits, from);
}

template <typename Number>
SEQKIT_INLINE void store_some(Number* to, Vec value, int count) {
  const VecBits bits = narrow(value, to);
  if (count == kLanes) {
    std::memcpy(to, &bits, sizeof bits);
  } else {
    for (int lane = 0; lane < count; ++lane) to[lane].bits = bits[lane];
  }
}

// Whole vectors on their own alignment that go to memory past the caches; finish_streams() before another thread reads.
SEQKIT_INLINE void stream(float* to, Vec value) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, (__m512)value);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, (__m256)value);
#else
  store(to, value);
#endif
}

template <typename Number>
SEQKIT_INLINE void stream(Number* to, Vec value) {
  const VecBits bits = narrow(value, to);
#if defined(__AVX512F__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)bits);
#elif defined(__AVX2__)
  _mm_stream_si128(reinterpret_cast<__m128i*>(to), (__m128i)bits);
#else
  std::memcpy(to, &bits, sizeof bits);
#endif
}

SEQKIT_INLINE void finish_streams() {
#if defined(__AVX2__)
  _mm_sfence();
#endif
}

// a * b + c, rounded once where the machine can.
SEQKIT_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// Folds the lanes by halves, quarters and so on, always in this order: lane i meets lane i + half.
typedef float FourFloats __attribute__((vector_size(16)));
template <typename Fold>
SEQKIT_INLINE float fold_lanes(Vec value, const Fold& meet) {
#if defined(__AVX512F__)
  typedef float EightFloats __attribute__((vector_size(32)));
  const EightFloats eight =
      meet((EightFloats)_mm512_castps512_ps256((__m512)value), (EightFloats)_mm512_extractf32x8_ps((__m512)value, 1));
  const FourFloats four =
      meet((FourFloats)_mm256_castps256_ps128((__m256)eight), (FourFloats)_mm256_extractf128_ps((__m256)eight, 1));
#elif defined(__AVX2__)
  const FourFloats four =
      meet((FourFloats)_mm256_castps256_ps128((__m256)value), (FourFloats)_mm256_extractf128_ps((__m256)value, 1));
#else
  const FourFloats four = value;
#endif
  return meet(meet(four[0], four[2]), meet(four[1], four[3]));
}

SEQKIT_INLINE float sum(Vec value) {
  return fold_lanes(value, [](auto a, auto b) { return a + b; });
}

// NaN is passed over where it can be: b where a is NaN.
SEQKIT_INLINE float largest_lane(Vec value) {
  return fold_lanes(value, [](auto a, auto b) { return a > b ? a : b; });
}

// exp(x) to 2 units in the last place; 0 below -87.3, infinity above 88.7, NaN stays NaN.
// exp(x) = 2^n exp(r) with n = round(x / ln 2) and a polynomial in r (Cephes expf, S. Moshier).
SEQKIT_INLINE Vec exp(Vec x) {
  // A comparison with NaN is false, and the machine's minimum gives the second of two then: NaN passes.
  const Vec low = splat(-87.33f);
#if defined(__AVX512F__)
  const Vec clamped = (Vec)_mm512_min_ps((__m512)splat(89.0f), (__m512)x);  // beyond it the power of two is infinity
#else
  const Vec high = splat(88.72f);
  Vec clamped = x < low ? low : x;
  clamped = clamped > high ? high : clamped;
#endif
  const Vec rounder = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  Vec n = fma(clamped, splat(1.44269504f), rounder) - rounder;
#if !defined(__AVX512F__)
  n = n > splat(127.0f) ? splat(127.0f) : n;
#endif
  Vec r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  const Vec mantissa = fma(p, r * r, r) + splat(1.0f);
#if defined(__AVX512F__)
  // Lanes below are left out, not underflowed: a subnormal result costs the machine hundreds of cycles.
  const __mmask16 inside = _mm512_cmp_ps_mask((__m512)x, (__m512)low, _CMP_NLT_UQ);
  return (Vec)_mm512_maskz_scalef_ps(inside, (__m512)mantissa, (__m512)n);
#else
  const VecInt bits = (__builtin_convertvector(n, VecInt) + 127) << 23;
  Vec power;
  std::memcpy(&power, &bits, sizeof power);
  const Vec result = mantissa * power;
  const Vec above = x > high ? splat(__builtin_inff()) : result;
  return x < low ? splat(0.0f) : above;
#endif
}

SEQKIT_INLINE Vec magnitude(Vec x) { return x < splat(0.0f) ? -x : x; }

SEQKIT_INLINE Vec sigmoid(Vec x) { return splat(1.0f) / (splat(1.0f) + exp(-x)); }

// Odd polynomial near zero, 1 - 2 / (exp(2|x|) + 1) elsewhere (Cephes tanhf).
SEQKIT_INLINE Vec tanh(Vec x) {
  const Vec size = magnitude(x), square = x * x;
  Vec p = splat(-5.70498872745e-3f);
  p = fma(p, square, splat(2.06390887954e-2f));
  p = fma(p, square, splat(-5.37397155531e-2f));
  p = fma(p, square, splat(1.33314422036e-1f));
  p = fma(p, square, splat(-3.33332819422e-1f));
  const Vec near = fma(p * square, x, x);
  const Vec positive = splat(1.0f) - splat(2.0f) / (exp(size + size) + splat(1.0f));
  const Vec far = x < splat(0.0f) ? -positive : positive;
  return size < splat(0.625f) ? near : far;
}

// x Phi(x) with Phi the normal distribution function: the exact GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415).
// Phi comes from erf near zero and from erfc in the tails, which keeps small results relatively exact (Cephes erff).
SEQKIT_INLINE Vec gelu(Vec x) {
  const Vec z = magnitude(x) * splat(0.70710678118f), square = z * z;
  Vec p = splat(7.853861353153693e-5f);
  p = fma(p, square, splat(-8.010193625184903e-4f));
  p = fma(p, square, splat(5.188327685732524e-3f));
  p = fma(p, square, splat(-2.685381193529856e-2f));
  p = fma(p, square, splat(1.128358514861418e-1f));
  p = fma(p, square, splat(-3.761262582423300e-1f));
  p = fma(p, square, splat(1.128379165726710f));
  const Vec erf = p * z;

  const Vec inverse = splat(1.0f) / (z < splat(1.0f) ? splat(1.0f) : z), y = inverse * inverse;
  Vec middle = splat(2.326819970068386e-2f);
  middle = fma(middle, y, splat(-1.387039388740657e-1f));
  middle = fma(middle, y, splat(3.687424674597105e-1f));
  middle = fma(middle, y, splat(-5.824733027278666e-1f));
  middle = fma(middle, y, splat(6.210004621745983e-1f));
  middle = fma(middle, y, splat(-4.944515323274145e-1f));
  middle = fma(middle, y, splat(3.404879937665872e-1f));
  middle = fma(middle, y, splat(-2.741127028184656e-1f));
  middle = fma(middle, y, splat(5.638259427386472e-1f));
  Vec outer = splat(-1.047766399936249e+1f);
  outer = fma(outer, y, splat(1.297719955372516e+1f));
  outer = fma(outer, y, splat(-7.495518717768503f));
  outer = fma(outer, y, splat(2.921019019210786f));
  outer = fma(outer, y, splat(-1.015265279202700f));
  outer = fma(outer, y, splat(4.218463358204948e-1f));
  outer = fma(outer, y, splat(-2.820767439740514e-1f));
  outer = fma(outer, y, splat(5.641895067754075e-1f));
  const Vec erfc = exp(-square) * inverse * (z < splat(2.0f) ? middle : outer);

  const Vec tail = splat(0.5f) * (z < splat(1.0f) ? splat(1.0f) - erf : erfc);  // Phi(-|x|)
  const Vec phi = x < splat(0.0f) ? tail : splat(1.0f) - tail;
  const Vec vanished = x < splat(-30.0f) ? splat(0.0f) : x;  // -inf * 0 would be NaN
  return vanished * phi;
}

}  // namespace
