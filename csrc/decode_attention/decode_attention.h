// One step of attention in a beam search: out_k = sum_t softmax_t(scale q_k . key_t) value_t for each hypothesis k.
//
// decode_attention reads a cache in which beam c wrote its keys and values; the ancestry says which beam wrote position
// t of hypothesis k, so that a change of hypotheses moves a table of integers and never the cache. For
// cross_attention_decode all beams of a sentence read one copy of keys and values, up to the sentence's length.
//
// A row of `out` depends on its own query and the keys it sees, to the last bit: a product is summed in the order of d
// (lane by lane, then lanes by halves), the softmax and the sum over values in the order of t. Neither other beams nor
// the batch, the capacity or threads can matter.
//
// Layout: any strides whose last is 1; `out` is contiguous.
#pragma once

#include <cstdint>

#include "common/device.h"

namespace seqkit {

// In numbers, not bytes; the axis within a head has stride 1.
struct DecodeStrides {
  int64_t batch, beam, position, head;
};

struct DecodeAttention {
  const void *q, *k, *v;  // float on the CPU
  DecodeStrides q_strides, k_strides, v_strides;
  const int64_t* ancestry;  // [B, K, Tmax] in 0 .. C - 1, or null: every beam reads cache beam 0
  const int64_t* lengths;   // [B] in 0 .. Tmax, or null: step + 1 positions count
  const int64_t* step_at;   // where the step stands, or null: `step`
  int64_t step;
  void* out;                           // [B, K, H, Dh], zeros where nothing counts
  void* weights;                       // [B, K, H, Tmax], zeros beyond what counts, or null
  int64_t batch, beams, heads, width;  // B, K, H, Dh
  int64_t cache_beams, capacity;       // C, Tmax (S)
  double scale;
};

// Computes units [begin, end) of the B * H.
void decode_attention_run(const DecodeAttention& call, int64_t begin, int64_t end);

// to[b, j, t] = from[b, parents[b, j], t] for t <= step, j at step + 1, and 0 beyond; `to` may be `from` if the beams
// are as many.
struct ExtendAncestry {
  const int64_t* from;     // [B, K, Tmax]
  const int64_t* parents;  // [B, K2] in 0 .. K - 1
  const int64_t* step_at;  // where the step stands, or null: `step`
  int64_t step;            // from -1
  int64_t* to;             // [B, K2, Tmax]
  int64_t batch, beams, new_beams, capacity;
};

void extend_ancestry_run(const ExtendAncestry& call);

}  // namespace seqkit
