#include "common/device.h"
#include "recurrent/recurrent.h"

namespace seqkit {

SEQKIT_DECLARE_LEVELS(lstm_rows, (const LstmCell& cell, int64_t begin, int64_t end));
SEQKIT_DECLARE_LEVELS(gru_rows, (const GruCell& cell, int64_t begin, int64_t end));

void lstm_cell_run(const LstmCell& cell, int64_t begin, int64_t end) { SEQKIT_PICK_LEVEL(lstm_rows)(cell, begin, end); }

void gru_cell_run(const GruCell& cell, int64_t begin, int64_t end) { SEQKIT_PICK_LEVEL(gru_rows)(cell, begin, end); }

}  // namespace seqkit
