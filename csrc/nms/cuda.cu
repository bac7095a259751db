// nms.h on a card, in float32. No number leaves the card, and no [N, N] table is built.
//
// nms_mask: boxes that are sorted best first are taken in chunks, one after the other: a block decides within a chunk,
// and a grid strikes out what stands too near to those of the chunk that stay, among all that follow.
//
// soft_nms: a choice depends on all before it, so one block makes them in turn, with one barrier each. A thread owns
// every 1024th box, lowers their scores and finds the best of them in one pass, and closes up over those that go, so
// that it needs no other thread to know what is left.
#include "common/cuda.h"
#include "nms/nms.h"

namespace seqkit {
namespace {

constexpr int kChunk = 512, kThreads = 256;
constexpr int kWords = kChunk / 32;

struct Box {
  float4 corners;
  float area;
};

SEQKIT_DEVICE Box box_of(float4 x) { return {x, rounded_product(x.z - x.x, x.w - x.y)}; }

SEQKIT_DEVICE Box box_at(const float* boxes, int64_t index) { return box_of(load_4(boxes + 4 * index)); }

// Operation for operation as on the CPU; a NaN is above no threshold.
SEQKIT_DEVICE float iou_of(const Box& a, const Box& b) {
  const float width = fmaxf(0.0f, fminf(a.corners.z, b.corners.z) - fmaxf(a.corners.x, b.corners.x));
  const float height = fmaxf(0.0f, fminf(a.corners.w, b.corners.w) - fmaxf(a.corners.y, b.corners.y));
  const float inter = rounded_product(width, height);
  return inter / (a.area + b.area - inter);
}

__global__ void __launch_bounds__(kThreads) start_kernel(int64_t count, bool* keep) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < count) keep[i] = true;
}

// Decides on boxes first .. first + kChunk - 1, of which those that an earlier chunk struck out are not kept already.
__global__ void __launch_bounds__(kThreads) decide_kernel(const float* boxes, const int64_t* classes, int64_t first,
                                                          int64_t count, float threshold, bool* keep) {
  SEQKIT_DYNAMIC_SHARED(uint32_t, near);           // [kChunk, kWords]: bit j of row i says that i strikes j out
  uint32_t* const stays = near + kChunk * kWords;  // [kWords]
  const int size = static_cast<int>(min(count - first, int64_t{kChunk}));
  for (int cell = threadIdx.x; cell < kChunk * kWords; cell += kThreads) {
    const int i = cell / kWords, start = cell % kWords * 32;
    uint32_t bits = 0;
    if (i < size && keep[first + i]) {
      const Box own = box_at(boxes, first + i);
      for (int j = max(start, i + 1); j < min(start + 32, size); ++j) {
        if (classes && classes[first + i] != classes[first + j]) continue;
        if (iou_of(own, box_at(boxes, first + j)) > threshold) bits |= 1u << (j - start);
      }
    }
    near[cell] = bits;
  }
  for (int word = threadIdx.x; word < kWords; word += kThreads) {
    uint32_t bits = 0;
    for (int bit = 0; bit < 32; ++bit) {
      if (word * 32 + bit < size && keep[first + word * 32 + bit]) bits |= 1u << bit;
    }
    stays[word] = bits;
  }
  __syncthreads();
  if (threadIdx.x < 32) {  // one warp goes through the rows in order, a lane holds a word
    const int lane = threadIdx.x;
    uint32_t own = lane < kWords ? stays[lane] : 0;
    for (int i = 0; i < size; ++i) {
      const uint32_t holder = __shfl_sync(kWholeWarp, own, i / 32);
      if (holder >> (i % 32) & 1 && lane < kWords) own &= ~near[i * kWords + lane];
    }
    if (lane < kWords) stays[lane] = own;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < size; i += kThreads) keep[first + i] = stays[i / 32] >> (i % 32) & 1;
}

