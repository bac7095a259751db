// The windows of window.h, once per machine level.
#include "embedding/window.h"

#include "common/device.h"
#include "common/numerics.h"

namespace {

using seqkit::embedding::LossSum;
using seqkit::embedding::Window;

#if defined(__AVX512F__)
constexpr int kBlock = 8;     // outputs in registers at once
constexpr int kTileRows = 3;  // 24 sums of 32 registers
#else
constexpr int kBlock = 4;
constexpr int kTileRows = 2;  // 8 of 16
#endif
static_assert(seqkit::embedding::kBlockOutputs % kBlock == 0);

// The sums of kLanes vectors, in order, as one vector.
#if defined(__AVX512F__)
SEQKIT_INLINE __m512 add_pairs(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

SEQKIT_INLINE __m512 add_quads(Vec a, Vec b, Vec c, Vec d) {
  const __m512d x = _mm512_castps_pd(add_pairs((__m512)a, (__m512)b));
  const __m512d y = _mm512_castps_pd(add_pairs((__m512)c, (__m512)d));
  return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}

SEQKIT_INLINE __m512 add_halves(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
}

SEQKIT_INLINE Vec sums_of(const Vec* v) {
  const __m512 a = add_quads(v[0], v[1], v[2], v[3]), b = add_quads(v[4], v[5], v[6], v[7]);
  const __m512 c = add_quads(v[8], v[9], v[10], v[11]), d = add_quads(v[12], v[13], v[14], v[15]);
  return (Vec)add_halves(add_halves(a, b), add_halves(c, d));
}
#elif defined(__AVX2__)
SEQKIT_INLINE Vec sums_of(const Vec* v) {
  __m256 quads[2];
  for (int i = 0; i < 2; ++i) {
    const __m256 x = _mm256_hadd_ps((__m256)v[4 * i], (__m256)v[4 * i + 1]);
    const __m256 y = _mm256_hadd_ps((__m256)v[4 * i + 2], (__m256)v[4 * i + 3]);
    quads[i] = _mm256_hadd_ps(x, y);
  }
  return (Vec)_mm256_add_ps(_mm256_permute2f128_ps(quads[0], quads[1], 0x20),
                            _mm256_permute2f128_ps(quads[0], quads[1], 0x31));
}
#else
SEQKIT_INLINE Vec sums_of(const Vec* v) {
  Vec sums;
  for (int i = 0; i < kLanes; ++i) sums[i] = (v[i][0] + v[i][2]) + (v[i][1] + v[i][3]);
  return sums;
}
#endif

// to[n] = the sum of vector n; writes whole vectors.
template <int kCount>
SEQKIT_INLINE void store_sums(const Vec* sums, float* to) {
  constexpr int kWhole = (kCount + kLanes - 1) / kLanes * kLanes;
  Vec padded[kWhole];
#pragma GCC unroll 32
  for (int i = 0; i < kWhole; ++i) padded[i] = i < kCount ? sums[i] : Vec{};
#pragma GCC unroll 8
  for (int i = 0; i < kWhole; i += kLanes) store(to + i, sums_of(padded + i));
}

// The scores of kRows inputs with kOut outputs, row by row.
template <int kRows, int kOut>
SEQKIT_INLINE void score_tile(const float* const* in, const float* const* out, int64_t width, float* to) {
  Vec sums[kRows * kOut] = {};
#pragma GCC unroll 1
  for (int64_t at = 0; at < width; at += kLanes) {
    Vec q[kOut];
#pragma GCC unroll 8
    for (int k = 0; k < kOut; ++k) q[k] = load(out[k] + at);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Vec x = load(in[r] + at);
#pragma GCC unroll 8
      for (int k = 0; k < kOut; ++k) sums[r * kOut + k] = fma(x, q[k], sums[r * kOut + k]);
    }
  }
  store_sums<kRows * kOut>(sums, to);
}

template <int kOut>
void score_block(const float* const* in, int64_t n_in, const float* const* out, int64_t width, float* grid) {
  int64_t r = 0;
  for (; r + kTileRows <= n_in; r += kTileRows) score_tile<kTileRows, kOut>(in + r, out, width, grid + r * kOut);
  if (n_in - r == 2) score_tile<2, kOut>(in + r, out, width, grid + r * kOut);
  if (n_in - r == 1) score_tile<1, kOut>(in + r, out, width, grid + r * kOut);
}

// in_r += sum of g out_k and out_k += sum of g x_r. `before` are the input rows as they were, one after the other;
// where there is one block only, they are the rows themselves.
template <int kOut, bool kOneBlock>
void move_block(float* const* in, const float* before, int64_t n_in, float* const* out, int64_t width,
                const float* grid) {
#pragma GCC unroll 1
  for (int64_t at = 0; at < width; at += kLanes) {
    Vec q[kOut], step[kOut] = {};
#pragma GCC unroll 8
    for (int k = 0; k < kOut; ++k) q[k] = load(out[k] + at);
    for (int64_t r = 0; r < n_in; ++r) {
      const float* g = grid + r * kOut;
      const Vec x = load((kOneBlock ? in[r] : before + r * width) + at);
      Vec even = kOneBlock ? x : load(in[r] + at), odd{};  // two chains: the sum waits for half as long
#pragma GCC unroll 8
      for (int k = 0; k < kOut; ++k) {
        const Vec factor = splat(g[k]);
        step[k] = fma(factor, x, step[k]);
        Vec& sum = k % 2 ? odd : even;
        sum = fma(factor, q[k], sum);
      }
      store(in[r] + at, even + odd);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kOut; ++k) store(out[k] + at, q[k] + step[k]);
  }
}

// 1 / x for x from 1 to 2^127.
SEQKIT_INLINE Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  const Vec guess = (Vec)_mm512_rcp14_ps((__m512)x);
  return guess * fma(-x, guess, splat(2.0f));
#else
  return splat(1.0f) / x;
#endif
}

