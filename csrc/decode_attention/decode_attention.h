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
//
// cuda.cu keeps the same promise in an order of its own. A step is bound by memory, so a block is one sentence and
// head, each key and value is read once, 16 bytes a lane, and beams that share a row (all of them in
// cross_attention_decode) share the read, four at a time. Positions are summed in chunks of 128 whose parts a function
// of t alone assigns to lanes, and chunks are folded one after the other.
//
// Splitting: where fewer than 129 teams of four warps would run, a row's chunks are spread over several blocks, which
// leave (top, total, sums) in scratch for a second kernel; chunks beyond the step or the length leave nothing and are
// not read. How many follows from the shapes alone (a step that the host knows is one of them), so a captured graph
// serves every step, and since a chunk is folded alike in either kernel, splitting changes no bit. The second kernel
// also makes the weights, from logits in float32.
//
// What the compiler decided (nvcc 13.0, sm_90; no kernel spills):
//   queries of four beams in registers      155 to 182 registers, 8 to 12 warps a multiprocessor
//   queries in shared memory                123 to 127 for 16-bit numbers, 16 warps; 145 to 148 for float
//   one kernel for rows on and off 16 bytes 172 to 198, because of the gathered numbers; two kernels: 95 and 121
//   an ancestor read by each group in turn  122; one by each lane and a shuffle: 96, and one wait instead of two
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
  float* scratch;  // on a GPU, as many floats as decode_attention_scratch says
};

// Computes units [begin, end) of the B * H.
void decode_attention_run(const DecodeAttention& call, int64_t begin, int64_t end);

int64_t decode_attention_scratch(const DecodeAttention& call);

// Launches the whole problem; null or an error text. What the CPU refuses in ancestry, lengths and step_at is clamped.
const char* decode_attention_cuda(const DecodeAttention& call, Element element, void* stream);

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
const char* extend_ancestry_cuda(const ExtendAncestry& call, void* stream);  // parents and step_at are clamped

}  // namespace seqkit
