#include <cstdlib>

#include "common/device.h"
#include "matmul/matmul.h"
#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace seqkit {

#ifdef __x86_64__

bool split_pack_amx(const Lines& lines, uint16_t* to, int64_t begin, int64_t end);
void split_product_amx(const SplitProduct& product, int64_t begin, int64_t end);

namespace {

// Linux gives a process the tiles' registers when it asks; the answer holds for all of its threads.
bool ask_for_tiles() {
#ifdef __linux__
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace

bool split_product_available() {
  static const bool available = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    constexpr unsigned kBfloat16Tiles = 1u << 22, kTiles = 1u << 24;
    if (cpu_level() < 2 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    return (d & kBfloat16Tiles) && (d & kTiles) && ask_for_tiles();
  }();
  return available;
}

bool split_pack(const Lines& lines, uint16_t* to, int64_t begin, int64_t end) {
  return split_pack_amx(lines, to, begin, end);
}

void split_product_run(const SplitProduct& product, int64_t begin, int64_t end) {
  split_product_amx(product, begin, end);
}

#else

bool split_product_available() { return false; }
bool split_pack(const Lines&, uint16_t*, int64_t, int64_t) { return false; }
void split_product_run(const SplitProduct&, int64_t, int64_t) {}

#endif

int64_t split_product_units(const SplitProduct& product) {
  return (strips(product.rows) + kRowBlock - 1) / kRowBlock * strips(product.columns);
}

}  // namespace seqkit
