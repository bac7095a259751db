// crf.h on a card, in float32: a block has a sentence, a warp a tag and its lanes the tags before or after it. Both
// recursions are normalised at each position, so that logarithms stay near zero and keep their last places:
//   alpha(t, j) is log p(y_t = j | x_0 .. x_t),  beta(t, j) makes alpha + beta the logarithm of the marginal.
#include "common/cuda.h"
#include "crf/crf.h"

namespace seqkit {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;

SEQKIT_DEVICE int clamped(int64_t value, int64_t low, int64_t high) {
  return static_cast<int>(value < low ? low : value > high ? high : value);
}

// log(sum of exp(term(i)) over i < count) in every lane; -inf if all are.
template <typename Term>
SEQKIT_DEVICE float warp_log_sum(int count, const Term& term) {
  const int lane = threadIdx.x % 32;
  float top = -INFINITY;
  for (int i = lane; i < count; i += 32) top = fmaxf(top, term(i));
  top = warp_max(top);
  if (top == -INFINITY) return top;
  float sum = 0.0f;
  for (int i = lane; i < count; i += 32) sum += expf(term(i) - top);
  return top + logf(warp_sum(sum));
}

// What each warp has summed, added in their order; all threads call it and thread 0 gets the sum.
SEQKIT_DEVICE double block_sum(double value, double* room) {
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(kWholeWarp, value, distance);
  if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0.0;
  for (int warp = 0; warp < kWarps; ++warp) sum += room[warp];
  return sum;
}

__global__ void __launch_bounds__(kThreads)
    likelihood_kernel(const CrfInputs<float> in, const CrfLikelihood<float> out, float* alphas) {
  SEQKIT_DYNAMIC_SHARED(double, room);  // [kWarps]
  const int C = static_cast<int>(in.tags), T = static_cast<int>(in.positions);
  float* const norms = reinterpret_cast<float*>(room + kWarps);  // [T + 1]
  float* const beta = norms + T + 1;                             // [2, C]
  const int64_t sentence = blockIdx.x;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int n = clamped(in.lengths[sentence], 1, T);
  const float* const emissions = in.emissions + sentence * T * C;
  const int64_t* const tags = out.observed + sentence * T;
  float* const alpha = alphas + sentence * T * C;

  double score = 0.0;
  for (int t = threadIdx.x; t < n; t += kThreads) {
    const int tag = clamped(tags[t], 0, C - 1);
    score += emissions[t * C + tag];
    if (t == 0) score += in.start[tag];
    if (t > 0) score += in.transitions[clamped(tags[t - 1], 0, C - 1) * C + tag];
    if (t == n - 1) score += in.end[tag];
  }
  score = block_sum(score, room);

  double log_z = 0.0;  // of thread 0
  for (int t = 0; t < n; ++t) {
    float* const now = alpha + t * C;
    for (int j = warp; j < C; j += kWarps) {
      const float* const before = now - C;
      const float sum =
          t == 0 ? in.start[j] : warp_log_sum(C, [&](int i) { return before[i] + in.transitions[i * C + j]; });
      if (lane == 0) now[j] = sum + emissions[t * C + j];
    }
    __syncthreads();
    const float norm = warp_log_sum(C, [&](int j) { return now[j]; });  // every warp computes the same
    __syncthreads();
    for (int j = threadIdx.x; j < C && norm > -INFINITY; j += kThreads) now[j] -= norm;
    if (threadIdx.x == 0) norms[t] = norm > -INFINITY ? norm : 0.0f;
    log_z += norm;
    __syncthreads();
  }
  const float* const last = alpha + (n - 1) * C;
  const float norm = warp_log_sum(C, [&](int j) { return last[j] + in.end[j]; });
  if (threadIdx.x == 0) out.log_likelihood[sentence] = static_cast<float>(score - (log_z + norm));
  if (!out.grad_emissions) return;

  float* const grad_emissions = out.grad_emissions + sentence * T * C;
  float* const pairs = out.grad_transitions + sentence * C * C;
  float *after = beta, *next = beta + C;
  for (int cell = threadIdx.x; cell < C * C; cell += kThreads) pairs[cell] = 0.0f;
  for (int j = threadIdx.x; j < C; j += kThreads) after[j] = norm > -INFINITY ? in.end[j] - norm : -INFINITY;
  for (int t = n - 1; t >= 0; --t) {
    __syncthreads();
    const int tag = clamped(tags[t], 0, C - 1);
    for (int j = threadIdx.x; j < C; j += kThreads) {
      const float gradient = (j == tag ? 1.0f : 0.0f) - expf(alpha[t * C + j] + after[j]);
      grad_emissions[t * C + j] = gradient;
      if (t == n - 1) out.grad_end[sentence * C + j] = gradient;
      if (t == 0) out.grad_start[sentence * C + j] = gradient;
    }
    if (t == 0) break;
    const float* const before = alpha + (t - 1) * C;
    const int pair = clamped(tags[t - 1], 0, C - 1) * C + tag;
    const float* const now = emissions + t * C;
    for (int cell = threadIdx.x; cell < C * C; cell += kThreads) {
      const int i = cell / C, j = cell % C;
      const float logarithm = before[i] + in.transitions[cell] + now[j] + after[j] - norms[t];
      pairs[cell] += (cell == pair ? 1.0f : 0.0f) - expf(logarithm);
    }
    for (int i = warp; i < C; i += kWarps) {
      const float sum =
          warp_log_sum(C, [&](int j) { return in.transitions[i * C + j] + now[j] + after[j]; }) - norms[t];
      if (lane == 0) next[i] = sum;
    }
    float* const swapped = after;
    after = next;
    next = swapped;
  }
  for (int64_t cell = n * C + threadIdx.x; cell < in.positions * C; cell += kThreads) grad_emissions[cell] = 0.0f;
}

// The best ways to a tag; lists of n_best in the lattice of one sentence, a thread for each tag.
__global__ void __launch_bounds__(kThreads, 2)
    decode_kernel(const CrfInputs<float> in, const CrfDecode<float> out, float* scores, int* sources) {
  const int C = static_cast<int>(in.tags), T = static_cast<int>(in.positions), N = static_cast<int>(out.n_best);
  const int64_t sentence = blockIdx.x, places = (int64_t{T} * C + 1) * N;
  const int n = clamped(in.lengths[sentence], 1, T);
  const float* const emissions = in.emissions + sentence * T * C;
  scores += sentence * places;
  sources += sentence * places;

  // Fills one list: the best of before[i][rank] + step(i), equal ones in the order of i and rank.
  const auto fill = [&](float* list, int* from, const float* before, int count, const auto& step) {
    for (int rank = 0; rank < N; ++rank) list[rank] = -INFINITY;
    for (int i = 0; i < count; ++i) {
      for (int rank = 0; rank < N; ++rank) {
        const float score = before[i * N + rank] + step(i);
        if (!(score > list[N - 1])) break;  // the next of this tag are not better
        int place = N - 1;
        for (; place > 0 && list[place - 1] < score; --place) {
          list[place] = list[place - 1];
          from[place] = from[place - 1];
        }
        list[place] = score;
        from[place] = i * N + rank;
      }
    }
  };
  for (int t = 0; t < n; ++t) {
    for (int j = threadIdx.x; j < C; j += kThreads) {
      float* const list = scores + (t * C + j) * N;
      int* const from = sources + (t * C + j) * N;
      const float emission = emissions[t * C + j];
      if (t == 0) {
        for (int rank = 0; rank < N; ++rank) list[rank] = rank == 0 ? in.start[j] + emission : -INFINITY;
      } else {
        fill(list, from, list - (j + C) * N, C, [&](int i) { return in.transitions[i * C + j] + emission; });
      }
    }
    __syncthreads();
  }
  float* const best = scores + T * C * N;
  int* const last = sources + T * C * N;
  if (threadIdx.x == 0) fill(best, last, scores + (n - 1) * C * N, C, [&](int j) { return in.end[j]; });
  __syncthreads();
  for (int path = threadIdx.x; path < N; path += kThreads) {
    int64_t* const tags = out.tags + (sentence * N + path) * T;
    const bool found = best[path] > -INFINITY;
    out.scores[sentence * N + path] = found ? best[path] : -INFINITY;
    for (int t = found ? n : 0; t < T; ++t) tags[t] = -1;
    int place = found ? last[path] : 0;
    for (int t = n - 1; found && t >= 0; --t) {
      tags[t] = place / N;
      if (t > 0) place = sources[t * C * N + place];
    }
  }
}

}  // namespace

const char* crf_likelihood_cuda(const CrfInputs<float>& in, const CrfLikelihood<float>& out, float* alphas,
                                void* stream) {
  if (in.batch == 0) return nullptr;
  const size_t shared = kWarps * sizeof(double) + (in.positions + 1 + 2 * in.tags) * sizeof(float);
  SEQKIT_LAUNCH(likelihood_kernel, dim3(static_cast<unsigned>(in.batch)), dim3(kThreads), shared, stream, in, out,
                alphas);
  return launch_error();
}

const char* crf_decode_cuda(const CrfInputs<float>& in, const CrfDecode<float>& out, float* scores, int* sources,
                            void* stream) {
  if (in.batch == 0) return nullptr;
  SEQKIT_LAUNCH(decode_kernel, dim3(static_cast<unsigned>(in.batch)), dim3(kThreads), 0, stream, in, out, scores,
                sources);
  return launch_error();
}

}  // namespace seqkit
