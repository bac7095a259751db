// The search in float32, once per machine level.
#include "common/device.h"
#include "ctc_beam/search.h"

namespace seqkit {

void SEQKIT_AT_LEVEL(ctc_beam_sentence)(const CtcBeamCall<float>& call, int64_t sentence, char* memory) {
  Pieces pieces{memory};
  Room<float> room;
  room.take(pieces, call);
  if (call.scored()) {
    Search<float, true>{call, room, sentence}.run();
  } else {
    Search<float, false>{call, room, sentence}.run();
  }
}

}  // namespace seqkit
