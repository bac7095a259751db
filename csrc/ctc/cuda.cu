// ctc.h on a card, in float32 whatever the element, with no order left to chance.
//
// The frames, a warp each: the log-sum-exp of logits, and the log-probabilities of the labels gathered while the row is
// near. Then two blocks a sentence at once, one forward and one backward, a thread for blank i and label i: both stay
// in registers, and the neighbour's come through shared memory, one barrier a frame. A probability is a mantissa and an
// exponent of its own, as in lattice.simd.cpp. A warp for each frame multiplies the two directions, and the gradient is
// a pass of its own.
#include "common/cuda.h"
#include "ctc/ctc.h"

namespace seqkit {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kMostThreads = 1024;  // of a block that walks the lattice
constexpr int kFramesOfBlock = 32;  // of one sentence, which share what is known of its target
constexpr float kNothing = -1e38f;  // the exponent of 0: finite, so that differences are
constexpr float kLn2 = 0.693147181f;

SEQKIT_DEVICE int64_t cut(int64_t value, int64_t most) { return value < 0 ? 0 : value > most ? most : value; }

// What is on the card is not checked: it is cut.
template <typename E>
SEQKIT_DEVICE int64_t times_of(const CtcInputs<E>& in, int64_t sentence) {
  return cut(in.input_lengths[sentence], in.times);
}

template <typename E>
SEQKIT_DEVICE int64_t length_of(const CtcInputs<E>& in, int64_t sentence) {
  return cut(in.target_lengths[sentence], in.width);
}

template <typename E>
SEQKIT_DEVICE int64_t label_of(const CtcInputs<E>& in, int64_t sentence, int64_t i) {
  return cut(in.targets[sentence * in.width + i], in.classes - 1);
}

// ---- numbers with an exponent of their own: m 2^e, m in [1, 2) or 0 ----

struct Wide {
  float m, e;
};

SEQKIT_DEVICE Wide nothing() { return {0.0f, kNothing}; }

// m 2^by, by an integer up to a few; 0 below 2^-126.
SEQKIT_DEVICE float scaled(float m, float by) {
  const float shifted = fmaxf(by, -127.0f) + 12583039.0f;  // 1.5 * 2^23 + 127: the lowest bits are the exponent's
  return m * __uint_as_float(__float_as_uint(shifted) << 23);
}

SEQKIT_DEVICE Wide normalised(float m, float e) {
  const unsigned bits = __float_as_uint(m);
  const float exponent = __uint_as_float(0x4b000000u | bits >> 23) - 8388735.0f;  // 2^23 + 127
  if (m == 0.0f) return nothing();
  const float mantissa = __uint_as_float((bits & 0x7fffffu) | 0x3f800000u);
  return {m == m ? mantissa : m, fmaxf(e + exponent, kNothing)};
}

SEQKIT_DEVICE Wide sum_of(const Wide& a, const Wide& b) {
  const float e = fmaxf(a.e, b.e);
  return {scaled(a.m, a.e - e) + scaled(b.m, b.e - e), e};
}

SEQKIT_DEVICE Wide sum_of(const Wide& a, const Wide& b, const Wide& c) {
  const float e = fmaxf(fmaxf(a.e, b.e), c.e);
  return {scaled(a.m, a.e - e) + scaled(b.m, b.e - e) + scaled(c.m, c.e - e), e};
}

SEQKIT_DEVICE Wide product(const Wide& a, const Wide& b) { return normalised(a.m * b.m, a.e + b.e); }

// exp(x) for any x; beyond 2^22 the exponent is as rough as x is.
SEQKIT_DEVICE Wide wide_exp(float x) {
  if (x == -INFINITY) return nothing();
  const float clamped = x < -1e37f ? -1e37f : x;
  const float n = rintf(clamped * 1.44269504f);
  const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, clamped));
  const float near = r > 0.5f ? 0.5f : r < -0.5f ? -0.5f : r;  // NaN stays
  return {expf(near), n == n ? n : 0.0f};
}

// ---- frames ----

