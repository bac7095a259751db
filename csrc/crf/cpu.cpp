// The recursions of crf.h in logarithms, which are the specification; the way into the scaled ones; and Viterbi.
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "common/device.h"
#include "crf/crf.h"

namespace seqkit {

// log Z, with the gradient written; NaN where scaled probabilities do not serve.
SEQKIT_DECLARE_LEVELS(crf_sentence, (const CrfInputs<float>& in, const CrfLikelihood<float>& out, int64_t sentence,
                                     const double* factors, double log_factor, double* scratch, double* log_z));

namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

double log_sum_exp(const double* x, int64_t count) {
  const double top = *std::max_element(x, x + count);
  if (top == kNever) return kNever;
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += std::exp(x[i] - top);
  return top + std::log(sum);
}

template <typename Number>
double score_of(const CrfInputs<Number>& in, const int64_t* tags, int64_t sentence) {
  const int64_t C = in.tags, n = in.lengths[sentence];
  const Number* emissions = in.emissions + sentence * in.positions * C;
  double score = double(in.start[tags[0]]) + double(in.end[tags[n - 1]]);
  for (int64_t t = 0; t < n; ++t) {
    score += double(emissions[t * C + tags[t]]);
    if (t > 0) score += double(in.transitions[tags[t - 1] * C + tags[t]]);
  }
  return score;
}

template <typename Number>
void write(Number* to, const double* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = Number(from[i]);
}

// One sentence in logarithms. scratch: crf_likelihood_scratch.
template <typename Number>
void likelihood_in_logs(const CrfInputs<Number>& in, const CrfLikelihood<Number>& out, int64_t sentence,
                        double* scratch) {
  const int64_t C = in.tags, n = in.lengths[sentence];
  const Number* emissions = in.emissions + sentence * in.positions * C;
  const int64_t* tags = out.observed + sentence * in.positions;
  double* alpha = scratch;        // [n, C]
  double* terms = alpha + n * C;  // [C]
  double* beta = terms + C;       // [C]
  double* next = beta + C;        // [C]
  double* pairs = next + C;       // [C, C]
  for (int64_t j = 0; j < C; ++j) alpha[j] = double(in.start[j]) + double(emissions[j]);
  for (int64_t t = 1; t < n; ++t) {
    for (int64_t j = 0; j < C; ++j) {
      for (int64_t i = 0; i < C; ++i) terms[i] = alpha[(t - 1) * C + i] + double(in.transitions[i * C + j]);
      alpha[t * C + j] = log_sum_exp(terms, C) + double(emissions[t * C + j]);
    }
  }
  for (int64_t j = 0; j < C; ++j) terms[j] = alpha[(n - 1) * C + j] + double(in.end[j]);
  const double log_z = log_sum_exp(terms, C), score = score_of(in, tags, sentence);
  out.log_likelihood[sentence] = Number(score - log_z);
  if (!out.grad_emissions) return;

  Number* grad_emissions = out.grad_emissions + sentence * in.positions * C;
  const auto marginal = [&](double logarithm) { return log_z == kNever ? 0.0 : std::exp(logarithm - log_z); };
  std::fill_n(pairs, C * C, 0.0);
  for (int64_t j = 0; j < C; ++j) beta[j] = double(in.end[j]);
  for (int64_t t = n - 1; t >= 0; --t) {
    for (int64_t j = 0; j < C; ++j) {
      grad_emissions[t * C + j] = Number((tags[t] == j) - marginal(alpha[t * C + j] + beta[j]));
    }
    if (t == n - 1) {
      for (int64_t j = 0; j < C; ++j) {
        out.grad_end[sentence * C + j] = Number((tags[t] == j) - marginal(alpha[t * C + j] + beta[j]));
      }
    }
    if (t == 0) break;
    for (int64_t i = 0; i < C; ++i) {
      for (int64_t j = 0; j < C; ++j) {
        terms[j] = double(in.transitions[i * C + j]) + double(emissions[t * C + j]) + beta[j];
        pairs[i * C + j] -= marginal(alpha[(t - 1) * C + i] + terms[j]);
      }
      next[i] = log_sum_exp(terms, C);
    }
    pairs[tags[t - 1] * C + tags[t]] += 1;
    std::swap(beta, next);
  }
  write(out.grad_transitions + sentence * C * C, pairs, C * C);
  std::copy_n(grad_emissions, C, out.grad_start + sentence * C);
  std::fill_n(grad_emissions + n * C, (in.positions - n) * C, Number(0));
}

}  // namespace

int64_t crf_likelihood_scratch(int64_t positions, int64_t tags) {
  const int64_t padded = (tags + kCrfPad - 1) / kCrfPad * kCrfPad;
  return positions * (2 * padded + 1) + 4 * padded + padded * padded;
}

template <>
void crf_likelihood(const CrfInputs<double>& in, const CrfLikelihood<double>& out, int64_t begin, int64_t end) {
  const std::unique_ptr<double[]> scratch(new double[crf_likelihood_scratch(in.positions, in.tags)]);
  for (int64_t sentence = begin; sentence < end; ++sentence) likelihood_in_logs(in, out, sentence, scratch.get());
}

