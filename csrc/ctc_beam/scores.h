// What language models give a prefix, label by label, on either device. In an anonymous namespace and inlined: see
// common/device.h.
#pragma once

#include <cstdint>

#include "ctc_beam/ctc_beam.h"

namespace {

#ifdef __CUDACC__
#define SEQKIT_HERE __device__ __forceinline__
#else
#define SEQKIT_HERE inline __attribute__((always_inline))
#endif

using seqkit::BackoffAutomaton;
using seqkit::Lexicon;

SEQKIT_HERE int64_t inside(int64_t index, int64_t count) { return index >= 0 && index < count ? index : 0; }

// The arcs of a state or node, cut to what there is.
struct Arcs {
  int64_t begin, end;
};

SEQKIT_HERE Arcs arcs_of(const int32_t* first, int64_t state, int64_t arcs) {
  const int64_t begin = first[state], end = first[state + 1];
  return {begin < 0 ? 0 : begin, end > arcs ? arcs : end};
}

// The arc of a symbol, or -1.
SEQKIT_HERE int64_t find_arc(const int32_t* symbols, Arcs among, int64_t symbol) {
  while (among.begin < among.end) {
    const int64_t middle = among.begin + (among.end - among.begin) / 2;
    if (symbols[middle] == symbol) return middle;
    if (symbols[middle] < symbol) {
      among.begin = middle + 1;
    } else {
      among.end = middle;
    }
  }
  return -1;
}

struct Move {
  double score;
  int64_t next;
};

// One symbol from a state.
SEQKIT_HERE Move follow(const BackoffAutomaton& in, int64_t state, int64_t symbol) {
  double score = 0;
  while (true) {
    const Arcs arcs = arcs_of(in.first, state, in.arcs);
    const int64_t arc =
        state == 0 ? (symbol < arcs.end - arcs.begin ? arcs.begin + symbol : -1) : find_arc(in.symbols, arcs, symbol);
    if (arc >= 0) return {score + double(in.scores[arc]), inside(in.next[arc], in.states)};
    if (state == 0) return {score, 0};
    score += double(in.backoff[state]);
    const int64_t suffix = in.suffix[state];
    state = suffix >= 0 && suffix < state ? suffix : 0;
  }
}

// Where a prefix stands in every automaton. `score` is a function of the prefix.
struct Standing {
  double score;
  int32_t labels[2], words, spelled, node;  // of the word that has begun: its labels, and its node of the lexicon or -1
};

template <typename Call>
SEQKIT_HERE double beginning(const Call& call, const Standing& at) {
  return call.words.states && at.node < 0 ? call.unknown_score : 0.0;
}

// What the end of the word that has begun adds; and the state behind it.
template <typename Call>
SEQKIT_HERE Move ended_word(const Call& call, const Standing& at) {
  const int64_t word = at.node < 0 ? -1 : call.lexicon.words[at.node];
  Move move = follow(call.words, at.words, word < 0 ? call.unknown : word);
  if (word < 0) move.score += call.unknown_score;
  move.score -= beginning(call, at);
  return move;
}

template <typename Call>
SEQKIT_HERE Standing at_start(const Call& call) {
  return {.score = 0,
          .labels = {int32_t(call.labels[0].start), int32_t(call.labels[1].start)},
          .words = int32_t(call.words.start),
          .spelled = 0,
          .node = 0};
}

// After one more label.
template <typename Call>
SEQKIT_HERE Standing extended(const Call& call, Standing at, int64_t label) {
  for (int n = 0; n < 2; ++n) {
    if (!call.labels[n].states) continue;
    const Move move = follow(call.labels[n], at.labels[n], label);
    at.score += move.score;
    at.labels[n] = int32_t(move.next);
  }
  if (!call.words.states) return at;
  if (label == call.space) {
    if (at.spelled) {
      const Move move = ended_word(call, at);
      at.score += move.score;
      at.words = int32_t(move.next);
    }
    at.spelled = at.node = 0;
  } else {
    at.score -= beginning(call, at);
    if (at.node >= 0) {
      const Lexicon& in = call.lexicon;
      const int64_t arc = find_arc(in.labels, arcs_of(in.first, at.node, in.arcs), label);
      at.node = arc < 0 ? -1 : int32_t(inside(in.next[arc], in.nodes));
    }
    at.spelled += 1;
    at.score += beginning(call, at);
  }
  return at;
}

// The score when no label follows.
template <typename Call>
SEQKIT_HERE double at_end(const Call& call, const Standing& at) {
  double score = at.score;
  for (int n = 0; n < 2; ++n) {
    if (call.labels[n].states) score += double(call.labels[n].final[at.labels[n]]);
  }
  if (call.words.states) {
    int64_t state = at.words;
    if (at.spelled) {
      const Move move = ended_word(call, at);
      score += move.score;
      state = move.next;
    }
    score += double(call.words.final[state]);
  }
  return score;
}

// What each symbol adds from a state, row [count]: as `follow` for each of them, but an arc is looked at once.
template <typename Number>
SEQKIT_HERE void follow_all(const BackoffAutomaton& in, int64_t state, int64_t count, Number* row) {
  constexpr int kDeepest = 16;
  int64_t chain[kDeepest];
  double before[kDeepest], sum = 0;  // what the states above have cost
  int depth = 0;
  for (; state != 0 && depth < kDeepest; ++depth) {
    chain[depth] = state;
    before[depth] = sum;
    sum += double(in.backoff[state]);
    const int64_t suffix = in.suffix[state];
    state = suffix >= 0 && suffix < state ? suffix : 0;
  }
  for (int64_t c = 0; c < count; ++c) row[c] = Number(sum + follow(in, state, c).score);
  while (depth-- > 0) {  // the longer context wins
    const Arcs arcs = arcs_of(in.first, chain[depth], in.arcs);
    for (int64_t arc = arcs.begin; arc < arcs.end; ++arc) {
      const int64_t symbol = in.symbols[arc];
      if (symbol >= 0 && symbol < count) row[symbol] = Number(before[depth] + double(in.scores[arc]));
    }
  }
}

// What each label would add to a prefix, gains [C], and the largest of them. `row` is scratch, [C].
template <typename Number, typename Call>
SEQKIT_HERE Number fill_gains(const Call& call, const Standing& at, Number* gains, Number* row) {
  const int64_t C = call.classes;
  // Any label makes an unknown word of a known beginning, but those that the lexicon has here.
  const Number unknown = call.words.states && at.node >= 0 ? Number(call.unknown_score) : Number(0);
  for (int64_t c = 0; c < C; ++c) gains[c] = unknown;
  if (call.words.states) {
    if (at.node >= 0) {
      const Arcs arcs = arcs_of(call.lexicon.first, at.node, call.lexicon.arcs);
      for (int64_t arc = arcs.begin; arc < arcs.end; ++arc) {
        const int64_t label = call.lexicon.labels[arc];
        if (label >= 0 && label < C) gains[label] = 0;
      }
    }
    gains[call.space] = at.spelled ? Number(ended_word(call, at).score) : Number(0);
  }
  for (int n = 0; n < 2; ++n) {
    if (!call.labels[n].states) continue;
    follow_all(call.labels[n], at.labels[n], C, row);
    for (int64_t c = 0; c < C; ++c) gains[c] += row[c];
  }
  Number largest = gains[0];
  for (int64_t c = 1; c < C; ++c) largest = gains[c] > largest ? gains[c] : largest;
  return largest;
}

}  // namespace
