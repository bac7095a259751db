// The search in float64, which is the specification; the way into the float32 one; and the memory of both.
#include <memory>

#include "common/device.h"
#include "ctc_beam/search.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(ctc_beam_sentence, (const CtcBeamCall<float>& call, int64_t sentence, char* memory));

namespace {

constexpr int64_t kAlignment = 64;

// What a sentence needs. It is not cleared: most of it is never touched.
template <typename Number>
struct Memory {
  std::unique_ptr<char[]> bytes;
  char* begin;

  explicit Memory(const CtcBeamCall<Number>& call) {
    Pieces pieces{nullptr};
    Room<Number> room;
    room.take(pieces, call);
    bytes.reset(new char[pieces.used + kAlignment]);
    begin = bytes.get() + (kAlignment - reinterpret_cast<uintptr_t>(bytes.get()) % kAlignment);
  }
};

}  // namespace

template <>
void ctc_beam_search(const CtcBeamCall<double>& call, int64_t begin, int64_t end) {
  const Memory<double> memory(call);
  for (int64_t sentence = begin; sentence < end; ++sentence) {
    Pieces pieces{memory.begin};
    Room<double> room;
    room.take(pieces, call);
    if (call.scored()) {
      Search<double, true>{call, room, sentence}.run();
    } else {
      Search<double, false>{call, room, sentence}.run();
    }
  }
}

template <>
void ctc_beam_search(const CtcBeamCall<float>& call, int64_t begin, int64_t end) {
  const Memory<float> memory(call);
  const auto one_sentence = SEQKIT_PICK_LEVEL(ctc_beam_sentence);
  for (int64_t sentence = begin; sentence < end; ++sentence) one_sentence(call, sentence, memory.begin);
}

}  // namespace seqkit
