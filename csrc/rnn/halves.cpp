// A step's product in bfloat16: by AMX, the matrix unit of some x86 CPUs, or number by number.
#include <algorithm>

#include "common/device.h"
#include "rnn/rnn.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define SEQKIT_AMX
#endif

namespace seqkit {
namespace {

constexpr int64_t kTile = 16;                         // rows of a tile, and its columns of sums
constexpr int64_t kTileOfWeights = 16 * 32;           // numbers
constexpr int64_t kStepOfPanel = 2 * kTileOfWeights;  // numbers of 32 steps of k

float widen(Bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

// Where w[k, n] of a panel stands.
int64_t place(int64_t k, int64_t n) {
  return k / kHalvesDepth * kStepOfPanel + n / kTile * kTileOfWeights + k % kHalvesDepth / 2 * 32 + n % kTile * 2 +
         k % 2;
}

void product_plain(const RnnHalvesProduct& product, int64_t begin, int64_t end) {
  for (int64_t n = begin * kRnnPanel; n < std::min(end * kRnnPanel, product.columns); ++n) {
    const Bfloat16* weights = product.packed + n / kRnnPanel * product.depth * kRnnPanel;
    for (int64_t row = 0; row < product.rows; ++row) {
      float& y = product.y[row * product.columns + n];
      float sum = product.add ? y : 0.0f;
      for (int64_t k = 0; k < product.depth; ++k) {
        sum += widen(product.x[row * product.depth + k]) * widen(weights[place(k, n % kRnnPanel)]);
      }
      y = sum;
    }
  }
}

#ifdef SEQKIT_AMX

// The CPU has AMX for bfloat16, and the kernel lets this process use it. SEQKIT_ISA below 2 says no.
bool has_amx() {
  static const bool has = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kTiles = 1u << 24, kBfloat16 = 1u << 22;
    if (cpu_level() < 2 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if (!(d & kTiles) || !(d & kBfloat16)) return false;
    constexpr long kAskForState = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
  }();
  return has;
}

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// A tile of sums of which only some rows and columns are y's.
struct Corner {
  alignas(64) float sums[kTile * kTile];

  void read(const float* y, int64_t stride, int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < rows; ++row) std::copy_n(y + row * stride, columns, sums + row * kTile);
  }
  void write(float* y, int64_t stride, int64_t rows, int64_t columns) const {
    for (int64_t row = 0; row < rows; ++row) std::copy_n(sums + row * kTile, columns, y + row * stride);
  }
};

// The number of a tile must be a literal: 0 to 3 are sums (rows 0 and 16, columns 0 and 16), 4 and 5 rows, 6 and 7
// weights. `row` and `column` count from the block's first.
#define SEQKIT_BEGIN_SUMS(number, row, column)                                                    \
  if (!product.add) {                                                                             \
    _tile_zero(number);                                                                           \
  } else if (rows - row >= kTile && columns - column >= kTile) {                                  \
    _tile_loadd(number, y + row * product.columns + column, stride);                              \
  } else if (rows > row && columns > column) {                                                    \
    corner.read(y + row * product.columns + column, product.columns, std::min(rows - row, kTile), \
                std::min(columns - column, kTile));                                               \
    _tile_loadd(number, corner.sums, kTile * sizeof(float));                                      \
  }
#define SEQKIT_END_SUMS(number, row, column)                                                       \
  if (rows - row >= kTile && columns - column >= kTile) {                                          \
    _tile_stored(number, y + row * product.columns + column, stride);                              \
  } else if (rows > row && columns > column) {                                                     \
    _tile_stored(number, corner.sums, kTile * sizeof(float));                                      \
    corner.write(y + row * product.columns + column, product.columns, std::min(rows - row, kTile), \
                 std::min(columns - column, kTile));                                               \
  }

__attribute__((target("amx-tile,amx-bf16"))) void product_amx(const RnnHalvesProduct& product, int64_t begin,
                                                              int64_t end) {
  const TileShapes shapes;
  _tile_loadconfig(&shapes);
  Corner corner = {};
  const int64_t stride = product.columns * sizeof(float), x_stride = product.depth * sizeof(Bfloat16);
  for (int64_t panel = begin; panel < end; ++panel) {
    const Bfloat16* weights = product.packed + panel * product.depth * kRnnPanel;
    const int64_t columns = product.columns - panel * kRnnPanel;
    for (int64_t first = 0; first < product.rows; first += 2 * kTile) {
      const int64_t rows = product.rows - first;
      const Bfloat16* x = product.x + first * product.depth;
      float* y = product.y + first * product.columns + panel * kRnnPanel;
      SEQKIT_BEGIN_SUMS(0, 0, 0)
      SEQKIT_BEGIN_SUMS(1, 0, kTile)
      SEQKIT_BEGIN_SUMS(2, kTile, 0)
      SEQKIT_BEGIN_SUMS(3, kTile, kTile)
      if (rows > kTile) {
        for (int64_t k = 0; k < product.depth; k += kHalvesDepth) {
          _tile_loadd(4, x + k, x_stride);
          _tile_loadd(5, x + kTile * product.depth + k, x_stride);
          _tile_loadd(6, weights + k * kRnnPanel, 64);
          _tile_loadd(7, weights + k * kRnnPanel + kTileOfWeights, 64);
          _tile_dpbf16ps(0, 4, 6);
          _tile_dpbf16ps(1, 4, 7);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      } else {
        for (int64_t k = 0; k < product.depth; k += kHalvesDepth) {
          _tile_loadd(4, x + k, x_stride);
          _tile_loadd(6, weights + k * kRnnPanel, 64);
          _tile_loadd(7, weights + k * kRnnPanel + kTileOfWeights, 64);
          _tile_dpbf16ps(0, 4, 6);
          _tile_dpbf16ps(1, 4, 7);
        }
      }
      SEQKIT_END_SUMS(0, 0, 0)
      SEQKIT_END_SUMS(1, 0, kTile)
      SEQKIT_END_SUMS(2, kTile, 0)
      SEQKIT_END_SUMS(3, kTile, kTile)
    }
  }
  _tile_release();
}

#undef SEQKIT_BEGIN_SUMS
#undef SEQKIT_END_SUMS

#endif  // SEQKIT_AMX

}  // namespace

void rnn_pack_halves(const Bfloat16* weight, bool turned, int64_t depth, int64_t columns, Bfloat16* to, int64_t begin,
                     int64_t end) {
  const int64_t whole = round_up(depth, kHalvesDepth);
  for (int64_t panel = begin; panel < end; ++panel) {
    Bfloat16* packed = to + panel * whole * kRnnPanel;
    for (int64_t first = 0; first < kRnnPanel; first += kTile) {
      const int64_t column = panel * kRnnPanel + first, width = std::min(kTile, columns - column);
      for (int64_t k = 0; k < whole; k += kHalvesDepth) {  // a tile
        Bfloat16* tile = packed + place(k, first);
        const int64_t steps = std::min(kHalvesDepth, depth - k);
        if (width < kTile || steps < kHalvesDepth) std::fill_n(tile, kTileOfWeights, Bfloat16{0});
        for (int64_t n = 0; n < width; ++n) {
          const Bfloat16* from = turned ? weight + k * columns + column + n : weight + (column + n) * depth + k;
          const int64_t stride = turned ? columns : 1;
          for (int64_t step = 0; step < steps; ++step) tile[place(step, n)] = from[step * stride];
        }
      }
    }
  }
}

void rnn_product_halves(const RnnHalvesProduct& product, int64_t begin, int64_t end) {
#ifdef SEQKIT_AMX
  if (has_amx()) return product_amx(product, begin, end);
#endif
  product_plain(product, begin, end);
}

}  // namespace seqkit