template <typename E, bool kVector>
SEQKIT_DEVICE void load_some(const E* from, int64_t left, float (&to)[16 / sizeof(E)]) {
  constexpr int kCount = 16 / sizeof(E);
  if constexpr (kVector) {
    struct alignas(16) Numbers {
      E x[kCount];
    };
    const Numbers numbers = *reinterpret_cast<const Numbers*>(from);
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = to_float(numbers.x[i]);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = i < left ? to_float(from[i]) : -INFINITY;
  }
}

SEQKIT_DEVICE void store_vector(float* to, const float (&x)[4]) {
  store_16(to, uint4{__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3])});
}

template <typename E>
SEQKIT_DEVICE void store_vector(E* to, const float (&x)[8]) {
  store_16(to, uint4{pack_pair<E>(x[0], x[1]), pack_pair<E>(x[2], x[3]), pack_pair<E>(x[4], x[5]),
                     pack_pair<E>(x[6], x[7])});
}

template <typename E, bool kVector>
SEQKIT_DEVICE float log_sum_exp(const E* row, int64_t classes) {
  constexpr int kCount = 16 / sizeof(E);
  float most = -INFINITY, total = 0.0f;
  for (int64_t c = threadIdx.x % 32 * kCount; c < classes; c += 32 * kCount) {
    float x[kCount];
    load_some<E, kVector>(row + c, classes - c, x);
    float largest = most;
#pragma unroll
    for (int i = 0; i < kCount; ++i) largest = fmaxf(largest, x[i]);
    const float shift = largest == -INFINITY ? 0.0f : largest;
    total *= expf(most - shift);
#pragma unroll
    for (int i = 0; i < kCount; ++i) total += expf(x[i] - shift);
    most = largest;
  }
  const float largest = warp_max(most), shift = largest == -INFINITY ? 0.0f : largest;
  return shift + logf(warp_sum(total * expf(most - shift)));
}

// The log-probabilities of a frame's labels, the blank's first, and for logits the normalizer: a warp for each frame.
template <typename E, bool kVector>
__global__ void __launch_bounds__(kThreads) gather(CtcInputs<E> in, float* normalizers, float* emissions) {
  const int64_t frame = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (frame >= in.batch * in.times) return;
  const int lane = threadIdx.x % 32;
  const int64_t sentence = frame / in.times, t = frame % in.times, slots = slots_of(in.times, in.width);
  const bool counts = t < times_of(in, sentence);
  const E* row = in.frames + t * in.frame_stride + sentence * in.sentence_stride;
  float normalizer = 0.0f;
  if (normalizers) {
    if (counts) normalizer = log_sum_exp<E, kVector>(row, in.classes);
    if (lane == 0) normalizers[frame] = normalizer;
  }
  const int64_t length = length_of(in, sentence);
  if (!counts || length >= slots) return;
  float* to = emissions + frame * slots;
  for (int64_t i = lane; i <= length; i += 32) {
    to[i] = to_float(row[i ? label_of(in, sentence, i - 1) : in.blank]) - normalizer;
  }
}

// ---- the lattice ----

// What a thread knows of its blanks and labels i = threadIdx.x + k * blockDim.x; L + 1 of them exist.
template <int kPer>
struct Slots {
  bool blank[kPer], label[kPer];  // whether they exist
  bool may_skip[kPer];            // from label i - 1 to label i; backward from label i to label i + 1
};

template <int kPer, bool kBackward>
SEQKIT_DEVICE Slots<kPer> slots_of_thread(const CtcInputs<void>& in, int64_t sentence, int64_t length) {
  Slots<kPer> own;
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    const int64_t i = threadIdx.x + k * blockDim.x, later = kBackward ? i + 1 : i;
    own.blank[k] = i <= length;
    own.label[k] = i < length;
    own.may_skip[k] = later > 0 && later < length && label_of(in, sentence, later) != label_of(in, sentence, later - 1);
  }
  return own;
}

// The log-probabilities of one frame for a thread's slots.
template <int kPer>
struct Emissions {
  float blank, label[kPer];

