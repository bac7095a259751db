// Which code this machine can run.
//
// A `*.simd.cpp` is compiled once per level with SEQKIT_LEVEL = base | v3 | v4 (x86-64, AVX2 with FMA, AVX-512) and
// names its entry points with SEQKIT_AT_LEVEL; cpu.cpp declares them with SEQKIT_DECLARE_LEVELS and calls the one that
// SEQKIT_PICK_LEVEL chooses. Such files hold raw pointers and anonymous namespaces only: a template or a standard
// container would leave weak AVX-512 code that the linker may choose for every caller, old machines included.
#pragma once

#include <cstdint>
#include <cstdlib>

#define SEQKIT_JOIN_(name, level) name##_##level
#define SEQKIT_JOIN(name, level) SEQKIT_JOIN_(name, level)
#define SEQKIT_AT_LEVEL(name) SEQKIT_JOIN(name, SEQKIT_LEVEL)

#if defined(__x86_64__)
#define SEQKIT_DECLARE_LEVELS(name, signature) \
  void name##_base signature;                  \
  void name##_v3 signature;                    \
  void name##_v4 signature
#define SEQKIT_PICK_LEVEL(name) \
  (::seqkit::cpu_level() == 2 ? name##_v4 : ::seqkit::cpu_level() == 1 ? name##_v3 : name##_base)
#else
#define SEQKIT_DECLARE_LEVELS(name, signature) void name##_base signature
#define SEQKIT_PICK_LEVEL(name) name##_base
#endif

namespace seqkit {

// The numbers that a CUDA kernel is called for.
enum class Element { kFloat, kHalf, kBfloat16 };

// The bits of 16-bit numbers as a CPU kernel meets them in memory; it computes in float.
struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

// 0 base, 1 AVX2 with FMA, 2 AVX-512; SEQKIT_ISA caps it, so that tests run every level on one machine.
// Static, not inline: a file compiled for another level must never lend its copy.
[[maybe_unused]] static int cpu_level() {
  static const int level = [] {
    int best = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    best = v4 ? 2 : v3 ? 1 : 0;
#endif
    if (const char* cap = std::getenv("SEQKIT_ISA")) {
      const int asked = std::atoi(cap);
      if (asked >= 0 && asked < best) best = asked;
    }
    return best;
  }();
  return level;
}

}  // namespace seqkit