// The weights of lanes that repeat every kOut.
template <int kOut>
SEQKIT_INLINE Vec repeat(const float* weight, int phase) {
#if defined(__AVX512F__)
  static const int32_t kIndex[16] = {0 % kOut,  1 % kOut,  2 % kOut,  3 % kOut, 4 % kOut,  5 % kOut,
                                     6 % kOut,  7 % kOut,  8 % kOut,  9 % kOut, 10 % kOut, 11 % kOut,
                                     12 % kOut, 13 % kOut, 14 % kOut, 15 % kOut};
  __m512i index = _mm512_add_epi32(_mm512_loadu_si512(kIndex), _mm512_set1_epi32(phase));
  const __mmask16 over = _mm512_cmpge_epi32_mask(index, _mm512_set1_epi32(kOut));
  index = _mm512_mask_sub_epi32(index, over, index, _mm512_set1_epi32(kOut));
  return (Vec)_mm512_permutexvar_ps(index, (__m512)load(weight));
#else
  Vec lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = weight[(phase + i) % kOut];
  return lanes;
#endif
}

// Turns `count` scores into steps g, and multiplies their probabilities into the loss.
template <int kOut>
void step_block(float* grid, int64_t count, const float* weight, LossSum* loss) {
  VecInt lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  Vec mantissa[2];
  VecInt exponent[2];
  for (int part = 0; part < 2; ++part) {
    mantissa[part] = load(loss->mantissa[part]);
    std::memcpy(&exponent[part], loss->exponent[part], sizeof exponent[part]);
  }
  int phase = 0;
  for (int64_t at = 0; at < count; at += kLanes) {
    const Vec repeated = repeat<kOut>(weight, phase);
    phase = (phase + kLanes) % kOut;
    const VecInt inside = lane < static_cast<int32_t>(count - at < kLanes ? count - at : kLanes);
    VecInt weight_bits;
    std::memcpy(&weight_bits, &repeated, sizeof weight_bits);
    weight_bits &= inside;
    const VecInt sign = weight_bits & static_cast<int32_t>(0x80000000u);
    Vec w, score = load(grid + at);
    std::memcpy(&w, &weight_bits, sizeof w);
    VecInt score_bits;
    std::memcpy(&score_bits, &score, sizeof score_bits);
    score_bits = (score_bits ^ sign) & inside;
    std::memcpy(&score, &score_bits, sizeof score);
    score = score < splat(-80.0f) ? splat(-80.0f) : score;
    const Vec p = reciprocal(splat(1.0f) + exp(-score));
    store(grid + at, (splat(1.0f) - p) * w);
    const Vec one = splat(1.0f), zero = splat(0.0f);
    const Vec factor[2] = {w == zero ? one : p, w > zero ? p : one};
    for (int part = 0; part < 2; ++part) {
      const Vec product = mantissa[part] * factor[part];
      VecInt bits;
      std::memcpy(&bits, &product, sizeof bits);
      exponent[part] += (bits >> 23) - 127;
      bits = (bits & 0x007fffff) | 0x3f800000;
      std::memcpy(&mantissa[part], &bits, sizeof bits);
    }
  }
  for (int part = 0; part < 2; ++part) {
    store(loss->mantissa[part], mantissa[part]);
    std::memcpy(loss->exponent[part], &exponent[part], sizeof exponent[part]);
  }
}

