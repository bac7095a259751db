// One sentence of crf.h in scaled probabilities, once per machine level. Rows of C numbers are padded with zeros to a
// whole number of vectors, and stay zero there.
#include "common/device.h"
#include "common/numerics.h"
#include "crf/crf.h"

namespace {

using seqkit::CrfInputs;
using seqkit::CrfLikelihood;
using seqkit::kCrfPad;

constexpr int kDoubles = kLanes / 2;  // of a vector
constexpr int kVectors = 4;           // of a row that are summed at once
constexpr double kLeast = 1e-200, kMost = 1e250;

typedef double VecDouble __attribute__((vector_size(kDoubles * sizeof(double))));

SEQKIT_INLINE VecDouble load_doubles(const double* from) {
  VecDouble value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

SEQKIT_INLINE void store_doubles(double* to, VecDouble value) { std::memcpy(to, &value, sizeof value); }

SEQKIT_INLINE VecDouble fma(VecDouble a, VecDouble b, VecDouble c) {
#if defined(__AVX512F__)
  return (VecDouble)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__AVX2__)
  return (VecDouble)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// to = x matrix, a row of `count` numbers times [count, padded]; each sum in the order of the rows.
template <int kCount>
SEQKIT_INLINE void add_columns(const double* x, int64_t count, const double* matrix, int64_t padded, double* to) {
  VecDouble sums[kCount] = {};
  for (int64_t i = 0; i < count; ++i) {
    const VecDouble factor = VecDouble{} + x[i];
#pragma GCC unroll 4
    for (int n = 0; n < kCount; ++n) {
      sums[n] = fma(factor, load_doubles(matrix + i * padded + n * kDoubles), sums[n]);
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < kCount; ++n) store_doubles(to + n * kDoubles, sums[n]);
}

SEQKIT_INLINE void multiply(const double* x, int64_t count, const double* matrix, int64_t padded, double* to) {
  int64_t column = 0;
  for (; column + kVectors * kDoubles <= padded; column += kVectors * kDoubles) {
    add_columns<kVectors>(x, count, matrix + column, padded, to + column);
  }
  for (; column < padded; column += kDoubles) add_columns<1>(x, count, matrix + column, padded, to + column);
}

SEQKIT_INLINE double sum_of(const double* x, int64_t padded) {
  VecDouble total{};
  for (int64_t n = 0; n < padded; n += kDoubles) total = total + load_doubles(x + n);
  double sum = 0;
  for (int lane = 0; lane < kDoubles; ++lane) sum += total[lane];
  return sum;
}

SEQKIT_INLINE double largest_of(const double* x, int64_t padded) {
  double most = 0;
  for (int64_t n = 0; n < padded; ++n) most = x[n] > most ? x[n] : most;
  return most;
}

SEQKIT_INLINE void scale(double* x, double factor, int64_t padded) {
  const VecDouble all = VecDouble{} + factor;
  for (int64_t n = 0; n < padded; n += kDoubles) store_doubles(x + n, load_doubles(x + n) * all);
}

// to[j] = exp(from[j] - the largest), zeros beyond `count`; the largest, or -inf where one is NaN or +inf.
SEQKIT_INLINE float exponentials(const float* from, int64_t count, int64_t padded, double* to) {
  float top = -__builtin_inff();
  for (int64_t j = 0; j < count; ++j) {
    if (!(from[j] < __builtin_inff())) return -__builtin_inff();
    top = from[j] > top ? from[j] : top;
  }
  if (top == -__builtin_inff()) return top;
  for (int64_t j = 0; j < padded; j += kLanes) {
    const int lanes = count - j < kLanes ? (count > j ? int(count - j) : 0) : kLanes;
    const Vec x = (lanes ? load_some(from + j, lanes) : Vec{}) - splat(top);
    const Vec value = exp(x);
    for (int lane = 0; lane < kLanes; ++lane) {
      double precise = double(value[lane]);
      if (x[lane] < -80.0f) precise = __builtin_exp(double(x[lane]));  // below what a float can hold
      to[j + lane] = lane < lanes ? precise : 0.0;
    }
  }
  return top;
}

}  // namespace

namespace seqkit {

// factors: exp(transitions - log_factor) and its transpose, [2, padded, padded].
void SEQKIT_AT_LEVEL(crf_sentence)(const CrfInputs<float>& in, const CrfLikelihood<float>& out, int64_t sentence,
                                   const double* factors, double log_factor, double* scratch, double* result) {
  const int64_t C = in.tags, n = in.lengths[sentence], padded = (C + kCrfPad - 1) / kCrfPad * kCrfPad;
  const float* emissions = in.emissions + sentence * in.positions * C;
  const int64_t* tags = out.observed + sentence * in.positions;
  double* alpha = scratch;               // [n, padded], each row sums to 1
  double* emitted = alpha + n * padded;  // [n, padded], exponentials relative to their largest
  double* sums = emitted + n * padded;   // [n], what a row was divided by
  double* beta = sums + n;               // [padded]
  double* shared = beta + padded;        // [padded], emitted times beta
  double* pairs = shared + padded;       // [padded, padded]

  double log_z = 0;
  *result = __builtin_nan("");
  for (int64_t t = 0; t < n; ++t) {
    double *row = alpha + t * padded, *now = emitted + t * padded;
    const float top = exponentials(emissions + t * C, C, padded, now);
    double before = log_factor;
    if (t == 0) {
      before = double(exponentials(in.start, C, padded, row));
    } else {
      multiply(row - padded, C, factors, padded, row);
    }
    if (top == -__builtin_inff() || before == -__builtin_inf()) return;
    for (int64_t j = 0; j < padded; j += kDoubles) {
      store_doubles(row + j, load_doubles(row + j) * load_doubles(now + j));
    }
    sums[t] = sum_of(row, padded);
    if (!(sums[t] > kLeast)) return;
    scale(row, 1.0 / sums[t], padded);
    log_z += double(top) + __builtin_log(sums[t]) + before;
  }
  // The end: its own exponentials, and the probability of each last tag.
  const float top = exponentials(in.end, C, padded, beta);
  if (top == -__builtin_inff()) return;
  const double* last = alpha + (n - 1) * padded;
  double total = 0;
  for (int64_t j = 0; j < C; ++j) total += last[j] * beta[j];
  if (!(total > kLeast)) return;
  log_z += double(top) + __builtin_log(total);
  if (!out.grad_emissions) {
    *result = log_z;
    return;
  }
  scale(beta, 1.0 / total, padded);

  float* grad_emissions = out.grad_emissions + sentence * in.positions * C;
  std::memset(pairs, 0, padded * padded * sizeof(double));
  for (int64_t t = n - 1; t >= 0; --t) {
    if (!(largest_of(beta, padded) < kMost)) return;
    const double* row = alpha + t * padded;
    for (int64_t j = 0; j < C; ++j) grad_emissions[t * C + j] = float(-row[j] * beta[j]);
    grad_emissions[t * C + tags[t]] = float(1.0 - row[tags[t]] * beta[tags[t]]);
    if (t == n - 1) std::memcpy(out.grad_end + sentence * C, grad_emissions + t * C, C * sizeof(float));
    if (t == 0) break;
    const double* now = emitted + t * padded;
    const VecDouble factor = VecDouble{} + 1.0 / sums[t];
    for (int64_t j = 0; j < padded; j += kDoubles) {
      store_doubles(shared + j, load_doubles(now + j) * load_doubles(beta + j) * factor);
    }
    for (int64_t i = 0; i < C; ++i) {
      const VecDouble before = VecDouble{} + row[i - padded];
      for (int64_t j = 0; j < padded; j += kDoubles) {
        double* to = pairs + i * padded + j;
        store_doubles(to, fma(before, load_doubles(shared + j), load_doubles(to)));
      }
    }
    multiply(shared, C, factors + padded * padded, padded, beta);
  }
  // What was observed minus what was expected, in double: 1 - p keeps its last places.
  for (int64_t cell = 0; cell < C * padded; ++cell) pairs[cell] = -pairs[cell] * factors[cell];
  for (int64_t t = 1; t < n; ++t) pairs[tags[t - 1] * padded + tags[t]] += 1.0;
  float* grad_transitions = out.grad_transitions + sentence * C * C;
  for (int64_t i = 0; i < C; ++i) {
    for (int64_t j = 0; j < C; ++j) grad_transitions[i * C + j] = float(pairs[i * padded + j]);
  }
  std::memcpy(out.grad_start + sentence * C, grad_emissions, C * sizeof(float));
  std::memset(grad_emissions + n * C, 0, (in.positions - n) * C * sizeof(float));
  *result = log_z;
}

}  // namespace seqkit