  SEQKIT_DEVICE void load(const float* row, const Slots<kPer>& own) {
    blank = row[0];
#pragma unroll
    for (int k = 0; k < kPer; ++k) label[k] = own.label[k] ? row[1 + threadIdx.x + k * blockDim.x] : -INFINITY;
  }
};

struct Lattice {
  CtcInputs<void> in;
  const float* emissions;  // [B, T, slots]
  float4 *alpha, *beta;    // [B, T, slots]: blank and label, mantissa and exponent; null when no gradient is wanted
  float2* totals;          // [B], the probability
  float* losses;           // [B]
};

SEQKIT_DEVICE float4 packed(const Wide& blank, const Wide& label) { return float4{blank.m, blank.e, label.m, label.e}; }

// One direction of a sentence. Shared: two rows of blockDim.x * kPer + 1, the slots of the last two frames; forward,
// row index i + 1 is slot i, backward i is: what stands at the end without a neighbour is 0.
template <int kPer, bool kBackward>
SEQKIT_DEVICE void walk(const Lattice& on, int64_t sentence, float4* shared) {
  const CtcInputs<void>& in = on.in;
  const int64_t times = times_of(in, sentence), length = length_of(in, sentence);
  const int64_t slots = slots_of(in.times, in.width);
  if (length > times) {
    if (!kBackward && threadIdx.x == 0) {
      on.losses[sentence] = INFINITY;
      on.totals[sentence] = float2{0.0f, kNothing};
    }
    return;
  }
  const Slots<kPer> own = slots_of_thread<kPer, kBackward>(in, sentence, length);
  const int row = blockDim.x * kPer + 1;
  Wide blank[kPer], label[kPer];
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    const int i = threadIdx.x + k * blockDim.x;
    blank[k] = i == (kBackward ? length : 0) ? Wide{1.0f, 0.0f} : nothing();  // where a path ends or begins
    label[k] = nothing();
    shared[row + i + !kBackward] = packed(blank[k], label[k]);
  }
  if (threadIdx.x == 0) {
    const int outside = kBackward ? row - 1 : 0;
    shared[outside] = shared[row + outside] = packed(nothing(), nothing());
  }

  const float* emissions = on.emissions + sentence * in.times * slots;
  float4* to = kBackward ? on.beta : on.alpha;
  if (to) to += sentence * in.times * slots;
  const auto frame_at = [&](int64_t n) { return kBackward ? times - 1 - n : n; };
  Emissions<kPer> now, next;
  if (times > 0) now.load(emissions + frame_at(0) * slots, own);
  if (times > 1) next.load(emissions + frame_at(1) * slots, own);
  __syncthreads();
  for (int64_t n = 0; n < times; ++n) {
    Emissions<kPer> after = next;
    if (n + 2 < times) after.load(emissions + frame_at(n + 2) * slots, own);
    const int64_t t = frame_at(n);
    const Wide y_blank = wide_exp(now.blank);
    const float4 *before = shared + (n + 1) % 2 * row, *neighbours = before + kBackward;
    float4* written = shared + n % 2 * row + !kBackward;
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
      const int i = threadIdx.x + k * blockDim.x;
      const float4 other = neighbours[i];
      const Wide other_label{other.z, other.w}, y_label = wide_exp(now.label[k]);
      const Wide skipping = own.may_skip[k] ? other_label : nothing();
      if constexpr (kBackward) {
        const Wide from_blank = sum_of(blank[k], label[k]);
        const Wide from_label = sum_of(label[k], Wide{other.x, other.y}, skipping);
        if (own.blank[k]) to[t * slots + i] = packed(from_blank, from_label);
        blank[k] = product(from_blank, y_blank);
        label[k] = product(from_label, y_label);
      } else {
        const Wide label_sum = sum_of(label[k], blank[k], skipping);
        blank[k] = product(sum_of(blank[k], other_label), y_blank);
        label[k] = product(label_sum, y_label);
        if (to && own.blank[k]) to[t * slots + i] = packed(blank[k], label[k]);
      }
      written[i] = packed(blank[k], label[k]);
    }
    __syncthreads();
    now = next;
    next = after;
  }

  if constexpr (!kBackward) {
    if (threadIdx.x == 0) {
      const float4* last = shared + (times + 1) % 2 * row + 1;
      const float4 ends = last[length], label_ends = length ? last[length - 1] : packed(nothing(), nothing());
      const Wide sum = sum_of(Wide{ends.x, ends.y}, Wide{label_ends.z, label_ends.w});
      on.totals[sentence] = float2{sum.m, sum.e};
      on.losses[sentence] = -static_cast<float>(logf(sum.m) + sum.e * static_cast<double>(kLn2));
      if (sum.m == 0.0f) on.losses[sentence] = INFINITY;
    }
  }
}

