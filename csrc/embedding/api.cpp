// What Python calls, through ctypes. Handles are opaque; a function that can fail returns null or one sentence, which
// lives until the thread's next call. Nothing here needs Python or torch.
//
// A plain C interface, because pybind11 has no limited-API build and one wheel serves every Python.
#include <cstring>
#include <exception>
#include <string>

#include "common/device.h"
#include "embedding/cooccurrence.h"
#include "embedding/corpus.h"
#include "embedding/glove.h"
#include "embedding/word2vec.h"

namespace seqkit::embedding {

SEQKIT_DECLARE_LEVELS(pair_window, (const Window& window));
SEQKIT_DECLARE_LEVELS(mean_window, (const Window& window));
SEQKIT_DECLARE_LEVELS(glove_steps, (const GloVeSteps& steps));

}  // namespace seqkit::embedding

namespace {

using namespace seqkit::embedding;

template <typename Call>
const char* guarded(const Call& call) {
  thread_local std::string message;
  try {
    call();
    return nullptr;
  } catch (const std::bad_alloc&) {
    message = "embedding: the machine must have the memory for the vocabulary and its vectors, got too little";
  } catch (const std::exception& error) {
    message = error.what();
  }
  return message.c_str();
}

}  // namespace

#define SEQKIT_API extern "C" __attribute__((visibility("default")))

// ---- Corpora ----

SEQKIT_API Corpus* seqkit_corpus_new(int64_t min_count, int64_t max_words, int64_t memory, int64_t threads,
                                     const char* temporary_folder) {
  return new Corpus({min_count, max_words, memory, static_cast<int32_t>(threads)}, temporary_folder);
}

SEQKIT_API void seqkit_corpus_free(Corpus* corpus) { delete corpus; }

SEQKIT_API const char* seqkit_corpus_add_known(Corpus* corpus, const char* word, int64_t length, int64_t count) {
  return guarded([&] { corpus->add_known({word, static_cast<size_t>(length)}, count); });
}

SEQKIT_API const char* seqkit_corpus_add_file(Corpus* corpus, const char* path) {
  return guarded([&] { corpus->add_file(path); });
}

SEQKIT_API const char* seqkit_corpus_feed(Corpus* corpus, const char* text, int64_t size, const char* name) {
  return guarded([&] { corpus->feed(text, size, name); });
}

SEQKIT_API const char* seqkit_corpus_end_stream(Corpus* corpus) {
  return guarded([&] { corpus->end_stream(); });
}

SEQKIT_API const char* seqkit_corpus_finish(Corpus* corpus) {
  return guarded([&] { corpus->finish(); });
}

SEQKIT_API int64_t seqkit_corpus_vocabulary(const Corpus* corpus) { return corpus->vocabulary(); }
SEQKIT_API int64_t seqkit_corpus_words(const Corpus* corpus) { return corpus->total_words(); }
SEQKIT_API int64_t seqkit_corpus_raw_words(const Corpus* corpus) { return corpus->raw_words(); }
SEQKIT_API int64_t seqkit_corpus_spilled(const Corpus* corpus) { return corpus->spilled(); }
SEQKIT_API const int64_t* seqkit_corpus_counts(const Corpus* corpus) { return corpus->counts().data(); }
SEQKIT_API const char* seqkit_corpus_text(const Corpus* corpus, int64_t* size) {
  *size = static_cast<int64_t>(corpus->words_text().size());
  return corpus->words_text().data();
}

// The ids of all sentences, -1 at each one's end; how many there are for a null `to`.
SEQKIT_API const char* seqkit_corpus_ids(const Corpus* corpus, int32_t* to, int64_t* size) {
  return guarded([&] {
    std::vector<int32_t> buffer;
    *size = 0;
    for (const Chunk& chunk : corpus->chunks()) {
      if (to) std::memcpy(to + *size, corpus->ids(chunk, buffer), chunk.size * sizeof(int32_t));
      *size += chunk.size;
    }
  });
}

// ---- Training ----

SEQKIT_API const char* seqkit_word2vec_new(const Word2VecOptions* options, const Corpus* corpus, Word2Vec** to) {
  return guarded([&] { *to = new Word2Vec(*options, *corpus); });
}

SEQKIT_API void seqkit_word2vec_free(Word2Vec* trainer) { delete trainer; }
SEQKIT_API const char* seqkit_word2vec_run(Word2Vec* trainer) {
  return guarded([&] { trainer->run(); });
}
SEQKIT_API void seqkit_word2vec_stop(Word2Vec* trainer) { trainer->stop(); }

struct Progress {
  int64_t position, words, pairs;
  double loss;
};

SEQKIT_API void seqkit_word2vec_progress(const Word2Vec* trainer, Progress* to) {
  *to = {trainer->position(), trainer->words_done(), trainer->pairs(), trainer->loss()};
}

SEQKIT_API void seqkit_word2vec_restore(Word2Vec* trainer, const Progress* from) {
  trainer->set_position(from->position);
  trainer->count_before(from->words, from->pairs, from->loss);
}

