#include <algorithm>
#include <memory>

#include "common/device.h"
#include "decode_attention/decode_attention.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(decode_heads, (const DecodeAttention& call, int64_t sentence, int64_t first_head,
                                     int64_t last_head, int64_t count, const int64_t* offsets, float* scratch));

namespace {

constexpr int64_t kPad = 16;  // the widest vector

}  // namespace

void decode_attention_run(const DecodeAttention& call, int64_t begin, int64_t end) {
  const auto run_heads = SEQKIT_PICK_LEVEL(decode_heads);
  const int64_t step = call.step_at ? *call.step_at : call.step;
  const int64_t padded = (call.capacity + kPad - 1) / kPad * kPad;
  const int64_t tables = call.ancestry ? call.beams : 1;
  const std::unique_ptr<int64_t[]> offsets(new int64_t[2 * tables * call.capacity + 1]);
  // Queries, sums and logits of the heads in turn, as decode_heads takes them.
  const int64_t heads = std::min(end - begin, call.heads);
  const std::unique_ptr<float[]> scratch(new float[heads * call.beams * (2 * call.width + padded)]);
  for (int64_t unit = begin; unit < end;) {
    const int64_t sentence = unit / call.heads, first = unit % call.heads;
    const int64_t last = std::min(call.heads, first + end - unit);
    const int64_t count = call.lengths ? call.lengths[sentence] : step + 1;
    for (int64_t beam = 0; beam < tables; ++beam) {
      const int64_t* row = call.ancestry ? call.ancestry + (sentence * call.beams + beam) * call.capacity : nullptr;
      int64_t* to = offsets.get() + beam * count;
      for (int64_t t = 0; t < count; ++t) {
        const int64_t writer = row ? row[t] : 0;
        to[t] = writer * call.k_strides.beam + t * call.k_strides.position;
        to[tables * count + t] = writer * call.v_strides.beam + t * call.v_strides.position;
      }
    }
    run_heads(call, sentence, first, last, count, offsets.get(), scratch.get());
    unit += last - first;
  }
}

void extend_ancestry_run(const ExtendAncestry& call) {
  const int64_t step = call.step_at ? *call.step_at : call.step;
  const int64_t kept = std::min(step + 1, call.capacity);
  const std::unique_ptr<int64_t[]> old(call.from == call.to ? new int64_t[call.beams * kept + 1] : nullptr);
  for (int64_t sentence = 0; sentence < call.batch; ++sentence) {
    const int64_t* from = call.from + sentence * call.beams * call.capacity;
    int64_t from_row = call.capacity;
    if (old) {
      for (int64_t beam = 0; beam < call.beams; ++beam) {
        std::copy_n(from + beam * call.capacity, kept, old.get() + beam * kept);
      }
      from = old.get();
      from_row = kept;
    }
    for (int64_t beam = 0; beam < call.new_beams; ++beam) {
      int64_t* to = call.to + (sentence * call.new_beams + beam) * call.capacity;
      std::copy_n(from + call.parents[sentence * call.new_beams + beam] * from_row, kept, to);
      std::fill(to + kept, to + call.capacity, 0);
      if (kept < call.capacity) to[kept] = beam;
    }
  }
}

}  // namespace seqkit
