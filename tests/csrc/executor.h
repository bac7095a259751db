// Runs CUDA kernels on the host, for tests where there is no card: each CUDA thread is a fiber, each block in flight
// has one thread of the operating system.
//
//     g++ -x c++ -std=c++20 -DSEQKIT_EMULATE -include executor.h -I csrc -I CUDA/include csrc/OP/cuda.cu
//
// It knows dynamic shared memory (filled with NaN before each block), barriers with and without names, warp shuffles,
// votes and reductions, atomics, and by csrc/common/cuda.h cp.async, ldmatrix and mma. A kernel fails with a sentence
// on a deadlock, on lanes of one warp that meet in different collectives, on a shuffle from a lane outside its mask,
// and on misaligned matrix rows and copies. Under -fsanitize=address it fails on any access outside its memory.
//
// SEQKIT_SCHEDULE says which fiber runs next: `forward`, `reverse`, or `random:SEED`. A missing barrier or wait changes
// the result under one of them, since a cp.async lands as late as it may (forward), at once (reverse), or by the toss
// of a coin (random).
//
// It does not know: wgmma, TMA, mbarrier, barriers across blocks, bank conflicts, the card's rounding. Static
// __shared__ variables do not compile: they could not be poisoned.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#undef __shared__
#undef __launch_bounds__
#undef __constant__
#undef __grid_constant__
#define __constant__ static
#define __launch_bounds__(...)
#define __grid_constant__

namespace executor {

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kMostSharedBytes = 227 << 10;  // of a block on sm_90
constexpr int kNamedBarriers = 16;

enum class State : uint8_t { kReady, kInCollective, kAtBarrier, kDone };
enum class Schedule { kForward, kReverse, kRandom };

struct Fiber;
// Runs a warp collective for the lanes of `set`, all of which have come to it.
using Collective = void (*)(Fiber* const* lanes, unsigned set);

struct Copy {
  void* to;
  const void* from;
  int bytes, valid;
};

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  uint3 thread{};
  unsigned warp = 0, lane = 0;
  State state = State::kDone;
  unsigned mask = 0;
  Collective collective = nullptr;
  const void* in = nullptr;
  void* out = nullptr;
  int barrier = 0;
  std::vector<std::vector<Copy>> groups;  // committed, oldest first
  std::vector<Copy> open;
  void* sanitizer_stack = nullptr;
};

struct Barrier {
  int arrived = 0, expected = 0, votes = 0, result = 0;
};

extern "C" void executor_switch(void** save, void* to);
#if defined(__x86_64__)
asm(R"(.text
.weak executor_switch
.type executor_switch,@function
executor_switch:
 pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
 movq %rsp,(%rdi); movq %rsi,%rsp
 popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
 ret
.size executor_switch,.-executor_switch)");