// Strikes out boxes from first + kChunk on that stand too near to one of the chunk that stays.
__global__ void __launch_bounds__(kThreads) strike_kernel(const float* boxes, const int64_t* classes, int64_t first,
                                                          int64_t count, float threshold, bool* keep) {
  SEQKIT_DYNAMIC_SHARED(float4, corners);                               // [kChunk]
  int64_t* const kinds = reinterpret_cast<int64_t*>(corners + kChunk);  // [kChunk]
  bool* const stays = reinterpret_cast<bool*>(kinds + kChunk);          // [kChunk]
  for (int i = threadIdx.x; i < kChunk; i += kThreads) {
    corners[i] = load_4(boxes + 4 * (first + i));
    kinds[i] = classes ? classes[first + i] : 0;
    stays[i] = keep[first + i];
  }
  __syncthreads();
  const int64_t index = first + kChunk + int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= count || !keep[index]) return;
  const Box own = box_at(boxes, index);
  const int64_t kind = classes ? classes[index] : 0;
  for (int i = 0; i < kChunk; ++i) {
    if (!stays[i] || kinds[i] != kind) continue;
    if (iou_of(box_of(corners[i]), own) > threshold) {
      keep[index] = false;
      return;
    }
  }
}

constexpr int kSoftWarps = kSoftNmsThreads / 32;
constexpr int64_t kSoftBytes = sizeof(float4) + sizeof(float) + sizeof(int);  // of a box that is left
constexpr size_t kMostShared = 96 * 1024;  // what every card since sm_80 gives a block

// A number that is greater for the better of two boxes: the higher score, then the lower index. Never 0.
SEQKIT_DEVICE uint64_t standing_of(float score, int index) {
  const uint32_t bits = __float_as_uint(score + 0.0f);  // -0 becomes 0
  const uint32_t high = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{high} << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}

SEQKIT_DEVICE int index_of(uint64_t standing) {
  return static_cast<int>(0xffffffffu - static_cast<uint32_t>(standing));
}

SEQKIT_DEVICE float score_of(uint64_t standing) {
  const uint32_t high = static_cast<uint32_t>(standing >> 32);
  return __uint_as_float(high & 0x80000000u ? high & 0x7fffffffu : ~high);
}

