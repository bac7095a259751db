// Greedy non-maximum suppression and intersection over union of boxes (x1, y1, x2, y2).
//
// A box goes if its IoU with a better one that stays, of its own class, is above the threshold. Better is the higher
// score, then the lower index. IoU = inter / (area_a + area_b - inter) in the precision of the boxes, operation for
// operation as torchvision has it, so that the decisions are the same at the last bit.
//
// On the CPU the boxes of a class are visited best first and compared with those that stay, a vector at a time, until
// one is too near. Most pairs do not meet, and a division is done only where some do.
//
// Tried and dropped:
//   striking out the rest of the list for each box that stays    twice the pairs: a struck box is met again and again
#pragma once

#include <cstdint>

namespace seqkit {

template <typename Number>
struct NmsCall {
  const Number* boxes;     // [N, 4]
  const Number* scores;    // [N]
  const int64_t* classes;  // [N], or null for one
  int64_t count;           // N
  double threshold;
};

// Writes the indices of the boxes that stay, best first, and returns how many.
template <typename Number>
int64_t nms_run(const NmsCall<Number>& call, int64_t* kept);

// Soft-NMS (Bodla et al. 2017, arXiv:1704.04503): the scores of the others fall by their IoU with the best.
enum class Decay : int64_t { kLinear = 0, kGaussian = 1 };

template <typename Number>
struct SoftNmsCall {
  const Number* boxes;   // [N, 4]
  const Number* scores;  // [N]
  int64_t count;
  Decay decay;
  double sigma, threshold, least_score;
};

// Writes indices and lowered scores in the order of the choice, and returns how many.
template <typename Number>
int64_t soft_nms_run(const SoftNmsCall<Number>& call, int64_t* kept, Number* scores);

// iou[i][j] of box i of `a` [N, 4], rows [begin, end), and box j of `b` [M, 4].
template <typename Number>
void box_iou_run(const Number* a, const Number* b, int64_t columns, Number* iou, int64_t begin, int64_t end);

// The largest float that is not above a number: a float is above the one exactly if it is above the other.
float not_above(double threshold);

// On CUDA: keep[i] of boxes sorted best first, float only, 16 bytes each; null, or what went wrong with a launch.
const char* nms_mask_cuda(const float* boxes, const int64_t* classes, int64_t count, float threshold, bool* keep,
                          void* stream);

// Soft-NMS on CUDA by one block: indices and lowered scores in the order of the choice, behind them -1 and 0. `room`
// holds soft_nms_room(N) times 16 bytes, none where the boxes fit into shared memory.
constexpr int kSoftNmsThreads = 1024;
int64_t soft_nms_room(int64_t count);
const char* soft_nms_cuda(const SoftNmsCall<float>& call, float* room, int64_t* kept, float* scores, void* stream);

const char* box_iou_cuda(const float* a, const float* b, int64_t rows, int64_t columns, float* iou, void* stream);

}  // namespace seqkit
