#include "additive_attention/additive_attention.h"
#include "common/device.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(additive_row, (const AdditiveAttention& call, int64_t row));

void additive_attention_run(const AdditiveAttention& call, int64_t begin, int64_t end) {
  const auto one_row = SEQKIT_PICK_LEVEL(additive_row);
  for (int64_t row = begin; row < end; ++row) one_row(call, row);
}

}  // namespace seqkit