SEQKIT_DEVICE uint64_t warp_greatest(uint64_t value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    const uint64_t other = __shfl_xor_sync(kWholeWarp, value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// The corners may stand at any address.
SEQKIT_DEVICE float4 corners_at(const float* boxes, int64_t index) {
  const float* const box = boxes + 4 * index;
  return {box[0], box[1], box[2], box[3]};
}

// What is left stands in shared memory, or in `room` where it does not fit.
template <bool kInShared>
__global__ void __launch_bounds__(kSoftNmsThreads)
    soft_kernel(const SoftNmsCall<float> call, float4* room, int64_t* kept, float* lowered) {
  SEQKIT_DYNAMIC_SHARED(uint64_t, bests);  // [2, kSoftWarps]: of each warp, one choice here and the next there
  const int count = static_cast<int>(call.count), me = threadIdx.x, threads = blockDim.x;
  // Of the boxes that are left; those of a thread stand at me, me + threads and so on.
  float4* const corners = kInShared ? reinterpret_cast<float4*>(bests + 2 * kSoftWarps) : room;  // [N]
  float* const scores = reinterpret_cast<float*>(corners + count);                               // [N]
  int* const indices = reinterpret_cast<int*>(scores + count);                                   // [N]
  const float least = static_cast<float>(call.least_score), threshold = static_cast<float>(call.threshold);

  uint64_t best = 0;  // of the thread's boxes; 0 is none
  int end = me;       // of the thread's boxes
  for (int i = me; i < count; i += threads) {
    const float score = call.scores[i];
    if (!(score >= least)) continue;
    corners[end] = corners_at(call.boxes, i);
    scores[end] = score;
    indices[end] = i;
    end += threads;
    const uint64_t own = standing_of(score, i);
    best = own > best ? own : best;
  }

  int chosen = 0;
  while (true) {
    uint64_t* const here = bests + chosen % 2 * kSoftWarps;
    best = warp_greatest(best);
    if (me % 32 == 0) here[me / 32] = best;
    __syncthreads();
    best = warp_greatest(me % 32 < threads / 32 ? here[me % 32] : 0);
    if (best == 0) break;
    const int index = index_of(best);
    if (me == 0) {
      kept[chosen] = index;
      lowered[chosen] = score_of(best);
    }
    ++chosen;
    const Box box = box_of(corners_at(call.boxes, index));
    best = 0;
    int to = me;
    for (int from = me; from < end; from += threads) {
      const int i = indices[from];
      if (i == index) continue;
      const float4 x = corners[from];
      const float iou = iou_of(box, box_of(x));
      float factor = 1.0f;
      if (call.decay == Decay::kGaussian) {
        if (iou > 0.0f)
          factor = static_cast<float>(exp(-static_cast<double>(iou) * static_cast<double>(iou) / call.sigma));
      } else if (iou > threshold) {
        factor = 1.0f - iou;
      }
      const float score = scores[from] * factor;
      if (!(score >= least)) continue;
      if (to != from) {
        corners[to] = x;
        indices[to] = i;
      }
      scores[to] = score;
      to += threads;
      const uint64_t own = standing_of(score, i);
      best = own > best ? own : best;
    }
    end = to;
  }
  for (int i = chosen + me; i < count; i += threads) {
    kept[i] = -1;
    lowered[i] = 0.0f;
  }
}

constexpr int kRowsOfBlock = 16;

__global__ void __launch_bounds__(kThreads)
    iou_kernel(const float* a, const float* b, int64_t rows, int64_t columns, float* iou) {
  const int64_t row_blocks = (rows + kRowsOfBlock - 1) / kRowsOfBlock;
  const int64_t j = blockIdx.x / row_blocks * kThreads + threadIdx.x, first = blockIdx.x % row_blocks * kRowsOfBlock;
  if (j >= columns) return;
  const Box own = box_at(b, j);
  for (int64_t i = first; i < min(first + kRowsOfBlock, rows); ++i) iou[i * columns + j] = iou_of(box_at(a, i), own);
}

unsigned blocks(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

}  // namespace

const char* nms_mask_cuda(const float* boxes, const int64_t* classes, int64_t count, float threshold, bool* keep,
                          void* stream) {
  SEQKIT_LAUNCH(start_kernel, dim3(blocks(count)), dim3(kThreads), 0, stream, count, keep);
  for (int64_t first = 0; first < count; first += kChunk) {
    SEQKIT_LAUNCH(decide_kernel, dim3(1), dim3(kThreads), (kChunk * kWords + kWords) * sizeof(uint32_t), stream, boxes,
                  classes, first, count, threshold, keep);
    if (const char* error = launch_error()) return error;
    if (first + kChunk >= count) break;
    SEQKIT_LAUNCH(strike_kernel, dim3(blocks(count - first - kChunk)), dim3(kThreads),
                  kChunk * (sizeof(float4) + sizeof(int64_t) + sizeof(bool)), stream, boxes, classes, first, count,
                  threshold, keep);
  }
  return launch_error();
}

int64_t soft_nms_room(int64_t count) {
  constexpr int64_t kFixed = 2 * kSoftWarps * sizeof(uint64_t);
  const bool fits = kFixed + kSoftBytes * count <= static_cast<int64_t>(kMostShared);
  return fits ? 0 : (kSoftBytes * count + 15) / 16;
}

const char* soft_nms_cuda(const SoftNmsCall<float>& call, float* room, int64_t* kept, float* scores, void* stream) {
  if (call.count == 0) return nullptr;
  const int64_t warps = (call.count + 31) / 32, threads = 32 * (warps < kSoftWarps ? warps : kSoftWarps);
  const size_t shared = 2 * kSoftWarps * sizeof(uint64_t) + (room ? 0 : kSoftBytes * call.count);
  const auto launch = [&](auto* kernel) {
    SEQKIT_LAUNCH(*kernel, dim3(1), dim3(static_cast<unsigned>(threads)), shared, stream, call,
                  reinterpret_cast<float4*>(room), kept, scores);
  };
  room ? launch(&soft_kernel<false>) : launch(&soft_kernel<true>);
  return launch_error();
}

const char* box_iou_cuda(const float* a, const float* b, int64_t rows, int64_t columns, float* iou, void* stream) {
  const int64_t grid = (columns + kThreads - 1) / kThreads * ((rows + kRowsOfBlock - 1) / kRowsOfBlock);
  SEQKIT_LAUNCH(iou_kernel, dim3(static_cast<unsigned>(grid)), dim3(kThreads), 0, stream, a, b, rows, columns, iou);
  return launch_error();
}

}  // namespace seqkit
