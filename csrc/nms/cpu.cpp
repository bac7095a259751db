// The definitions of nms.h, for float64; the way into the vectors of float32; sorting.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "common/device.h"
#include "nms/nms.h"

namespace seqkit {

// kept_* hold the boxes that stay, padded to a whole vector; whether one of them is too near.
SEQKIT_DECLARE_LEVELS(nms_meets,
                      (const float* const* kept, int64_t count, const float* box, float threshold, bool* meets));
SEQKIT_DECLARE_LEVELS(nms_overlaps, (const float* const* others, int64_t count, const float* box, float* iou));

namespace {

constexpr int64_t kPad = 16;  // the widest vector

// Boxes by column: x1, y1, x2, y2 and area.
template <typename Number>
struct Columns {
  explicit Columns(int64_t capacity) : stride(capacity + kPad), numbers(new Number[5 * (capacity + kPad)]()) {
    for (int64_t n = 0; n < 5; ++n) column[n] = numbers.get() + n * stride;
  }
  void set(int64_t at, const Number* box) {
    for (int64_t n = 0; n < 4; ++n) numbers[n * stride + at] = box[n];
    numbers[4 * stride + at] = (box[2] - box[0]) * (box[3] - box[1]);
  }
  int64_t stride;
  std::unique_ptr<Number[]> numbers;
  const Number* column[5];
};

template <typename Number>
Number iou_of(const Number* a, Number area_a, const Number* b, Number area_b) {
  const Number width = std::max(Number(0), std::min(a[2], b[2]) - std::max(a[0], b[0]));
  const Number height = std::max(Number(0), std::min(a[3], b[3]) - std::max(a[1], b[1]));
  const Number inter = width * height;
  return inter / (area_a + area_b - inter);
}

template <typename Number>
Number area_of(const Number* box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

template <typename Bits>
struct Entry {
  Bits key;
  int64_t index;
};

// Sorts by rising keys, equal ones as they stood: a radix sort that leaves out the digits in which all agree.
template <typename Bits>
void sort_entries(std::vector<Entry<Bits>>& entries) {
  constexpr int kDigit = 11, kPasses = (8 * int(sizeof(Bits)) + kDigit - 1) / kDigit;
  constexpr Bits kMask = (Bits(1) << kDigit) - 1;
  std::vector<Entry<Bits>> sorted(entries.size());
  for (int pass = 0; pass < kPasses && !entries.empty(); ++pass) {
    const auto digit = [&](const Entry<Bits>& entry) { return (entry.key >> (pass * kDigit)) & kMask; };
    std::vector<int64_t> starts(kMask + 2, 0);
    for (const auto& entry : entries) ++starts[digit(entry) + 1];
    if (starts[digit(entries[0]) + 1] == int64_t(entries.size())) continue;
    for (size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
    for (const auto& entry : entries) sorted[starts[digit(entry)]++] = entry;
    entries.swap(sorted);
  }
}

// Indices by falling score, equal ones by index.
template <typename Number>
std::vector<int64_t> best_first(const Number* scores, int64_t count) {
  using Bits = std::conditional_t<sizeof(Number) == 4, uint32_t, uint64_t>;
  constexpr Bits kSign = Bits(1) << (8 * sizeof(Number) - 1);
  std::vector<Entry<Bits>> entries(count);
  for (int64_t i = 0; i < count; ++i) {
    const Number score = scores[i] + Number(0);  // -0 becomes 0
    Bits bits;
    std::memcpy(&bits, &score, sizeof bits);
    entries[i] = {static_cast<Bits>(bits & kSign ? bits : ~(bits | kSign)), i};
  }
  sort_entries(entries);
  std::vector<int64_t> order(count);
  for (int64_t i = 0; i < count; ++i) order[i] = entries[i].index;
  return order;
}

std::vector<int64_t> as_they_stand(int64_t count) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

// The same indices with those of a class together.
std::vector<int64_t> by_class(const std::vector<int64_t>& order, const int64_t* classes) {
  std::vector<Entry<uint64_t>> entries(order.size());
  for (size_t i = 0; i < order.size(); ++i) entries[i] = {static_cast<uint64_t>(classes[order[i]]), order[i]};
  sort_entries(entries);
  std::vector<int64_t> grouped(order.size());
  for (size_t i = 0; i < order.size(); ++i) grouped[i] = entries[i].index;
  return grouped;
}

// Whether a box is too near to one of those that stay.
bool meets(const Columns<float>& kept, int64_t count, const float* box, double threshold) {
  bool found = false;
  SEQKIT_PICK_LEVEL(nms_meets)(kept.column, count, box, not_above(threshold), &found);
  return found;
}

bool meets(const Columns<double>& kept, int64_t count, const double* box, double threshold) {
  const double area = area_of(box);
  for (int64_t i = 0; i < count; ++i) {
    const double other[4] = {kept.column[0][i], kept.column[1][i], kept.column[2][i], kept.column[3][i]};
    if (iou_of(other, kept.column[4][i], box, area) > threshold) return true;
  }
  return false;
}

void overlaps(const Columns<float>& others, int64_t count, const float* box, float* iou) {
  SEQKIT_PICK_LEVEL(nms_overlaps)(others.column, count, box, iou);
}

void overlaps(const Columns<double>& others, int64_t count, const double* box, double* iou) {
  const double area = area_of(box);
  for (int64_t i = 0; i < count; ++i) {
    const double other[4] = {others.column[0][i], others.column[1][i], others.column[2][i], others.column[3][i]};
    iou[i] = iou_of(box, area, other, others.column[4][i]);
  }
}

}  // namespace

float not_above(double threshold) {
  const float rounded = float(threshold);
  return double(rounded) > threshold ? std::nextafter(rounded, -std::numeric_limits<float>::infinity()) : rounded;
}

template <typename Number>
int64_t nms_run(const NmsCall<Number>& call, int64_t* kept) {
  const std::vector<int64_t> order = call.scores ? best_first(call.scores, call.count) : as_they_stand(call.count);
  const std::vector<int64_t> grouped = call.classes ? by_class(order, call.classes) : order;
  std::vector<uint8_t> stays(call.count, 0);
  Columns<Number> chosen(call.count);
  int64_t n_chosen = 0;
  for (int64_t i = 0; i < call.count; ++i) {
    const int64_t index = grouped[i];
    if (call.classes && i > 0 && call.classes[index] != call.classes[grouped[i - 1]]) n_chosen = 0;
    const Number* box = call.boxes + 4 * index;
    if (meets(chosen, n_chosen, box, call.threshold)) continue;
    stays[index] = 1;
    chosen.set(n_chosen++, box);
  }
  int64_t count = 0;
  for (const int64_t index : order) {
    if (stays[index]) kept[count++] = index;
  }
  return count;
}

template <typename Number>
int64_t soft_nms_run(const SoftNmsCall<Number>& call, int64_t* kept, Number* scores) {
  Columns<Number> left(call.count);
  std::vector<int64_t> index(call.count);
  std::vector<Number> score(call.scores, call.scores + call.count), iou(call.count + kPad);
  for (int64_t i = 0; i < call.count; ++i) {
    left.set(i, call.boxes + 4 * i);
    index[i] = i;
  }
  int64_t count = 0, n_left = call.count;
  while (n_left > 0) {
    const int64_t best = std::max_element(score.begin(), score.begin() + n_left) - score.begin();
    if (!(score[best] >= Number(call.least_score))) break;
    kept[count] = index[best];
    scores[count++] = score[best];
    const Number* box = call.boxes + 4 * index[best];
    overlaps(left, n_left, box, iou.data());
    // The others keep their order, so that the lower index wins among equals.
    int64_t to = 0;
    for (int64_t i = 0; i < n_left; ++i) {
      if (i == best) continue;
      Number factor = 1;
      if (call.decay == Decay::kGaussian) {
        factor = iou[i] > 0 ? Number(std::exp(-double(iou[i]) * double(iou[i]) / call.sigma)) : Number(1);
      } else if (iou[i] > Number(call.threshold)) {
        factor = 1 - iou[i];
      }
      const Number lowered = score[i] * factor;
      if (!(lowered >= Number(call.least_score))) continue;
      score[to] = lowered;
      index[to] = index[i];
      left.set(to++, call.boxes + 4 * index[i]);
    }
    n_left = to;
  }
  return count;
}

template <typename Number>
void box_iou_run(const Number* a, const Number* b, int64_t columns, Number* iou, int64_t begin, int64_t end) {
  Columns<Number> others(columns);
  for (int64_t j = 0; j < columns; ++j) others.set(j, b + 4 * j);
  for (int64_t i = begin; i < end; ++i) overlaps(others, columns, a + 4 * i, iou + i * columns);
}

#define SEQKIT_DEFINE_NMS(Number)                                               \
  template int64_t nms_run(const NmsCall<Number>&, int64_t*);                   \
  template int64_t soft_nms_run(const SoftNmsCall<Number>&, int64_t*, Number*); \
  template void box_iou_run(const Number*, const Number*, int64_t, Number*, int64_t, int64_t)
SEQKIT_DEFINE_NMS(float);
SEQKIT_DEFINE_NMS(double);

}  // namespace seqkit
