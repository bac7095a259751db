#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <atomic>

#include "common/check.h"
#include "matmul/matmul.h"

namespace seqkit {
namespace {

// Below these the packing, or the zeros that fill a strip, cost more than the tiles save.
constexpr int64_t kFewest = 64;
constexpr int64_t kLeastWork = 1 << 22;

Tensor pack(const Lines& lines, const Tensor& like, std::atomic<bool>& fits) {
  const int64_t steps = (lines.depth + kStripStep - 1) / kStripStep;
  Tensor packed = torch::stable::new_empty(like, {strips(lines.count), steps, kStripBits}, ScalarType::BFloat16);
  uint16_t* to = static_cast<uint16_t*>(packed.mutable_data_ptr());
  torch::stable::parallel_for(0, strips(lines.count), 1 + (1 << 15) / (lines.depth * kStrip),
                              [&](int64_t begin, int64_t end) {
                                if (!split_pack(lines, to, begin, end)) fits = false;
                              });
  return packed;
}

void check_matrix(const char* name, const Tensor& x) {
  constexpr const char* kWhere = "matmul";
  check_cpu(kWhere, name, x);
  check_dtype(kWhere, name, x, ScalarType::Float);
  check_shape(kWhere, name, x, {kAny, kAny});
}

bool has_unit_stride(const Tensor& x) { return x.stride(0) == 1 || x.stride(1) == 1; }

Tensor matmul(const Tensor& a, const Tensor& b) {
  check_matrix("a", a);
  check_matrix("b", b);
  check_shape("matmul", "b", b, {a.size(1), kAny});
  const int64_t rows = a.size(0), depth = a.size(1), columns = b.size(1);
  const bool pays = rows >= kFewest && columns >= kFewest && depth >= kFewest && rows * depth >= kLeastWork / columns;
  if (pays && has_unit_stride(a) && has_unit_stride(b) && split_product_available()) {
    std::atomic<bool> fits = true;
    const Tensor packed_a = pack({.data = static_cast<const float*>(a.const_data_ptr()),
                                  .count = rows,
                                  .depth = depth,
                                  .line = a.stride(0),
                                  .step = a.stride(1),
                                  .columns = false},
                                 a, fits);
    const Tensor packed_b = pack({.data = static_cast<const float*>(b.const_data_ptr()),
                                  .count = columns,
                                  .depth = depth,
                                  .line = b.stride(1),
                                  .step = b.stride(0),
                                  .columns = true},
                                 b, fits);
    if (fits) {
      Tensor c = torch::stable::new_empty(a, {rows, columns});
      const SplitProduct product{
          .a = static_cast<const uint16_t*>(packed_a.const_data_ptr()),
          .b = static_cast<const uint16_t*>(packed_b.const_data_ptr()),
          .c = static_cast<float*>(c.mutable_data_ptr()),
          .rows = rows,
          .columns = columns,
          .depth = depth,
      };
      torch::stable::parallel_for(0, split_product_units(product), 1,
                                  [&](int64_t begin, int64_t end) { split_product_run(product, begin, end); });
      return c;
    }
  }
  return torch::stable::matmul(a, b);
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) { library.def("matmul(Tensor a, Tensor b) -> Tensor"); }

SEQKIT_LIBRARY_IMPL(CPU, library) { library.impl("matmul", TORCH_BOX(&seqkit::matmul)); }