inline void* new_stack(char* base, void (*entry)()) {
  void** top = reinterpret_cast<void**>(base + kStackBytes - 64);  // the entry finds rsp % 16 == 8, as after a call
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  return top;
}
#elif defined(__aarch64__)
asm(R"(.text
.weak executor_switch
.type executor_switch,%function
executor_switch:
 sub sp,sp,#160
 stp x19,x20,[sp]; stp x21,x22,[sp,#16]; stp x23,x24,[sp,#32]; stp x25,x26,[sp,#48]; stp x27,x28,[sp,#64]
 stp x29,x30,[sp,#80]; stp d8,d9,[sp,#96]; stp d10,d11,[sp,#112]; stp d12,d13,[sp,#128]; stp d14,d15,[sp,#144]
 mov x9,sp; str x9,[x0]; mov sp,x1
 ldp x19,x20,[sp]; ldp x21,x22,[sp,#16]; ldp x23,x24,[sp,#32]; ldp x25,x26,[sp,#48]; ldp x27,x28,[sp,#64]
 ldp x29,x30,[sp,#80]; ldp d8,d9,[sp,#96]; ldp d10,d11,[sp,#112]; ldp d12,d13,[sp,#128]; ldp d14,d15,[sp,#144]
 add sp,sp,#160
 ret)");

inline void* new_stack(char* base, void (*entry)()) {
  char* top = base + kStackBytes - 64 - 160;
  std::memset(top, 0, 160);
  *reinterpret_cast<void**>(top + 88) = reinterpret_cast<void*>(entry);
  return top;
}
#else
#error "the executor switches stacks on x86-64 and AArch64 only"
#endif

// The block that a thread of the operating system is running.
struct Block {
  std::vector<Fiber> fibers;
  std::vector<unsigned> ready, live, waiting;  // a mask of lanes for each warp
  std::vector<Barrier> barriers{kNamedBarriers};
  Fiber* current = nullptr;
  void* main_stack_pointer = nullptr;
  std::function<void()> body;
  uint3 index{};
  dim3 block, grid;
  int alive = 0;
  Schedule schedule = Schedule::kForward;
  uint64_t random = 1;
  char* shared = nullptr;
  size_t shared_bytes = 0;
  std::string error;
  void* main_sanitizer_stack = nullptr;
  const void* main_bottom = nullptr;
  size_t main_size = 0;
};

inline constinit thread_local Block* running __attribute__((tls_model("initial-exec"))) = nullptr;

inline void* shared_memory() { return running->shared; }

// To another fiber, or with null to the stack that started the block.
inline void jump(Fiber* from, Fiber* to) {
  Block& block = *running;
  void** save = from ? &from->stack_pointer : &block.main_stack_pointer;
  void* next = to ? to->stack_pointer : block.main_stack_pointer;
  block.current = to;
#if defined(__SANITIZE_ADDRESS__)
  void** leaving = from ? &from->sanitizer_stack : &block.main_sanitizer_stack;
  const bool dead = from && from->state == State::kDone;
  __sanitizer_start_switch_fiber(dead ? nullptr : leaving, to ? to->stack : block.main_bottom,
                                 to ? kStackBytes : block.main_size);
  executor_switch(save, next);
  __sanitizer_finish_switch_fiber(*leaving, nullptr, nullptr);
#else
  executor_switch(save, next);
#endif
}

[[gnu::noinline]] inline void fail(const std::string& what) {
  Block& block = *running;
  if (block.error.empty()) {
    const uint3 at = block.index;
    block.error =
        what + " in block (" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " + std::to_string(at.z) + ")";
  }
  jump(block.current, nullptr);
  __builtin_unreachable();
}

inline uint32_t random_bits() {  // xorshift64 (Marsaglia 2003)
  uint64_t& x = running->random;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return static_cast<uint32_t>(x >> 16);
}

// The fiber that runs next, or null if none can.
inline Fiber* pick() {
  Block& block = *running;
  const int warps = static_cast<int>(block.ready.size());
  int first = block.current ? static_cast<int>(block.current->warp) : 0;
  const int lane = block.current ? static_cast<int>(block.current->lane) : -1;
  if (block.schedule == Schedule::kRandom) first = static_cast<int>(random_bits() % warps);
  for (int i = 0; i < warps; ++i) {
    const int warp = block.schedule == Schedule::kReverse ? (first - i + warps) % warps : (first + i) % warps;
    unsigned lanes = block.ready[warp];
    if (!lanes) continue;
    int chosen = 0;
    if (block.schedule == Schedule::kForward) {
      const unsigned later = i == 0 && lane < 31 ? lanes & (~0u << (lane + 1)) : 0;
      chosen = __builtin_ctz(later ? later : lanes);
    } else if (block.schedule == Schedule::kReverse) {
      chosen = 31 - __builtin_clz(lanes);
    } else {
      for (uint32_t skip = random_bits() % __builtin_popcount(lanes); skip > 0; --skip) lanes &= lanes - 1;
      chosen = __builtin_ctz(lanes);
    }
    return &block.fibers[warp * 32 + chosen];
  }
  return nullptr;
}

inline void wake(Fiber& fiber) {
  fiber.state = State::kReady;
  running->waiting[fiber.warp] &= ~(1u << fiber.lane);
  running->ready[fiber.warp] |= 1u << fiber.lane;
}

inline std::string who_waits() {
  std::string text = "deadlock:";
  for (const Fiber& fiber : running->fibers) {
    if (fiber.state == State::kDone) continue;
    text += " [warp " + std::to_string(fiber.warp) + " lane " + std::to_string(fiber.lane) +
            (fiber.state == State::kAtBarrier ? " at barrier " + std::to_string(fiber.barrier) : " in a collective") +
            "]";
    if (text.size() > 300) return text + " and others";
  }
  return text;
}

[[gnu::noinline]] inline void reschedule() {
  Fiber* me = running->current;
  Fiber* next = pick();
  if (!next && running->alive > 0) fail(who_waits());
  if (next != me) jump(me, next);
}

// ---- warp collectives ----

inline bool try_collective(unsigned warp, unsigned mask, Collective collective) {
  Block& block = *running;
  const unsigned set = mask & block.live[warp];
  if ((block.waiting[warp] & set) != set) return false;
  Fiber* lanes[32];
  for (int lane = 0; lane < 32; ++lane) {
    const size_t at = warp * 32 + lane;
    lanes[lane] = at < block.fibers.size() ? &block.fibers[at] : nullptr;
  }
  for (unsigned left = set; left; left &= left - 1) {
    const Fiber& fiber = *lanes[__builtin_ctz(left)];
    if (fiber.mask != mask || fiber.collective != collective) {
      fail("lanes of one warp meet in different collectives or masks");
    }
  }
  collective(lanes, set);
  for (unsigned left = set; left; left &= left - 1) wake(*lanes[__builtin_ctz(left)]);
  return true;
}

inline void collect(unsigned mask, Collective collective, const void* in, void* out) {
  Fiber& me = *running->current;
  if (!(mask >> me.lane & 1)) fail("a lane calls a collective whose mask leaves it out");
  me.mask = mask;
  me.collective = collective;
  me.in = in;
  me.out = out;
  me.state = State::kInCollective;
  running->waiting[me.warp] |= 1u << me.lane;
  running->ready[me.warp] &= ~(1u << me.lane);
  if (!try_collective(me.warp, mask, collective)) reschedule();
}

template <typename T>
struct Shuffled {
  T value;
  int source;
};

template <typename T>
void shuffle_lanes(Fiber* const* lanes, unsigned set) {
  for (unsigned left = set; left; left &= left - 1) {
    Fiber& to = *lanes[__builtin_ctz(left)];
    const int source = static_cast<const Shuffled<T>*>(to.in)->source;
    if (!(set >> source & 1)) fail("a shuffle reads a lane outside its mask");
    *static_cast<T*>(to.out) = static_cast<const Shuffled<T>*>(lanes[source]->in)->value;
  }
}

template <typename T>
T shuffle(unsigned mask, T value, int source) {
  const Shuffled<T> in{value, source};
  T out;
  collect(mask, &shuffle_lanes<T>, &in, &out);
  return out;
}

inline void vote_lanes(Fiber* const* lanes, unsigned set) {
  unsigned votes = 0;
  for (unsigned left = set; left; left &= left - 1) {
    const int lane = __builtin_ctz(left);
    if (*static_cast<const int*>(lanes[lane]->in)) votes |= 1u << lane;
  }
  for (unsigned left = set; left; left &= left - 1) *static_cast<unsigned*>(lanes[__builtin_ctz(left)]->out) = votes;
}

inline void only_meet(Fiber* const*, unsigned) {}

enum class Reduction { kAdd, kMin, kMax, kAnd, kOr };

template <typename T, Reduction kKind>
void reduce_lanes(Fiber* const* lanes, unsigned set) {
  T total = *static_cast<const T*>(lanes[__builtin_ctz(set)]->in);
  for (unsigned left = set & (set - 1); left; left &= left - 1) {
    const T value = *static_cast<const T*>(lanes[__builtin_ctz(left)]->in);
    if constexpr (kKind == Reduction::kAdd) total = total + value;
    if constexpr (kKind == Reduction::kMin) total = std::min(total, value);
    if constexpr (kKind == Reduction::kMax) total = std::max(total, value);
    if constexpr (kKind == Reduction::kAnd) total = total & value;
    if constexpr (kKind == Reduction::kOr) total = total | value;
  }
  for (unsigned left = set; left; left &= left - 1) *static_cast<T*>(lanes[__builtin_ctz(left)]->out) = total;
}

template <Reduction kKind, typename T>
T reduce(unsigned mask, T value) {
  T out;
  collect(mask, &reduce_lanes<T, kKind>, &value, &out);
  return out;
}

// ---- barriers of a block ----

inline bool try_barrier(int name) {
  Barrier& barrier = running->barriers[name];
  const int expected = barrier.expected ? barrier.expected : running->alive;
  if (barrier.arrived < expected || expected == 0) return false;
  barrier.result = barrier.votes;
  barrier.arrived = barrier.votes = barrier.expected = 0;
  for (Fiber& fiber : running->fibers) {
    if (fiber.state == State::kAtBarrier && fiber.barrier == name) wake(fiber);
  }
  return true;
}

// Waits for `threads` threads, or for all that are alive; how many of them voted.
inline int wait_at_barrier(int name, int threads, bool vote) {
  Barrier& barrier = running->barriers[name];
  Fiber& me = *running->current;
  ++barrier.arrived;
  barrier.votes += vote;
  barrier.expected = threads;
  me.barrier = name;
  me.state = State::kAtBarrier;
  running->ready[me.warp] &= ~(1u << me.lane);
  if (!try_barrier(name)) reschedule();
  return running->barriers[name].result;
}

// ---- the instructions of csrc/common/cuda.h ----

inline void land(const Copy& copy) {
  if (copy.valid) std::memcpy(copy.to, copy.from, copy.valid);
  std::memset(static_cast<char*>(copy.to) + copy.valid, 0, copy.bytes - copy.valid);
}

inline void copy_async(void* to, const void* from, int bytes, int valid) {
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes) {
    fail("cp.async is not aligned to its size");
  }
  const Copy copy{to, from, bytes, valid};
  const Schedule schedule = running->schedule;
  if (schedule == Schedule::kReverse || (schedule == Schedule::kRandom && random_bits() % 2)) {
    land(copy);
  } else {
    running->current->open.push_back(copy);
  }
}

inline void copy_async_commit() {
  Fiber& me = *running->current;
  me.groups.push_back(std::move(me.open));
  me.open.clear();
}

inline void copy_async_wait(int pending) {
  std::vector<std::vector<Copy>>& groups = running->current->groups;
  const size_t done = groups.size() > static_cast<size_t>(pending) ? groups.size() - pending : 0;
  for (size_t group = 0; group < done; ++group) {
    for (const Copy& copy : groups[group]) land(copy);
  }
  groups.erase(groups.begin(), groups.begin() + static_cast<std::ptrdiff_t>(done));
}

template <typename E>
float half_of(uint32_t word, int high) {
  const uint16_t bits = static_cast<uint16_t>(high ? word >> 16 : word);
  E value;
  std::memcpy(&value, &bits, sizeof bits);
  return static_cast<float>(value);
}

struct MmaOperands {
  uint32_t a[4], b[2];
  float c[4];
};

template <typename E>
void mma_lanes(Fiber* const* lanes, unsigned set) {
  if (set != ~0u) fail("mma needs a whole warp");
  float a[16][16], b[16][8], d[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const MmaOperands& own = *static_cast<const MmaOperands*>(lanes[lane]->in);
    const int row = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 2; ++i) {
      a[row][column + i] = half_of<E>(own.a[0], i);
      a[row + 8][column + i] = half_of<E>(own.a[1], i);
      a[row][column + 8 + i] = half_of<E>(own.a[2], i);
      a[row + 8][column + 8 + i] = half_of<E>(own.a[3], i);
      b[column + i][row] = half_of<E>(own.b[0], i);
      b[column + 8 + i][row] = half_of<E>(own.b[1], i);
      d[row][column + i] = own.c[i];
      d[row + 8][column + i] = own.c[2 + i];
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    float* own = static_cast<float*>(lanes[lane]->out);
    const int row = lane / 4, column = lane % 4 * 2;
    for (int i = 0; i < 2; ++i) {
      own[i] = d[row][column + i];
      own[2 + i] = d[row + 8][column + i];
    }
  }
}

template <typename E>
void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  MmaOperands operands;
  std::copy_n(a, 4, operands.a);
  std::copy_n(b, 2, operands.b);
  std::copy_n(d, 4, operands.c);
  collect(~0u, &mma_lanes<E>, &operands, d);
}

template <bool kTransposed>
void load_matrix_lanes(Fiber* const* lanes, unsigned set) {
  if (set != ~0u) fail("ldmatrix needs a whole warp");
  for (int matrix = 0; matrix < 4; ++matrix) {
    const uint16_t* rows[8];
    for (int row = 0; row < 8; ++row) {
      rows[row] = *static_cast<const uint16_t* const*>(lanes[matrix * 8 + row]->in);
      if (reinterpret_cast<uintptr_t>(rows[row]) % 16) fail("a row of ldmatrix is not aligned to 16 bytes");
    }
    for (int lane = 0; lane < 32; ++lane) {
      const int row = lane / 4, column = lane % 4 * 2;
      const uint32_t low = kTransposed ? rows[column][row] : rows[row][column];
      const uint32_t high = kTransposed ? rows[column + 1][row] : rows[row][column + 1];
      static_cast<uint32_t*>(lanes[lane]->out)[matrix] = low | high << 16;
    }
  }
}

template <bool kTransposed>
void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  collect(~0u, &load_matrix_lanes<kTransposed>, &row, r);
}