template <int kPer>
__global__ void __launch_bounds__(kMostThreads) walk_forward(Lattice on) {
  SEQKIT_DYNAMIC_SHARED(float4, shared);
  walk<kPer, false>(on, blockIdx.x, shared);
}

template <int kPer>
__global__ void __launch_bounds__(kMostThreads) walk_both_ways(Lattice on) {
  SEQKIT_DYNAMIC_SHARED(float4, shared);
  if (blockIdx.x % 2 == 0) {
    walk<kPer, false>(on, blockIdx.x / 2, shared);
  } else {
    walk<kPer, true>(on, blockIdx.x / 2, shared);
  }
}

// Occupancies from both directions: a warp for each frame.
__global__ void __launch_bounds__(kThreads) meet(Lattice on, float* occupancy) {
  const CtcInputs<void>& in = on.in;
  const int64_t frame = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (frame >= in.batch * in.times) return;
  const int lane = threadIdx.x % 32;
  const int64_t sentence = frame / in.times, slots = slots_of(in.times, in.width), length = length_of(in, sentence);
  const float2 total = on.totals[sentence];
  const bool counts = frame % in.times < times_of(in, sentence) && total.x != 0.0f;
  const float inverse = 1.0f / total.x;
  float* to = occupancy + frame * slots;
  float blanks = 0.0f;
  for (int64_t i = lane; i < slots; i += 32) {
    float share = 0.0f;
    if (counts && i <= length) {
      const float4 alpha = on.alpha[frame * slots + i], beta = on.beta[frame * slots + i];
      blanks += scaled(alpha.x * beta.x * inverse, alpha.y + beta.y - total.y);
      share = scaled(alpha.z * beta.z * inverse, alpha.w + beta.w - total.y);
    }
    if (i + 1 < slots) to[1 + i] = i < length ? share : 0.0f;
  }
  blanks = warp_sum(blanks);
  if (lane == 0) to[0] = blanks;
}

// ---- the gradient ----

// A block for some frames of a sentence, a warp for each. Shared: the labels, and for each where it stands next, or -1,
// less kLater where it also stands before: the first of them adds all up, in their order.
constexpr int kLater = 1 << 20;

