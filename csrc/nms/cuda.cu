// nms.h on a card, in float32, for boxes that are sorted best first. They are taken in chunks, one after the other: a
// block decides within a chunk, and a grid strikes out what stands too near to those of the chunk that stay, among all
// that follow. No number leaves the card, and no [N, N] table is built.
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

SEQKIT_DEVICE Box box_at(const float* boxes, int64_t index) {
  const float4 x = load_4(boxes + 4 * index);
  return {x, rounded_product(x.z - x.x, x.w - x.y)};
}

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
    const float4 x = corners[i];
    if (iou_of({x, rounded_product(x.z - x.x, x.w - x.y)}, own) > threshold) {
      keep[index] = false;
      return;
    }
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

const char* box_iou_cuda(const float* a, const float* b, int64_t rows, int64_t columns, float* iou, void* stream) {
  const int64_t grid = (columns + kThreads - 1) / kThreads * ((rows + kRowsOfBlock - 1) / kRowsOfBlock);
  SEQKIT_LAUNCH(iou_kernel, dim3(static_cast<unsigned>(grid)), dim3(kThreads), 0, stream, a, b, rows, columns, iou);
  return launch_error();
}

}  // namespace seqkit