// ---- blocks and launches ----

inline void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, running->main_bottom ? nullptr : &running->main_bottom,
                                  running->main_size ? nullptr : &running->main_size);
#endif
  Block& block = *running;
  block.body();
  Fiber& me = *block.current;
  me.state = State::kDone;
  block.live[me.warp] &= ~(1u << me.lane);
  block.ready[me.warp] &= ~(1u << me.lane);
  --block.alive;
  // A thread that ends may be the last that the others waited for.
  for (size_t lane = 0; lane < 32 && me.warp * 32 + lane < block.fibers.size() && block.waiting[me.warp]; ++lane) {
    const Fiber& other = block.fibers[me.warp * 32 + lane];
    if (other.state == State::kInCollective && try_collective(me.warp, other.mask, other.collective)) break;
  }
  if (block.alive && block.barriers[0].arrived) try_barrier(0);
  reschedule();
  __builtin_unreachable();
}

inline void run_block(uint3 index) {
  Block& block = *running;
  block.index = index;
  block.alive = static_cast<int>(block.fibers.size());
  block.barriers.assign(kNamedBarriers, {});
  if (block.shared_bytes) std::memset(block.shared, 0xFF, block.shared_bytes);
  for (std::vector<unsigned>* masks : {&block.ready, &block.live, &block.waiting}) {
    std::fill(masks->begin(), masks->end(), 0u);
  }
  for (unsigned i = 0; i < block.fibers.size(); ++i) {
    Fiber& fiber = block.fibers[i];
    fiber.warp = i / 32;
    fiber.lane = i % 32;
    fiber.groups.clear();
    fiber.open.clear();
    fiber.sanitizer_stack = nullptr;
    fiber.thread = {i % block.block.x, i / block.block.x % block.block.y, i / (block.block.x * block.block.y)};
    fiber.stack_pointer = new_stack(fiber.stack, &enter);
    block.live[fiber.warp] |= 1u << fiber.lane;
    wake(fiber);
  }
  block.current = nullptr;
  jump(nullptr, pick());
}