// Calls `call` with the number of outputs as a constant.
#define SEQKIT_SWITCH_OUTPUTS(count, call) \
  switch (count) {                         \
    case 1:                                \
      call(1);                             \
      break;                               \
    case 2:                                \
      call(2);                             \
      break;                               \
    case 3:                                \
      call(3);                             \
      break;                               \
    case 4:                                \
      call(4);                             \
      break;                               \
    case 5:                                \
      call(5);                             \
      break;                               \
    case 6:                                \
      call(6);                             \
      break;                               \
    case 7:                                \
      call(7);                             \
      break;                               \
    default:                               \
      call(8);                             \
  }

SEQKIT_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// All inputs against outputs [first, first + count) for every block: scores, then steps, into the grid.
void score_all(const Window& window, const float* const* in, int64_t n_in, float* grid) {
  for (int64_t first = 0; first < window.n_out; first += kBlock) {
    const int64_t count = least(kBlock, window.n_out - first);
    float* part = grid + n_in * first;
#define SEQKIT_SCORE(kOut)                                                                              \
  score_block<kOut>(in, n_in, const_cast<const float* const*>(window.out + first), window.width, part); \
  step_block<kOut>(part, n_in * kOut, window.weight + first, window.loss)
    SEQKIT_SWITCH_OUTPUTS(count, SEQKIT_SCORE)
  }
}

}  // namespace

namespace seqkit::embedding {

// Every input row is scored with every output row.
void SEQKIT_AT_LEVEL(pair_window)(const Window& window) {
  float* grid = window.scratch;
  const float* const* in = const_cast<const float* const*>(window.in);
  if (window.n_out == kBlock) {
    score_block<kBlock>(in, window.n_in, const_cast<const float* const*>(window.out), window.width, grid);
    step_block<kBlock>(grid, window.n_in * kBlock, window.weight, window.loss);
    move_block<kBlock, true>(window.in, nullptr, window.n_in, window.out, window.width, grid);
    return;
  }
  score_all(window, in, window.n_in, grid);
  // Outputs move by the inputs as they were, so these are copied first.
  float* copies = window.scratch + (window.n_in * window.n_out + 48) / 16 * 16;
  for (int64_t r = 0; r < window.n_in; ++r) {
    for (int64_t at = 0; at < window.width; at += kLanes) store(copies + r * window.width + at, load(in[r] + at));
  }
  for (int64_t first = 0; first < window.n_out; first += kBlock) {
    const int64_t count = least(kBlock, window.n_out - first);
    const float* steps = grid + window.n_in * first;
#define SEQKIT_MOVE(kOut) \
  move_block<kOut, false>(window.in, copies, window.n_in, window.out + first, window.width, steps)
    SEQKIT_SWITCH_OUTPUTS(count, SEQKIT_MOVE)
  }
}

// The mean of the input rows is scored with every output row; each input row moves by the mean's whole step.
void SEQKIT_AT_LEVEL(mean_window)(const Window& window) {
  float* grid = window.scratch;
  float* mean = window.scratch + (window.n_out + 48) / 16 * 16;
  float* moved = mean + window.width;
  const Vec share = splat(1.0f / static_cast<float>(window.n_in));
  for (int64_t at = 0; at < window.width; at += kLanes) {
    Vec even{}, odd{};
    int64_t r = 0;
    for (; r + 1 < window.n_in; r += 2) {
      even = even + load(window.in[r] + at);
      odd = odd + load(window.in[r + 1] + at);
    }
    if (r < window.n_in) even = even + load(window.in[r] + at);
    store(mean + at, (even + odd) * share);
    store(moved + at, Vec{});
  }
  const float* in[1] = {mean};
  float* to[1] = {moved};
  score_all(window, in, 1, grid);
  for (int64_t first = 0; first < window.n_out; first += kBlock) {
    const int64_t count = least(kBlock, window.n_out - first);
    const float* steps = grid + first;
#define SEQKIT_MOVE_MEAN(kOut) move_block<kOut, false>(to, mean, 1, window.out + first, window.width, steps)
    SEQKIT_SWITCH_OUTPUTS(count, SEQKIT_MOVE_MEAN)
  }
  for (int64_t at = 0; at < window.width; at += kLanes) {
    const Vec step = load(moved + at);
    for (int64_t r = 0; r < window.n_in; ++r) store(window.in[r] + at, load(window.in[r] + at) + step);
  }
}

}  // namespace seqkit::embedding
