#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "common/check.h"
#include "ctc_beam/ctc_beam.h"

namespace seqkit {
namespace {

constexpr const char* kWhere = "ctc_beam_search";

template <typename Number>
const Number* array(const char* name, const Tensor& tensor, int64_t size, const Tensor& same_as) {
  check_device(kWhere, name, tensor, same_as);
  check_dtype(kWhere, name, tensor, std::is_same_v<Number, float> ? ScalarType::Float : ScalarType::Int);
  check_shape(kWhere, name, tensor, {size});
  check_contiguous(kWhere, name, tensor);
  return data<Number>(tensor);
}

// The tensors of an automaton: first, symbols, scores, next, backoff, suffix, final; none of them is no automaton.
BackoffAutomaton automaton(const char* name, const std::vector<Tensor>& given, int64_t start, int64_t symbols,
                           const Tensor& same_as) {
  if (given.empty()) return {};
  STD_TORCH_CHECK(given.size() == 7, kWhere, ": ", name, " must have seven tensors, got ", given.size());
  check_shape(kWhere, name, given[0], {kAny});
  check_shape(kWhere, name, given[1], {kAny});
  const int64_t states = given[0].size(0) - 1, arcs = given[1].size(0);
  STD_TORCH_CHECK(states >= 1 && arcs >= symbols, kWhere, ": ", name, " must have a state with an arc for each of ",
                  symbols, " symbols, got ", states, " states and ", arcs, " arcs");
  STD_TORCH_CHECK(start >= 0 && start < states, kWhere, ": the start of ", name, " must be from 0 to ", states - 1,
                  ", got ", start);
  return {.first = array<int32_t>(name, given[0], states + 1, same_as),
          .symbols = array<int32_t>(name, given[1], arcs, same_as),
          .scores = array<float>(name, given[2], arcs, same_as),
          .next = array<int32_t>(name, given[3], arcs, same_as),
          .backoff = array<float>(name, given[4], states, same_as),
          .suffix = array<int32_t>(name, given[5], states, same_as),
          .final = array<float>(name, given[6], states, same_as),
          .states = states,
          .arcs = arcs,
          .start = start};
}

// The tensors of a lexicon: first, labels, next, words.
Lexicon lexicon_of(const std::vector<Tensor>& given, const Tensor& same_as) {
  if (given.empty()) return {};
  STD_TORCH_CHECK(given.size() == 4, kWhere, ": lexicon must have four tensors, got ", given.size());
  check_shape(kWhere, "lexicon", given[0], {kAny});
  check_shape(kWhere, "lexicon", given[1], {kAny});
  const int64_t nodes = given[0].size(0) - 1, arcs = given[1].size(0);
  STD_TORCH_CHECK(nodes >= 1, kWhere, ": lexicon must have a node, got none");
  return {.first = array<int32_t>("lexicon", given[0], nodes + 1, same_as),
          .labels = array<int32_t>("lexicon", given[1], arcs, same_as),
          .next = array<int32_t>("lexicon", given[2], arcs, same_as),
          .words = array<int32_t>("lexicon", given[3], nodes, same_as),
          .nodes = nodes,
          .arcs = arcs};
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Results search(const Tensor& log_probs, const Tensor& lengths, int64_t beam_size, int64_t n_best, int64_t blank,
               double token_min_logp, double beam_prune_logp, double blank_skip_logp,
               const std::vector<Tensor>& label_model, const std::vector<Tensor>& hot_words,
               const std::vector<Tensor>& word_model, const std::vector<Tensor>& lexicon,
               const std::vector<int64_t>& starts, int64_t space, int64_t unknown, double unknown_score) {
  const ScalarType dtype = log_probs.scalar_type();
  if (on_gpu(log_probs)) {
    (void)element_of(kWhere, "log_probs", log_probs);
  } else {
    STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Double, kWhere,
                    ": log_probs must have the dtype Float or Double, got ", torch::headeronly::toString(dtype));
  }
  check_shape(kWhere, "log_probs", log_probs, {kAny, kAny, kAny});
  check_contiguous(kWhere, "log_probs", log_probs);
  const int64_t B = log_probs.size(0), T = log_probs.size(1), C = log_probs.size(2);
  STD_TORCH_CHECK(C > 0 && C < std::numeric_limits<int32_t>::max() - 64, kWhere,
                  ": log_probs must have a class and fewer than 2^31, got ", C);
  check_lengths(kWhere, "lengths", lengths, B, T, log_probs);
  STD_TORCH_CHECK(blank >= 0 && blank < C, kWhere, ": blank must be from 0 to ", C - 1, ", got ", blank);
  STD_TORCH_CHECK(beam_size >= 1 && beam_size <= kMostCtcBeams, kWhere, ": beam_size must be from 1 to ", kMostCtcBeams,
                  ", got ", beam_size);
  STD_TORCH_CHECK(T < std::numeric_limits<int32_t>::max() / beam_size - 1, kWhere,
                  ": beam_size times the frames must be below 2^31, got ", beam_size, " times ", T);
  STD_TORCH_CHECK(n_best >= 1 && n_best <= beam_size, kWhere, ": n_best must be from 1 to ", beam_size, ", got ",
                  n_best);
  STD_TORCH_CHECK(!std::isnan(token_min_logp), kWhere, ": token_min_logp must be a number, got nan");
  STD_TORCH_CHECK(beam_prune_logp <= 0, kWhere, ": beam_prune_logp must be at most 0, got ", beam_prune_logp);
  STD_TORCH_CHECK(!std::isnan(blank_skip_logp), kWhere, ": blank_skip_logp must be a number, got nan");
  STD_TORCH_CHECK(starts.size() == 3, kWhere, ": starts must be three states, got ", starts.size());

  Tensor labels = torch::stable::new_empty(log_probs, {B, n_best, T}, ScalarType::Long);
  Tensor counts = torch::stable::new_empty(log_probs, {B, n_best}, ScalarType::Long);
  const ScalarType real = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  Tensor logp = torch::stable::new_empty(log_probs, {B, n_best}, real);
  Tensor scores = torch::stable::new_empty(log_probs, {B, n_best}, real);
  const auto call_of = [&]<typename Number>(Number) {
    const CtcBeamCall<Number> call{
        .log_probs = data<Number>(log_probs),
        .lengths = data<int64_t>(lengths),
        .batch = B,
        .times = T,
        .classes = C,
        .beam_size = beam_size,
        .n_best = n_best,
        .blank = blank,
        .token_min_logp = static_cast<Number>(token_min_logp),
        .beam_prune_logp = static_cast<Number>(beam_prune_logp),
        .blank_skip_logp = static_cast<Number>(blank_skip_logp),
        .labels = {automaton("label_model", label_model, starts[0], C, log_probs),
                   automaton("hot_words", hot_words, starts[1], C, log_probs)},
        .words = automaton("word_model", word_model, starts[2], 1, log_probs),
        .lexicon = lexicon_of(lexicon, log_probs),
        .space = space,
        .unknown = unknown,
        .unknown_score = unknown_score,
        .best_labels = mutable_data<int64_t>(labels),
        .best_lengths = mutable_data<int64_t>(counts),
        .best_log_probs = mutable_data<Number>(logp),
        .best_scores = mutable_data<Number>(scores),
    };
    if (call.words.states) {
      STD_TORCH_CHECK(call.lexicon.nodes > 0, kWhere, ": lexicon must spell the words of word_model, got none");
      STD_TORCH_CHECK(space >= 0 && space < C && space != blank, kWhere, ": space must be from 0 to ", C - 1,
                      " and not the blank ", blank, ", got ", space);
      STD_TORCH_CHECK(unknown >= 0 && unknown < call.words.arcs, kWhere, ": unknown must be a word, got ", unknown);
      STD_TORCH_CHECK(std::isfinite(unknown_score), kWhere, ": unknown_score must be finite, got ", unknown_score);
    }
    return call;
  };
  if (on_gpu(log_probs)) {
    STD_TORCH_CHECK(beam_size <= kMostCtcBeamsOnCuda, kWhere, ": beam_size must be at most ", kMostCtcBeamsOnCuda,
                    " on CUDA, got ", beam_size);
    STD_TORCH_CHECK(C < std::numeric_limits<int32_t>::max() / beam_size - 1024, kWhere,
                    ": beam_size times the classes must be below 2^31 on CUDA, got ", beam_size, " times ", C);
#ifdef SEQKIT_CUDA
    const CtcBeamCall<float> call = call_of(float{});
    const bool fit = ctc_beam_cells_fit(beam_size, C, call.scored());
    const auto scratch = [&](int64_t width, ScalarType kind) {
      return torch::stable::new_empty(log_probs, {B, width}, kind);
    };
    const int64_t nodes = beam_size * std::max<int64_t>(T, 1);
    Tensor parents = scratch(nodes, ScalarType::Int), last = scratch(nodes, ScalarType::Int);
    Tensor cells = scratch(fit ? 0 : beam_size * C, ScalarType::Float);
    Tensor gains = scratch(ctc_beam_gain_rows(beam_size, call.scored()) * C, ScalarType::Float);
    const CtcBeamOnCuda given{.call = call,
                              .nodes = nodes,
                              .node_parents = mutable_data<int>(parents),
                              .node_labels = mutable_data<int>(last),
                              .cells = mutable_data<float>(cells),
                              .gains = mutable_data<float>(gains)};
    run_on_gpu(kWhere, log_probs, [&](void* stream) {
      return ctc_beam_search_cuda(given, element_of(kWhere, "log_probs", log_probs), stream);
    });
#else
    STD_TORCH_CHECK(false, kWhere, ": the CUDA kernel must be built, got a build without it");
#endif
    return {labels, counts, logp, scores};
  }
  const auto run = [&]<typename Number>(Number number) {
    const CtcBeamCall<Number> call = call_of(number);
    torch::stable::parallel_for(0, B, 1, [&](int64_t begin, int64_t end) { ctc_beam_search(call, begin, end); });
  };
  dtype == ScalarType::Double ? run(double{}) : run(float{});
  return {labels, counts, logp, scores};
}

}  // namespace
}  // namespace seqkit

SEQKIT_LIBRARY(library) {
  library.def(
      "ctc_beam_search(Tensor log_probs, Tensor lengths, int beam_size, int n_best, int blank, float token_min_logp, "
      "float beam_prune_logp, float blank_skip_logp, Tensor[] label_model, Tensor[] hot_words, Tensor[] word_model, "
      "Tensor[] lexicon, int[] starts, int space, int unknown, float unknown_score) -> (Tensor, Tensor, Tensor, "
      "Tensor)");
}

SEQKIT_LIBRARY_IMPL(CPU, library) { library.impl("ctc_beam_search", TORCH_BOX(&seqkit::search)); }

#ifdef SEQKIT_CUDA
SEQKIT_LIBRARY_IMPL(CUDA, library) { library.impl("ctc_beam_search", TORCH_BOX(&seqkit::search)); }
#endif
