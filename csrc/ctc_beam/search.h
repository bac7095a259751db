// The search of one sentence, for both kinds of number: doubles one by one, floats a vector at a time.
//
// In an anonymous namespace and inlined, so that no code of one machine level can reach another (common/device.h).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/numerics.h"
#include "ctc_beam/ctc_beam.h"
#include "ctc_beam/scores.h"

namespace {

using seqkit::CtcBeamCall;

template <typename Number>
constexpr Number kNever = -Number(__builtin_inff());

constexpr int64_t kPad = 16;  // numbers; a multiple of the lanes of every level

SEQKIT_HERE int64_t padded(int64_t count) { return (count + kPad - 1) / kPad * kPad; }

// ---- log(exp a + exp b), with -infinity for 0 ----

SEQKIT_HERE double log_add(double a, double b) {
  const double most = a > b ? a : b, least = a > b ? b : a;
  return least == kNever<double> ? most : most + std::log1p(std::exp(least - most));
}

// log(1 + x) for x in 0 .. 1 to 3e-8 (Abramowitz and Stegun 1964, 4.1.44).
SEQKIT_HERE Vec log_of_one_plus(Vec x) {
  Vec p = splat(-0.0064535442f);
  p = fma(p, x, splat(0.0360884937f));
  p = fma(p, x, splat(-0.0953293897f));
  p = fma(p, x, splat(0.1676540711f));
  p = fma(p, x, splat(-0.2407338084f));
  p = fma(p, x, splat(0.3317990258f));
  p = fma(p, x, splat(-0.4998741238f));
  p = fma(p, x, splat(0.9999964239f));
  return p * x;
}

SEQKIT_HERE Vec log_add(Vec a, Vec b) {
  const Vec most = a > b ? a : b, least = a > b ? b : a;
  return most + log_of_one_plus(exp(least == splat(kNever<float>) ? least : least - most));
}

// to = log_add(to, from), [count]; the floats are padded.
SEQKIT_HERE void add_logs(double* to, const double* from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = log_add(to[i], from[i]);
}

SEQKIT_HERE void add_logs(float* to, const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(to + i, log_add(load(to + i), load(from + i)));
}

// ---- which numbers of a row are above a threshold ----

SEQKIT_HERE uint32_t bits_above(Vec x, Vec threshold) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)x, (__m512)threshold, _CMP_GT_OQ);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)(x > threshold)));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= uint32_t(x[lane] > threshold[lane]) << lane;
  return bits;
#endif
}

// Calls visit(i) for each row[i] above the threshold, in order; [count], the floats padded with -infinity.
template <typename Visit>
SEQKIT_HERE void visit_above(const double* row, int64_t count, double threshold, const Visit& visit) {
  for (int64_t i = 0; i < count; ++i) {
    if (row[i] > threshold) visit(i);
  }
}

template <typename Visit>
SEQKIT_HERE void visit_above(const float* row, int64_t count, float threshold, const Visit& visit) {
  const Vec bound = splat(threshold);
  for (int64_t i = 0; i < count; i += kLanes) {
    for (uint32_t bits = bits_above(load(row + i), bound); bits; bits &= bits - 1) visit(i + __builtin_ctz(bits));
  }
}

// ---- the n-th largest ----