template <typename E, bool kVector>
__global__ void __launch_bounds__(kThreads) gradient(CtcInputs<E> in, CtcGradients<E> grads) {
  SEQKIT_DYNAMIC_SHARED(int, labels);
  constexpr int kCount = 16 / sizeof(E);
  const int64_t chunks = (in.times + kFramesOfBlock - 1) / kFramesOfBlock, sentence = blockIdx.x / chunks;
  const int64_t first = blockIdx.x % chunks * kFramesOfBlock, slots = slots_of(in.times, in.width);
  const int64_t times = times_of(in, sentence);
  const bool infinite = grads.losses[sentence] == INFINITY;
  const int length = infinite ? 0 : static_cast<int>(length_of(in, sentence));
  int* nexts = labels + slots;
  for (int i = threadIdx.x; i < length; i += kThreads) labels[i] = static_cast<int>(label_of(in, sentence, i));
  __syncthreads();
  for (int i = threadIdx.x; i < length; i += kThreads) {
    int next = -1;
    bool later = labels[i] == in.blank;  // not a label that may be
    for (int j = length - 1; j > i; --j) next = labels[j] == labels[i] ? j : next;
    for (int j = 0; j < i; ++j) later = later || labels[j] == labels[i];
    nexts[i] = later ? next - kLater : next;
  }
  __syncthreads();

  const int lane = threadIdx.x % 32;
  const int64_t end = first + kFramesOfBlock < in.times ? first + kFramesOfBlock : in.times;
  const float slope = grads.grad_losses[sentence];
  for (int64_t t = first + threadIdx.x / 32; t < end; t += kWarps) {
    const int64_t offset = t * in.frame_stride + sentence * in.sentence_stride, frame = sentence * in.times + t;
    const E* row = in.frames + offset;
    E* to = grads.grad + offset;
    const bool counts = t < times && !infinite;
    const float fill = t < times && infinite && !grads.zero_infinity ? NAN : 0.0f;
    const float normalizer = grads.normalizers ? grads.normalizers[frame] : 0.0f;
    for (int64_t c = lane * kCount; c < in.classes; c += 32 * kCount) {
      float x[kCount];
#pragma unroll
      for (int i = 0; i < kCount; ++i) x[i] = fill;
      if (counts) {
        load_some<E, kVector>(row + c, in.classes - c, x);
#pragma unroll
        for (int i = 0; i < kCount; ++i) x[i] = slope * expf(x[i] - normalizer);
      }
      if constexpr (kVector) {
        store_vector(to + c, x);
      } else {
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          if (c + i < in.classes) to[c + i] = from_float<E>(x[i]);
        }
      }
    }
    if (!counts) continue;
    __syncwarp();  // what follows is written over that
    const float* occupancy = grads.occupancy + frame * slots;
    for (int i = lane - 1; i < length; i += 32) {
      if (i >= 0 && nexts[i] < -1) continue;
      const int64_t c = i < 0 ? in.blank : labels[i];
      float share = occupancy[1 + i];
      for (int j = i < 0 ? -1 : nexts[i]; j >= 0;) {
        share += occupancy[1 + j];
        j = nexts[j] + kLater;
      }
      to[c] = from_float<E>(slope * expf(to_float(row[c]) - normalizer) - slope * share);
    }
  }
}

// ---- the best path ----

struct Best {
  CtcInputs<void> in;
  CtcAlignment<void> out;
  const float* emissions;  // [B, T, slots]
  uint8_t* ways;  // [B, T, slots]: how a label came, 0 to 2 as in ctc.h, and 4 where its blank came from a label
};

template <int kPer>
__global__ void __launch_bounds__(kMostThreads) align(Best on) {
  SEQKIT_DYNAMIC_SHARED(float, shared);  // two rows of labels, as in `walk`, and the blanks
  const CtcInputs<void>& in = on.in;
  const int64_t sentence = blockIdx.x, times = times_of(in, sentence), length = length_of(in, sentence);
  const int64_t slots = slots_of(in.times, in.width);
  int64_t* labels = on.out.labels + sentence * in.times;
  for (int64_t t = threadIdx.x; t < in.times; t += blockDim.x) labels[t] = -1;
  if (length > times) {
    if (threadIdx.x == 0) on.out.scores[sentence] = -INFINITY;
    return;
  }
  const Slots<kPer> own = slots_of_thread<kPer, false>(in, sentence, length);
  const int row = blockDim.x * kPer + 1;
  float blank[kPer], label[kPer];
#pragma unroll
  for (int k = 0; k < kPer; ++k) {
    const int i = threadIdx.x + k * blockDim.x;
    blank[k] = i == 0 ? 0.0f : -INFINITY;
    label[k] = -INFINITY;
    shared[row + i + 1] = -INFINITY;
  }
  if (threadIdx.x == 0) shared[0] = shared[row] = -INFINITY;
  const float* emissions = on.emissions + sentence * in.times * slots;
  uint8_t* ways = on.ways + sentence * in.times * slots;
  Emissions<kPer> now, next;
  if (times > 0) now.load(emissions, own);
  if (times > 1) next.load(emissions + slots, own);
  __syncthreads();
  for (int64_t t = 0; t < times; ++t) {
    Emissions<kPer> after = next;
    if (t + 2 < times) after.load(emissions + (t + 2) * slots, own);
    const float* before = shared + (t + 1) % 2 * row;
    float* written = shared + t % 2 * row + 1;
#pragma unroll
    for (int k = 0; k < kPer; ++k) {
      const int i = threadIdx.x + k * blockDim.x;
      const float previous = before[i];
      int way = 0;
      float best = label[k];
      if (blank[k] > best) best = blank[k], way = 1;
      if (own.may_skip[k] && previous > best) best = previous, way = 2;
      if (previous > blank[k]) blank[k] = previous, way += 4;
      blank[k] += now.blank;
      label[k] = best + now.label[k];
      written[i] = label[k];
      if (own.blank[k]) ways[t * slots + i] = static_cast<uint8_t>(way);
    }
    __syncthreads();
    now = next;
    next = after;
  }
  float* blanks = shared + 2 * row;
#pragma unroll
  for (int k = 0; k < kPer; ++k) blanks[threadIdx.x + k * blockDim.x] = blank[k];
  __syncthreads();
  if (threadIdx.x > 0) return;

  const float* last = shared + (times + 1) % 2 * row + 1;
  bool on_label = length > 0 && last[length - 1] > blanks[length];
  int64_t i = on_label ? length - 1 : length;
  on.out.scores[sentence] = on_label ? last[i] : blanks[i];
  if (on.out.scores[sentence] == -INFINITY) return;
  for (int64_t t = times - 1; t >= 0; --t) {
    labels[t] = on_label ? label_of(in, sentence, i) : in.blank;
    const int way = ways[t * slots + i];
    if (on_label) {
      on_label = way % 4 != 1;
      i -= way % 4 == 2;
    } else if (way >= 4) {
      on_label = true;
      i -= 1;
    }
  }
}