SEQKIT_API float* seqkit_word2vec_matrix(Word2Vec* trainer, int64_t which, int64_t* rows, int64_t* width) {
  Matrix& matrix = which == 0 ? trainer->input() : trainer->output();
  *rows = matrix.rows();
  *width = matrix.width();
  return matrix.data();
}

// The bucket of each input row that is no word's.
SEQKIT_API const int32_t* seqkit_word2vec_buckets(const Word2Vec* trainer, int64_t* size) {
  const Subwords* subwords = trainer->subwords();
  *size = subwords ? static_cast<int64_t>(subwords->bucket.size()) : 0;
  return subwords ? subwords->bucket.data() : nullptr;
}

// Writes at most `room` buckets of a word's n-grams and returns how many there are.
SEQKIT_API int64_t seqkit_subword_buckets(const char* word, int64_t length, int64_t min_n, int64_t max_n,
                                          int64_t buckets, int32_t* to, int64_t room) {
  std::vector<int32_t> found;
  Subwords::buckets_of({word, static_cast<size_t>(length)}, min_n, max_n, buckets, found);
  for (int64_t i = 0; i < static_cast<int64_t>(found.size()) && i < room; ++i) to[i] = found[i];
  return static_cast<int64_t>(found.size());
}

// One window on rows of `width` floats that lie one after the other, 64-byte aligned; the loss before the step.
SEQKIT_API double seqkit_window_step(float* in, int64_t n_in, float* out, const float* weight, int64_t n_out,
                                     int64_t width, int64_t mean) {
  std::vector<float*> in_rows, out_rows;
  for (int64_t r = 0; r < n_in; ++r) in_rows.push_back(in + r * width);
  for (int64_t k = 0; k < n_out; ++k) out_rows.push_back(out + k * width);
  std::vector<float> weights(weight, weight + n_out), scratch(scratch_floats(n_in, n_out, width) + kRowFloats);
  weights.resize(n_out + 2 * kRowFloats);
  LossSum sum = no_loss();
  const Window window{in_rows.data(), n_in, out_rows.data(), weights.data(), n_out, width, scratch.data(), &sum};
  if (mean) {
    SEQKIT_PICK_LEVEL(mean_window)(window);
  } else {
    SEQKIT_PICK_LEVEL(pair_window)(window);
  }
  return loss_of(sum, 1);
}

// ---- GloVe ----

// All pairs i <= j of a corpus, for who wants the counts themselves; the caller's room is for `room` pairs.
SEQKIT_API const char* seqkit_cooccurrence(const Corpus* corpus, int64_t window, int64_t memory, int64_t threads,
                                           const char* temporary_folder, int32_t* i, int32_t* j, double* count,
                                           int64_t room, int64_t* size) {
  return guarded([&] {
    Cooccurrence counts({window, memory, threads}, *corpus, temporary_folder);
    *size = 0;
    counts.read([&](int32_t first, int32_t second, int64_t units) {
      if (*size < room) {
        i[*size] = first;
        j[*size] = second;
        count[*size] = static_cast<double>(units) / static_cast<double>(kUnits);
      }
      ++*size;
    });
  });
}

SEQKIT_API const char* seqkit_glove_new(const GloVeOptions* options, const Corpus* corpus, const char* temporary_folder,
                                        GloVe** to) {
  return guarded([&] { *to = new GloVe(*options, *corpus, temporary_folder); });
}

SEQKIT_API void seqkit_glove_free(GloVe* trainer) { delete trainer; }
SEQKIT_API const char* seqkit_glove_run(GloVe* trainer) {
  return guarded([&] { trainer->run(); });
}
SEQKIT_API void seqkit_glove_stop(GloVe* trainer) { trainer->stop(); }
SEQKIT_API int64_t seqkit_glove_terms(const GloVe* trainer) { return trainer->buckets().terms(); }
SEQKIT_API int64_t seqkit_glove_on_disk(const GloVe* trainer) { return trainer->buckets().on_disk(); }

// `words` are terms of the objective, over all epochs; pairs and loss those of the epoch that runs.
SEQKIT_API void seqkit_glove_progress(const GloVe* trainer, Progress* to) {
  *to = {trainer->position(), trainer->terms_done(), trainer->loss_terms(), trainer->loss()};
}

SEQKIT_API void seqkit_glove_restore(GloVe* trainer, const Progress* from) {
  trainer->restore(from->position, from->words, from->pairs, from->loss);
}

// The rows, and the width of each of their four parts.
SEQKIT_API float* seqkit_glove_rows(GloVe* trainer, int64_t* rows, int64_t* width) {
  *rows = trainer->rows().rows();
  *width = trainer->width();
  return trainer->rows().data();
}

// One step on rows of four parts of `width` floats that lie one after the other; the loss before it.
SEQKIT_API double seqkit_glove_step(float* rows, int64_t width, int32_t i, int32_t j, float log_count, float weight,
                                    float eta) {
  const GloVePair pair{i, j, log_count, weight};
  double loss = 0;
  SEQKIT_PICK_LEVEL(glove_steps)({rows, width, &pair, 1, eta, &loss});
  return loss;
}