// A float as an integer of the same order, and back.
SEQKIT_HERE int64_t ordered(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

SEQKIT_HERE float from_ordered(int64_t key, const float*) {
  int32_t bits = static_cast<int32_t>(key);
  bits ^= (bits >> 31) & 0x7fffffff;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

SEQKIT_HERE int64_t ordered(double x) {
  int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits ^ ((bits >> 63) & INT64_MAX);
}

SEQKIT_HERE double from_ordered(int64_t key, const double*) {
  const int64_t bits = key ^ ((key >> 63) & INT64_MAX);
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

SEQKIT_HERE int64_t count_above(const double* x, int64_t count, double threshold) {
  int64_t above = 0;
  for (int64_t i = 0; i < count; ++i) above += x[i] > threshold;
  return above;
}

SEQKIT_HERE int64_t count_above(const float* x, int64_t count, float threshold) {
  const Vec bound = splat(threshold);
  VecInt above{};
  for (int64_t i = 0; i < count; i += kLanes) above -= load(x + i) > bound;
  int64_t sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += above[lane];
  return sum;
}

// By halving: the least number that has fewer than n of x above it. n <= count, no NaN.
template <typename Number>
SEQKIT_HERE Number nth_largest(const Number* x, int64_t count, int64_t n) {
  Number least = x[0], most = x[0];
  for (int64_t i = 1; i < count; ++i) {
    least = x[i] < least ? x[i] : least;
    most = x[i] > most ? x[i] : most;
  }
  int64_t low = ordered(least), high = ordered(most);
  while (low < high) {
    const int64_t middle = low + static_cast<int64_t>((static_cast<uint64_t>(high) - static_cast<uint64_t>(low)) / 2);
    if (count_above(x, count, from_ordered(middle, x)) < n) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return from_ordered(low, x);
}

// ---- memory ----

// Hands out pieces of one allocation; from null, only counts.
struct Pieces {
  char* memory;
  int64_t used = 0;

  template <typename T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(memory + used);
    used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return memory ? piece : nullptr;
  }
};

// A prefix: its last label behind another prefix. It exists while it is in the beam or a longer one does.
struct Node {
  int32_t parent, label;
  int32_t children;    // that exist
  int32_t place;       // in the beam, or -1
  int32_t dead_child;  // the first of its children that are not in the beam but exist
  int32_t dead_next;   // the next of its parent's
};

// The prefixes of the beam, in its order.
template <typename Number>
struct Beam {
  Number* sums;    // log-probabilities, relative to those of the best prefix
  Number* blanks;  // of the alignments that end in a blank
  Number* labels;  // of those that end in the last label
  Number* scores;  // of the language models, relative as well
  int32_t* last;   // labels; C for the empty prefix
  int32_t* nodes;
  int32_t* gains;  // the row that says what a label would add

  void take(Pieces& pieces, int64_t count) {
    sums = pieces.take<Number>(count);
    blanks = pieces.take<Number>(count);
    labels = pieces.take<Number>(count);
    scores = pieces.take<Number>(count);
    last = pieces.take<int32_t>(count);
    nodes = pieces.take<int32_t>(count);
    gains = pieces.take<int32_t>(count);
  }
};

// What a search needs beside its arguments.
template <typename Number>
struct Room {
  Beam<Number> beam, next;
  Number* frame;                      // [C + 1], what is impossible as -infinity; the last is
  Number* row;                        // [C]
  Number* allowed;                    // [C], of the labels that may extend a prefix in this frame
  int32_t* names;                     // [C], which those are
  int32_t* positions;                 // [C], where a label stands among them, or -1
  Number* given;                      // [K], what the parents give to their children in the beam
  int32_t *first_child, *next_child;  // [K], places of children in the beam, or -1
  Number* ranks;                      // candidates
  int32_t *places, *columns;
  bool* kept;           // [K]
  Number* gains;        // [K, C]
  Number* largest;      // [K], of each row of gains
  int32_t* free_rows;   // [K]
  Standing* standings;  // [nodes]
  Node* nodes;
  int32_t* free_nodes;

  // So many candidates are made before the list is cut to the best.
  static int64_t most_candidates(int64_t beams) { return 3 * beams + 64; }

  static int64_t most_nodes(const CtcBeamCall<Number>& call) { return call.beam_size * (call.times + 1) + 1; }

  void take(Pieces& pieces, const CtcBeamCall<Number>& call) {
    const int64_t K = padded(call.beam_size), C = padded(call.classes + 1);
    const int64_t candidates = most_candidates(call.beam_size) + K + 2 * C;
    const bool scored = call.scored();
    beam.take(pieces, K);
    next.take(pieces, K);
    frame = pieces.take<Number>(C);
    row = pieces.take<Number>(C);
    allowed = pieces.take<Number>(C);
    names = pieces.take<int32_t>(C);
    positions = pieces.take<int32_t>(C);
    given = pieces.take<Number>(K);
    first_child = pieces.take<int32_t>(K);
    next_child = pieces.take<int32_t>(K);
    ranks = pieces.take<Number>(candidates);
    places = pieces.take<int32_t>(candidates);
    columns = pieces.take<int32_t>(candidates);
    kept = pieces.take<bool>(K);
    gains = pieces.take<Number>(scored ? (K + 1) * C : 0);
    largest = pieces.take<Number>(scored ? K : 0);
    free_rows = pieces.take<int32_t>(scored ? K : 0);
    // Last, and largest: most of it is never touched.
    standings = pieces.take<Standing>(scored ? most_nodes(call) : 0);
    nodes = pieces.take<Node>(most_nodes(call));
    free_nodes = pieces.take<int32_t>(most_nodes(call));
  }
};

// ---- the search ----

template <typename Number, bool kScored>
struct Search {
  const CtcBeamCall<Number>& call;
  Room<Number>& at;
  int64_t sentence;

  const int64_t C = call.classes, K = call.beam_size, row_size = padded(C + 1);
  int64_t size = 0;        // of the beam
  int64_t candidates = 0;  // made in this frame
  Number threshold = 0;    // a candidate must rank above it
  int64_t n_allowed = 0;
  Number most_allowed = 0;  // the largest of `allowed`
  int64_t n_nodes = 0, n_free_nodes = 0, n_free_rows = 0;
  double sum_offset = 0, score_offset = 0;  // what is relative is relative to these

  // -- the tree --

  SEQKIT_HERE int32_t new_node(int32_t parent, int32_t label) {
    const int32_t node = n_free_nodes ? at.free_nodes[--n_free_nodes] : int32_t(n_nodes++);
    at.nodes[node] = {.parent = parent, .label = label, .children = 0, .place = -1, .dead_child = -1, .dead_next = -1};
    if (parent >= 0) at.nodes[parent].children += 1;
    return node;
  }

  // Takes a node out of the list of its parent's dead children.
  SEQKIT_HERE void unlist(int32_t node) {
    int32_t* link = &at.nodes[at.nodes[node].parent].dead_child;
    while (*link != node) link = &at.nodes[*link].dead_next;
    *link = at.nodes[node].dead_next;
  }

  // The prefix of a node with one more label, which is not in the beam.
  SEQKIT_HERE int32_t child(int32_t parent, int32_t label) {
    for (int32_t node = at.nodes[parent].dead_child; node >= 0; node = at.nodes[node].dead_next) {
      if (at.nodes[node].label == label) {
        unlist(node);
        return node;
      }
    }
    const int32_t node = new_node(parent, label);
    if constexpr (kScored) at.standings[node] = extended(call, at.standings[parent], label);
    return node;
  }

  // A node leaves the beam; those that nothing needs any more are free again.
  SEQKIT_HERE void drop(int32_t node) {
    at.nodes[node].place = -1;
    if (at.nodes[node].children) {
      const int32_t parent = at.nodes[node].parent;
      if (parent >= 0) {  // nothing returns to the empty prefix
        at.nodes[node].dead_next = at.nodes[parent].dead_child;
        at.nodes[parent].dead_child = node;
      }
      return;
    }
    while (true) {
      const int32_t parent = at.nodes[node].parent;
      at.free_nodes[n_free_nodes++] = node;
      if (parent < 0 || --at.nodes[parent].children || at.nodes[parent].place >= 0) return;
      node = parent;
      if (at.nodes[node].parent >= 0) unlist(node);
    }
  }

  // -- a frame --

  // The frame with NaN and what is pruned as -infinity. Whether it has a label at all.
  SEQKIT_HERE bool read_frame(int64_t t) {
    const Number* from = call.log_probs + (sentence * call.times + t) * C;
    Number* frame = at.frame;
    for (int64_t c = 0; c < C; ++c) {
      const Number logp = from[c] > Number(seqkit::kMostCtcLogp) ? Number(seqkit::kMostCtcLogp) : from[c];
      frame[c] = logp == logp ? logp : kNever<Number>;
    }
    for (int64_t c = C; c < row_size; ++c) frame[c] = kNever<Number>;
    if (frame[call.blank] > call.blank_skip_logp) {
      const Number blank = frame[call.blank];
      for (int64_t c = 0; c < C; ++c) frame[c] = kNever<Number>;
      frame[call.blank] = blank;
      return false;
    }
    if (call.token_min_logp > kNever<Number>) {
      Number most = kNever<Number>;
      for (int64_t c = 0; c < C; ++c) most = frame[c] > most ? frame[c] : most;
      const Number least = call.token_min_logp < most ? call.token_min_logp : most;
      bool first = true;  // of equally probable labels below, the lowest
      for (int64_t c = 0; c < C; ++c) {
        const bool stays = frame[c] >= least && (frame[c] >= call.token_min_logp || first);
        if (stays && frame[c] < call.token_min_logp) first = false;
        frame[c] = stays ? frame[c] : kNever<Number>;
      }
    }
    return true;
  }

  // The prefixes of the beam after the frame, as candidates; their logarithms into `next`, at the same places.
  SEQKIT_HERE void stay() {
    const Beam<Number>& old = at.beam;
    Beam<Number>& now = at.next;
    const Number blank = at.frame[call.blank];
    for (int64_t k = 0; k < size; ++k) at.first_child[k] = -1;
    for (int64_t k = 0; k < size; ++k) {
      const Number label = at.frame[old.last[k]];
      now.blanks[k] = old.sums[k] + blank;
      now.labels[k] = old.labels[k] + label;
      at.given[k] = kNever<Number>;
      const int32_t parent = at.nodes[old.nodes[k]].parent, place = parent < 0 ? -1 : at.nodes[parent].place;
      if (place >= 0) {
        at.given[k] = (old.last[place] == old.last[k] ? old.blanks[place] : old.sums[place]) + label;
        at.next_child[k] = at.first_child[place];
        at.first_child[place] = int32_t(k);
      }
    }
    for (int64_t k = size; k < padded(size); ++k) now.blanks[k] = now.labels[k] = at.given[k] = kNever<Number>;
    add_logs(now.labels, at.given, size);
    for (int64_t k = 0; k < padded(size); ++k) now.sums[k] = now.blanks[k];
    add_logs(now.sums, now.labels, size);
    for (int64_t k = 0; k < size; ++k) {
      const Number rank = kScored ? now.sums[k] + old.scores[k] : now.sums[k];
      at.ranks[candidates] = rank;
      at.places[candidates] = int32_t(k);
      at.columns[candidates] = -1;
      candidates += rank > kNever<Number>;
    }
  }

  // The labels of the frame that could bring a prefix above the threshold.
  SEQKIT_HERE void allow() {
    Number base = kNever<Number>, gain = 0;
    for (int64_t k = 0; k < size; ++k) {
      const Number own = kScored ? at.beam.sums[k] + at.beam.scores[k] : at.beam.sums[k];
      base = own > base ? own : base;
      if (kScored) {
        const Number largest = at.largest[at.beam.gains[k]];
        gain = k == 0 || largest > gain ? largest : gain;
      }
    }
    n_allowed = 0;
    most_allowed = kNever<Number>;
    for (int64_t c = 0; c < C; ++c) {
      const Number logp = at.frame[c];
      const bool allowed = base + (logp + gain) > threshold && c != call.blank;
      at.allowed[n_allowed] = logp;
      at.names[n_allowed] = int32_t(c);
      at.positions[c] = allowed ? int32_t(n_allowed) : -1;
      n_allowed += allowed;
      most_allowed = allowed && logp > most_allowed ? logp : most_allowed;
    }
    for (int64_t i = n_allowed; i < padded(n_allowed); ++i) at.allowed[i] = kNever<Number>;
  }

  // Keeps the best of the candidates, equal ones in their order, and raises the threshold to the last of them.
  SEQKIT_HERE void cut() {
    if (candidates < K) return;
    for (int64_t i = candidates; i < padded(candidates); ++i) at.ranks[i] = kNever<Number>;
    threshold = nth_largest(at.ranks, candidates, K);
    if (candidates == K) return;
    int64_t equal = K - count_above(at.ranks, candidates, threshold), n = 0;
    for (int64_t i = 0; i < candidates; ++i) {
      const Number rank = at.ranks[i];
      const bool tie = rank == threshold, keep = rank > threshold || (tie && equal > 0);
      equal -= tie;
      at.ranks[n] = rank;
      at.places[n] = at.places[i];
      at.columns[n] = at.columns[i];
      n += keep;
    }
    candidates = n;
  }

  // The extensions of the prefix at a place.
  SEQKIT_HERE void extend(int64_t k) {
    const Beam<Number>& old = at.beam;
    const Number base = kScored ? old.sums[k] + old.scores[k] : old.sums[k];
    const Number* gains = kScored ? at.gains + old.gains[k] * row_size : nullptr;
    if (!(base + (kScored ? most_allowed + at.largest[old.gains[k]] : most_allowed) > threshold)) return;
    Number* row = at.row;
    if constexpr (kScored) {
      for (int64_t i = 0; i < n_allowed; ++i) row[i] = base + (at.allowed[i] + gains[at.names[i]]);
      for (int64_t i = n_allowed; i < padded(n_allowed); ++i) row[i] = kNever<Number>;
    } else {
      for (int64_t i = 0; i < padded(n_allowed); ++i) row[i] = base + at.allowed[i];
    }
    if (old.last[k] < C) {  // the same label once more needs a blank between
      const int32_t i = at.positions[old.last[k]];
      if (i >= 0) {
        const Number own = kScored ? old.blanks[k] + old.scores[k] : old.blanks[k];
        row[i] = own + (kScored ? at.allowed[i] + gains[at.names[i]] : at.allowed[i]);
      }
    }
    for (int32_t j = at.first_child[k]; j >= 0; j = at.next_child[j]) {  // `stay` has added it to the child
      const int32_t i = at.positions[old.last[j]];
      if (i >= 0) row[i] = kNever<Number>;
    }
    visit_above(row, n_allowed, threshold, [&](int64_t i) {
      at.ranks[candidates] = row[i];
      at.places[candidates] = int32_t(k);
      at.columns[candidates] = int32_t(i);
      ++candidates;
    });
    if (candidates >= Room<Number>::most_candidates(K)) cut();
  }

  // The candidates that are left become the beam.
  SEQKIT_HERE void advance() {
    Number best = kNever<Number>;
    int64_t first = 0;
    for (int64_t i = 0; i < candidates; ++i) {
      first = at.ranks[i] > best ? i : first;
      best = at.ranks[i] > best ? at.ranks[i] : best;
    }
    const Number least = best + call.beam_prune_logp;
    for (int64_t k = 0; k < size; ++k) at.kept[k] = false;
    Beam<Number>& old = at.beam;
    Beam<Number>& now = at.next;
    // Prefixes that stay come first and move down or not at all, so that `next` can be written where it is read.
    int64_t n = 0;
    for (int64_t i = 0; i < candidates; ++i) {
      if (at.ranks[i] < least) continue;
      const int64_t k = at.places[i];
      if (at.columns[i] < 0) {
        at.kept[k] = true;
        now.blanks[n] = now.blanks[k];
        now.labels[n] = now.labels[k];
        now.sums[n] = now.sums[k];
        now.last[n] = old.last[k];
        now.nodes[n] = old.nodes[k];
        if constexpr (kScored) now.gains[n] = old.gains[k];
      } else {
        const int32_t label = at.names[at.columns[i]];
        now.blanks[n] = kNever<Number>;
        now.labels[n] = (label == old.last[k] ? old.blanks[k] : old.sums[k]) + at.allowed[at.columns[i]];
        now.sums[n] = now.labels[n];
        now.last[n] = label;
        now.nodes[n] = child(old.nodes[k], label);
        at.nodes[now.nodes[n]].place = int32_t(n);  // before anything is dropped: it may have children
        if constexpr (kScored) now.gains[n] = -1;
      }
      if (i == first) first = -1 - n;  // where the best stands now
      ++n;
    }
    for (int64_t k = 0; k < size; ++k) {
      if (at.kept[k]) continue;
      if constexpr (kScored) at.free_rows[n_free_rows++] = old.gains[k];
      drop(old.nodes[k]);
    }
    size = n;
    const Beam<Number> spare = old;
    at.beam = now;
    at.next = spare;
    if (size) settle(-1 - first);
  }

  // Makes the beam relative to the prefix at a place.
  SEQKIT_HERE void settle(int64_t best) {
    Beam<Number>& beam = at.beam;
    const Number sum = beam.sums[best];
    sum_offset += double(sum);
    if constexpr (kScored) score_offset = at.standings[beam.nodes[best]].score;
    for (int64_t k = 0; k < size; ++k) {
      beam.sums[k] -= sum;
      beam.blanks[k] -= sum;
      beam.labels[k] -= sum;
      at.nodes[beam.nodes[k]].place = int32_t(k);
      if constexpr (kScored) {
        const Standing& standing = at.standings[beam.nodes[k]];
        beam.scores[k] = Number(standing.score - score_offset);
        if (beam.gains[k] < 0) {
          const int32_t row = at.free_rows[--n_free_rows];
          beam.gains[k] = row;
          at.largest[row] = fill_gains(call, standing, at.gains + row * row_size, at.gains + padded(K) * row_size);
        }
      }
    }
  }

  SEQKIT_HERE void begin() {
    const int32_t root = new_node(-1, int32_t(C));
    if constexpr (kScored) {
      at.standings[root] = at_start(call);
      for (int64_t k = 0; k < K; ++k) at.free_rows[n_free_rows++] = int32_t(K - 1 - k);
      at.beam.gains[0] = -1;
    }
    at.beam.blanks[0] = at.beam.sums[0] = 0;
    at.beam.labels[0] = kNever<Number>;
    at.beam.last[0] = int32_t(C);
    at.beam.nodes[0] = root;
    size = 1;
    settle(0);
  }

  // The best at the end, in order.
  SEQKIT_HERE void write() {
    const int64_t N = call.n_best, T = call.times;
    const Beam<Number>& beam = at.beam;
    Number* ends = at.ranks;
    for (int64_t k = 0; k < size; ++k) {
      ends[k] = beam.sums[k];
      if constexpr (kScored) ends[k] += Number(at_end(call, at.standings[beam.nodes[k]]) - score_offset);
    }
    for (int64_t n = 0; n < N; ++n) {
      int64_t best = -1;
      for (int64_t k = 0; k < size; ++k) {
        if (ends[k] > kNever<Number> && (best < 0 || ends[k] > ends[best])) best = k;
      }
      int64_t* labels = call.best_labels + (sentence * N + n) * T;
      int64_t length = 0;
      if (best >= 0) {
        for (int32_t node = beam.nodes[best]; at.nodes[node].parent >= 0; node = at.nodes[node].parent) ++length;
        int64_t i = length;
        for (int32_t node = beam.nodes[best]; at.nodes[node].parent >= 0; node = at.nodes[node].parent) {
          labels[--i] = at.nodes[node].label;
        }
      }
      for (int64_t i = length; i < T; ++i) labels[i] = -1;
      call.best_lengths[sentence * N + n] = length;
      const double logp = best < 0 ? kNever<double> : sum_offset + double(beam.sums[best]);
      call.best_log_probs[sentence * N + n] = Number(logp);
      call.best_scores[sentence * N + n] =
          best < 0 ? kNever<Number> : Number(sum_offset + score_offset * kScored + double(ends[best]));
      if (best >= 0) ends[best] = kNever<Number>;
    }
  }

  SEQKIT_HERE void run() {
    begin();
    for (int64_t t = 0; t < call.lengths[sentence] && size; ++t) {
      const bool has_labels = read_frame(t);
      candidates = 0;
      threshold = kNever<Number>;
      stay();
      if (has_labels) {
        cut();
        allow();
        if (n_allowed) {
          for (int64_t k = 0; k < size; ++k) extend(k);
          cut();
        }
      }
      advance();
    }
    write();
  }
};

}  // namespace