// ---- launches ----

constexpr int kMostPer = 4;

// How many threads walk the lattice, each with one slot or kMostPer.
int threads_of(int64_t slots) {
  const int64_t count = slots <= kMostThreads ? slots : (slots + kMostPer - 1) / kMostPer;
  return static_cast<int>((count + 31) / 32 * 32);
}

template <typename E>
CtcInputs<E> typed(const CtcInputs<void>& in) {
  return {.frames = static_cast<const E*>(in.frames),
          .frame_stride = in.frame_stride,
          .sentence_stride = in.sentence_stride,
          .targets = in.targets,
          .input_lengths = in.input_lengths,
          .target_lengths = in.target_lengths,
          .batch = in.batch,
          .times = in.times,
          .classes = in.classes,
          .width = in.width,
          .blank = in.blank};
}

// Calls run(E{}).
template <typename Run>
const char* with_element(Element element, const Run& run) {
  if (element == Element::kFloat) return run(float{});
  if (element == Element::kHalf) return run(__half{});
  return run(__nv_bfloat16{});
}

template <typename E>
bool by_vectors(const CtcInputs<E>& in, const void* other) {
  const auto address = reinterpret_cast<uintptr_t>(in.frames) | reinterpret_cast<uintptr_t>(other);
  return address % 16 == 0 && in.classes * sizeof(E) % 16 == 0;
}

const char* run_gather(const CtcInputs<void>& given, float* normalizers, float* emissions, Element element,
                       void* stream) {
  const auto blocks = static_cast<unsigned>((given.batch * given.times + kWarps - 1) / kWarps);
  if (blocks == 0) return nullptr;
  return with_element(element, [&](auto kind) {
    using E = decltype(kind);
    const CtcInputs<E> in = typed<E>(given);
    if (by_vectors(in, nullptr)) {
      SEQKIT_LAUNCH((gather<E, true>), blocks, kThreads, 0, stream, in, normalizers, emissions);
    } else {
      SEQKIT_LAUNCH((gather<E, false>), blocks, kThreads, 0, stream, in, normalizers, emissions);
    }
    return launch_error();
  });
}

const char* too_long(const CtcInputs<void>& in) {
  return slots_of(in.times, in.width) > kMostPer * kMostThreads ? "targets of more than 4095 labels" : nullptr;
}

}  // namespace