template <>
void crf_likelihood(const CrfInputs<float>& in, const CrfLikelihood<float>& out, int64_t begin, int64_t end) {
  const int64_t C = in.tags, padded = (C + kCrfPad - 1) / kCrfPad * kCrfPad;
  const std::unique_ptr<double[]> scratch(new double[crf_likelihood_scratch(in.positions, C)]);
  // exp(transitions - the largest), as it is and transposed, zeros beyond C.
  const std::unique_ptr<double[]> factors(new double[2 * padded * padded]());
  const double largest = *std::max_element(in.transitions, in.transitions + C * C);
  const double log_factor = std::isfinite(largest) ? largest : 0.0;
  for (int64_t i = 0; i < C; ++i) {
    for (int64_t j = 0; j < C; ++j) {
      const double factor = std::exp(double(in.transitions[i * C + j]) - log_factor);
      factors[i * padded + j] = factors[(padded + j) * padded + i] = factor;
    }
  }
  const auto one_sentence = SEQKIT_PICK_LEVEL(crf_sentence);
  for (int64_t sentence = begin; sentence < end; ++sentence) {
    double log_z;
    one_sentence(in, out, sentence, factors.get(), log_factor, scratch.get(), &log_z);
    if (std::isfinite(log_z)) {
      const double score = score_of(in, out.observed + sentence * in.positions, sentence);
      out.log_likelihood[sentence] = float(score - log_z);
    } else {
      likelihood_in_logs(in, out, sentence, scratch.get());
    }
  }
}

namespace {

// A place in the lattice: the sum up to here and where it came from.
struct Best {
  double score;
  int64_t tag, rank;
};

// Keeps the n best of what is offered, equal scores in the order of the offers.
void offer(Best* best, int64_t& count, int64_t n, const Best& candidate) {
  if (!(candidate.score > kNever) || (count == n && !(candidate.score > best[n - 1].score))) return;
  int64_t place = count < n ? count++ : n - 1;
  for (; place > 0 && best[place - 1].score < candidate.score; --place) best[place] = best[place - 1];
  best[place] = candidate;
}

template <typename Number>
void decode_sentence(const CrfInputs<Number>& in, const CrfDecode<Number>& out, int64_t sentence, Best* lattice,
                     int64_t* counts, Best* ends) {
  const int64_t C = in.tags, n = in.lengths[sentence], N = out.n_best;
  const Number* emissions = in.emissions + sentence * in.positions * C;
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t j = 0; j < C; ++j) {
      Best* here = lattice + (t * C + j) * N;
      int64_t& count = counts[t * C + j];
      count = 0;
      const double emission = double(emissions[t * C + j]);
      if (t == 0) {
        offer(here, count, N, {double(in.start[j]) + emission, -1, 0});
        continue;
      }
      for (int64_t i = 0; i < C; ++i) {
        const Best* before = lattice + ((t - 1) * C + i) * N;
        const double step = double(in.transitions[i * C + j]) + emission;
        for (int64_t rank = 0; rank < counts[(t - 1) * C + i]; ++rank) {
          offer(here, count, N, {before[rank].score + step, i, rank});
        }
      }
    }
  }
  int64_t found = 0;
  for (int64_t j = 0; j < C; ++j) {
    const Best* last = lattice + ((n - 1) * C + j) * N;
    for (int64_t rank = 0; rank < counts[(n - 1) * C + j]; ++rank) {
      offer(ends, found, N, {last[rank].score + double(in.end[j]), j, rank});
    }
  }
  int64_t* tags = out.tags + sentence * N * in.positions;
  std::fill_n(tags, N * in.positions, -1);
  for (int64_t path = 0; path < N; ++path) {
    out.scores[sentence * N + path] = Number(path < found ? ends[path].score : kNever);
    if (path >= found) continue;
    int64_t tag = ends[path].tag, rank = ends[path].rank;
    for (int64_t t = n - 1; t >= 0; --t) {
      tags[path * in.positions + t] = tag;
      const Best& from = lattice[(t * C + tag) * N + rank];
      tag = from.tag;
      rank = from.rank;
    }
  }
}

}  // namespace

template <typename Number>
void crf_decode(const CrfInputs<Number>& in, const CrfDecode<Number>& out, int64_t begin, int64_t end) {
  const int64_t places = in.positions * in.tags;
  const std::unique_ptr<Best[]> lattice(new Best[(places + 1) * out.n_best]);
  const std::unique_ptr<int64_t[]> counts(new int64_t[places]);
  for (int64_t sentence = begin; sentence < end; ++sentence) {
    decode_sentence(in, out, sentence, lattice.get(), counts.get(), lattice.get() + places * out.n_best);
  }
}

template void crf_decode(const CrfInputs<float>&, const CrfDecode<float>&, int64_t, int64_t);
template void crf_decode(const CrfInputs<double>&, const CrfDecode<double>&, int64_t, int64_t);

}  // namespace seqkit