inline std::pair<Schedule, uint64_t> schedule_asked() {
  const char* asked = std::getenv("SEQKIT_SCHEDULE");
  const std::string text = asked ? asked : "forward";
  if (text == "forward") return {Schedule::kForward, 1};
  if (text == "reverse") return {Schedule::kReverse, 1};
  if (text.rfind("random:", 0) == 0) return {Schedule::kRandom, std::strtoull(text.c_str() + 7, nullptr, 10)};
  throw std::runtime_error("executor: SEQKIT_SCHEDULE must be forward, reverse or random:SEED, got " + text);
}

template <typename... Parameters, typename Arguments>
void launch(dim3 grid, dim3 block_size, size_t shared_bytes, void (*kernel)(Parameters...),
            const Arguments& arguments) {
  const auto [schedule, seed] = schedule_asked();
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  const size_t threads = size_t{block_size.x} * block_size.y * block_size.z;
  if (blocks < 1 || grid.y > 65535 || grid.z > 65535 || threads < 1 || threads > 1024 ||
      shared_bytes > kMostSharedBytes) {
    throw std::runtime_error("executor: a launch that a card would refuse");
  }
  std::atomic<uint64_t> next{0};
  std::atomic<bool> failed{false};
  std::string error;
  const auto work = [&, schedule = schedule, seed = seed] {
    Block block;
    Block* const outer = running;
    running = &block;
    const size_t bytes = threads * kStackBytes;
    char* const stacks = static_cast<char*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    void* shared = nullptr;
    if (stacks == MAP_FAILED || posix_memalign(&shared, 1024, std::max<size_t>(shared_bytes, 1))) {
      throw std::bad_alloc();
    }
    block.block = block_size;
    block.grid = grid;
    block.schedule = schedule;
    block.body = [&] { std::apply(kernel, arguments); };
    block.fibers.assign(threads, {});
    for (size_t i = 0; i < threads; ++i) block.fibers[i].stack = stacks + i * kStackBytes;
    for (std::vector<unsigned>* masks : {&block.ready, &block.live, &block.waiting}) {
      masks->assign((threads + 31) / 32, 0);
    }
    block.shared = static_cast<char*>(shared);
    block.shared_bytes = shared_bytes;
    for (uint64_t at; (at = next++) < blocks && !failed;) {
      block.random = (seed * 0x9E3779B97F4A7C15ull ^ at * 0xD1B54A32D192ED03ull) | 1;
      run_block({static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                 static_cast<unsigned>(at / (uint64_t{grid.x} * grid.y))});
      if (!block.error.empty() && !failed.exchange(true)) error = block.error;
    }
    std::free(shared);
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(stacks, bytes);  // whoever gets these addresses next
#endif
    munmap(stacks, bytes);
    running = outer;
  };
  const uint64_t workers = std::min<uint64_t>(blocks, std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::thread> others;
  for (uint64_t i = 1; i < workers; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  if (failed) throw std::runtime_error("executor: " + error);
}

template <typename T, typename Change>
T change(T* at, const Change& to) {
  std::atomic_ref<T> cell(*at);
  T old = cell.load();
  while (!cell.compare_exchange_weak(old, to(old))) {
  }
  return old;
}

}  // namespace executor

// ---- the names of CUDA ----

#define threadIdx (::executor::running->current->thread)
#define blockIdx (::executor::running->index)
#define blockDim (::executor::running->block)
#define gridDim (::executor::running->grid)
#define warpSize 32

inline void __syncthreads() { executor::wait_at_barrier(0, 0, false); }
inline int __syncthreads_count(int vote) { return executor::wait_at_barrier(0, 0, vote != 0); }
inline int __syncthreads_or(int vote) { return executor::wait_at_barrier(0, 0, vote != 0) != 0; }
inline int __syncthreads_and(int vote) { return executor::wait_at_barrier(0, 0, vote == 0) == 0; }

inline void __syncwarp(unsigned mask = ~0u) {
  executor::collect(mask & executor::running->live[executor::running->current->warp], &executor::only_meet, nullptr,
                    nullptr);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = static_cast<int>(executor::running->current->lane);
  return executor::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)));
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32) {
  const int lane = static_cast<int>(executor::running->current->lane), source = lane ^ flip;
  return executor::shuffle(mask, value, (source & ~(width - 1)) > (lane & ~(width - 1)) ? lane : source);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = static_cast<int>(executor::running->current->lane), reach = static_cast<int>(distance);
  return executor::shuffle(mask, value, (lane & (width - 1)) + reach >= width ? lane : lane + reach);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = static_cast<int>(executor::running->current->lane), reach = static_cast<int>(distance);
  return executor::shuffle(mask, value, (lane & (width - 1)) < reach ? lane : lane - reach);
}