const char* ctc_forward_cuda(const CtcInputs<void>& in, const CtcOutputs<void>& out, const CtcScratch& scratch,
                             Element element, void* stream) {
  if (const char* error = too_long(in)) return error;
  if (in.batch == 0) return nullptr;
  if (const char* error = run_gather(in, out.normalizers, scratch.emissions, element, stream)) return error;
  const Lattice on{.in = in,
                   .emissions = scratch.emissions,
                   .alpha = reinterpret_cast<float4*>(scratch.alpha),
                   .beta = reinterpret_cast<float4*>(scratch.beta),
                   .totals = reinterpret_cast<float2*>(scratch.totals),
                   .losses = out.losses};
  const int64_t slots = slots_of(in.times, in.width);
  const int threads = threads_of(slots);
  const bool narrow = slots <= kMostThreads;
  const size_t shared = 2 * (static_cast<size_t>(threads) * (narrow ? 1 : kMostPer) + 1) * sizeof(float4);
  const auto sentences = static_cast<unsigned>(in.batch);
  if (out.occupancy) {
    if (narrow) {
      SEQKIT_LAUNCH(walk_both_ways<1>, 2 * sentences, threads, shared, stream, on);
    } else {
      SEQKIT_LAUNCH(walk_both_ways<kMostPer>, 2 * sentences, threads, shared, stream, on);
    }
    if (const char* error = launch_error()) return error;
    const auto blocks = static_cast<unsigned>((in.batch * in.times + kWarps - 1) / kWarps);
    if (blocks == 0) return nullptr;
    SEQKIT_LAUNCH(meet, blocks, kThreads, 0, stream, on, out.occupancy);
    return launch_error();
  }
  if (narrow) {
    SEQKIT_LAUNCH(walk_forward<1>, sentences, threads, shared, stream, on);
  } else {
    SEQKIT_LAUNCH(walk_forward<kMostPer>, sentences, threads, shared, stream, on);
  }
  return launch_error();
}

const char* ctc_gradient_cuda(const CtcInputs<void>& given, const CtcGradients<void>& to, Element element,
                              void* stream) {
  if (const char* error = too_long(given)) return error;
  const int64_t chunks = (given.times + kFramesOfBlock - 1) / kFramesOfBlock;
  const auto blocks = static_cast<unsigned>(given.batch * chunks);
  if (blocks == 0) return nullptr;
  const size_t shared = 2 * static_cast<size_t>(slots_of(given.times, given.width)) * sizeof(int);
  return with_element(element, [&](auto kind) {
    using E = decltype(kind);
    const CtcInputs<E> in = typed<E>(given);
    const CtcGradients<E> grads{.grad_losses = to.grad_losses,
                                .losses = to.losses,
                                .normalizers = to.normalizers,
                                .occupancy = to.occupancy,
                                .zero_infinity = to.zero_infinity,
                                .grad = static_cast<E*>(to.grad)};
    if (by_vectors(in, grads.grad)) {
      SEQKIT_LAUNCH((gradient<E, true>), blocks, kThreads, shared, stream, in, grads);
    } else {
      SEQKIT_LAUNCH((gradient<E, false>), blocks, kThreads, shared, stream, in, grads);
    }
    return launch_error();
  });
}

const char* ctc_align_cuda(const CtcInputs<void>& in, const CtcAlignment<void>& out, float* emissions, uint8_t* ways,
                           Element element, void* stream) {
  if (const char* error = too_long(in)) return error;
  if (in.batch == 0) return nullptr;
  if (const char* error = run_gather(in, nullptr, emissions, element, stream)) return error;
  const Best on{.in = in, .out = out, .emissions = emissions, .ways = ways};
  const int64_t slots = slots_of(in.times, in.width);
  const int threads = threads_of(slots);
  const bool narrow = slots <= kMostThreads;
  const size_t shared = (3 * static_cast<size_t>(threads) * (narrow ? 1 : kMostPer) + 2) * sizeof(float);
  if (narrow) {
    SEQKIT_LAUNCH(align<1>, static_cast<unsigned>(in.batch), threads, shared, stream, on);
  } else {
    SEQKIT_LAUNCH(align<kMostPer>, static_cast<unsigned>(in.batch), threads, shared, stream, on);
  }
  return launch_error();
}

}  // namespace seqkit
