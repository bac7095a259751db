// C = A B of float32 matrices at float32's accuracy, by the bfloat16 tiles of AMX.
//
// A float32 is the sum of three bfloat16: x = hi + mid + lo, rounded at each cut, 24 bits in all. Of the nine products
// of two such sums the six that matter (hi hi, hi mid, mid hi, hi lo, lo hi, mid mid; what is left out is below 2^-24
// of the product) are summed in float32 by the tiles, the small ones first. The error is 0.6 of sgemm's (root mean
// square, depth 650).
//
// The speed, for 700 x 650 x 2600 on one thread: the tiles alone reach 400 of the 600 GFLOP/s that six products leave
// of their rate, as they wait for the second cache; sgemm reaches 200. A whole call, packing and cold memory included,
// takes 0.7 to 0.9 of sgemm's time, and no less than it between the other kernels of a training step on a busy machine.
//
// Which numbers: those whose magnitude is 0 or from 2^-102 to below 2^56. A smaller one loses what lies below 2^-126,
// since AMX takes subnormal numbers for zero. A larger one, an infinity or a NaN has no such sum: packing says so, and
// the caller multiplies in float32 instead.
//
// Layout: A is packed in strips of 32 rows and B in strips of 32 columns, for each 32 steps of the depth two tiles (the
// halves of the strip) in three parts, 1 KB each, zero beyond the matrix. A tile of A is [16 rows][32 steps], one of B
// [16 pairs of steps][16 columns][2], as AMX asks. A block of A stays in the cache while the strips of B pass.
//
// Tried and dropped:
//   a part of B in the first cache       C is met more often, and each visit costs 0.3 us: 310 to 350 GFLOP/s
//   prefetching A, B or C                none faster, most some 5 % slower
//   sums stored within the next strip    no faster
//   packed parts kept between calls      no faster
#pragma once

#include <cstdint>

namespace seqkit {

constexpr int64_t kStrip = 32;                    // rows of A or columns of B that are packed together
constexpr int64_t kStripStep = 32;                // depth of a tile
constexpr int64_t kStripBits = 2 * 3 * 16 * 32;   // bfloat16 of a strip for each step of the depth
constexpr int64_t kDepthBlock = 24 * kStripStep;  // depth of one chain of sums; longer ones would lose bits
constexpr int64_t kRowBlock = 9;                  // strips of A that stay in the cache

inline int64_t strips(int64_t size) { return (size + kStrip - 1) / kStrip; }

// The lines of a matrix that are packed (rows of A, columns of B), each of `depth` numbers.
struct Lines {
  const float* data;
  int64_t count, depth;
  int64_t line, step;  // distances between lines and within one; one of them is 1
  bool columns;        // packed as B
};

struct SplitProduct {
  const uint16_t *a, *b;  // packed
  float* c;               // [rows, columns], dense
  int64_t rows, columns, depth;
};

// Whether this machine has the tiles, and the system lets this process use them.
bool split_product_available();

// Packs strips [begin, end); false where a number is too large to be split.
bool split_pack(const Lines& lines, uint16_t* to, int64_t begin, int64_t end);

// The units of a product: a strip of B against a block of kRowBlock strips of A each.
int64_t split_product_units(const SplitProduct& product);

// Computes units [begin, end).
void split_product_run(const SplitProduct& product, int64_t begin, int64_t end);

}  // namespace seqkit