inline unsigned __ballot_sync(unsigned mask, int vote) {
  unsigned votes;
  executor::collect(mask, &executor::vote_lanes, &vote, &votes);
  return votes;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }

template <typename T>
T __reduce_add_sync(unsigned mask, T value) {
  return executor::reduce<executor::Reduction::kAdd>(mask, value);
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value) {
  return executor::reduce<executor::Reduction::kMin>(mask, value);
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value) {
  return executor::reduce<executor::Reduction::kMax>(mask, value);
}
template <typename T>
T __reduce_and_sync(unsigned mask, T value) {
  return executor::reduce<executor::Reduction::kAnd>(mask, value);
}
template <typename T>
T __reduce_or_sync(unsigned mask, T value) {
  return executor::reduce<executor::Reduction::kOr>(mask, value);
}

template <typename T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return executor::change(at, [=](T old) { return static_cast<T>(old + value); });
}
template <typename T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return executor::change(at, [=](T old) { return std::max(old, value); });
}
template <typename T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return executor::change(at, [=](T old) { return std::min(old, value); });
}
template <typename T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return executor::change(at, [=](T) { return value; });
}
template <typename T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return executor::change(at, [=](T old) { return old == expected ? value : old; });
}

inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() {}

template <typename T>
T __ldg(const T* at) {
  return *at;
}
template <typename T>
T __ldcs(const T* at) {
  return *at;
}
template <typename T>
void __stcs(T* at, T value) {
  *at = value;
}

inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline float __int_as_float(int x) {
  float value;
  std::memcpy(&value, &x, sizeof value);
  return value;
}
inline int __float_as_int(float x) {
  int value;
  std::memcpy(&value, &x, sizeof value);
  return value;
}
inline float __uint_as_float(unsigned x) { return __int_as_float(static_cast<int>(x)); }
inline unsigned __float_as_uint(float x) { return static_cast<unsigned>(__float_as_int(x)); }
using std::max;
using std::min;
