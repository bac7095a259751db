// A text as numbers: its vocabulary, and its sentences as word ids in chunks that a trainer takes one by one.
//
// Text is cut at line ends into blocks of half a megabyte. A block becomes a chunk: ids of words, -1 at each sentence's
// end. Threads take blocks in any order; chunks lie in the order of the text, and words are numbered by falling count,
// equals by their bytes, so that nothing depends on the number of threads.
//
// Each thread numbers words in a table of its own as it meets them. A table that grows past its share of the memory
// becomes a sorted run on disk and a new one begins; `finish` merges all tables and runs by word, keeps the frequent
// words and renumbers the chunks. Chunks past their share of the memory lie in a temporary file.
//
// Tried and dropped:
//   mmap instead of pread    equally fast, but the file's pages count as the process's memory, and a file that is cut
//                            short while it is read kills the process
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace seqkit::embedding {

constexpr int64_t kBlockBytes = int64_t{1} << 19;
constexpr int64_t kTextPad = 64;        // bytes after a text that may be read
constexpr int64_t kLongestWord = 4096;  // bytes

// Bit i of word w tells of byte 64 w + i: whitespace, line end, outside ASCII.
struct ByteClasses {
  uint64_t* space;
  uint64_t* newline;
  uint64_t* high;
};

// Words that are numbered as they come.
class WordTable {
 public:
  struct Word {
    const char* text;
    uint32_t length;
    uint32_t hash;
    int64_t count;
  };

  WordTable();
  // The number of a word, a new one if need be; its count grows by `count`. kTextPad bytes after it must be readable.
  int32_t add(const char* text, uint32_t length, int64_t count);
  // The number of a word, or -1.
  int32_t find(const char* text, uint32_t length) const;
  int64_t bytes() const;
  const std::vector<Word>& words() const { return words_; }
  std::vector<Word>& words() { return words_; }
  std::string_view text(int32_t id) const { return {words_[id].text, words_[id].length}; }

 private:
  struct Slot {
    uint32_t tag;
    int32_t id;  // -1 empty
  };
  void grow();
  const char* keep(const char* text, uint32_t length);

  std::vector<Slot> slots_;
  std::vector<Word> words_;
  std::vector<std::unique_ptr<char[]>> arenas_;
  int64_t arena_used_ = 0, arena_size_ = 0;
};

// A file that vanishes with its owner.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& folder);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  void write(const void* from, int64_t bytes, int64_t at);
  void read(void* to, int64_t bytes, int64_t at) const;

 private:
  int file_;
};

struct Chunk {
  std::vector<int32_t> ids;  // empty if the chunk lies on disk
  int64_t at = -1;           // its place in the file of ids, -1 in memory
  int64_t size = 0;          // ids, sentence ends included
  int64_t words = 0;
  int64_t words_before = 0;
  int32_t table = 0;  // which table numbered it, until `finish`
};

struct CorpusOptions {
  int64_t min_count;
  int64_t max_words;  // 0: no bound
  int64_t memory;     // bytes for the tables and the ids, 0: no bound
  int32_t threads;
};

class Corpus {
 public:
  Corpus(const CorpusOptions& options, std::string temporary_folder);
  ~Corpus();

  // Words that keep the ids 0, 1, ... and are kept however rare they are (a vocabulary that grows).
  void add_known(std::string_view word, int64_t count);
  // Reads a whole file on all threads.
  void add_file(const std::string& path);
  // Reads a piece of a stream, of which `name` is told in an error; `end_stream` ends the last line.
  void feed(const char* text, int64_t size, const std::string& name);
  void end_stream();
  void finish();

  // After `finish`:
  int64_t vocabulary() const { return static_cast<int64_t>(counts_.size()); }
  const std::vector<int64_t>& counts() const { return counts_; }
  const std::string& words_text() const { return words_text_; }  // each followed by \n
  const std::vector<Chunk>& chunks() const { return chunks_; }
  int64_t total_words() const { return total_words_; }
  int64_t raw_words() const { return raw_words_; }
  bool spilled() const { return id_file_ != nullptr || !runs_.empty(); }
  // The ids of a chunk: in place, or read into `buffer`.
  const int32_t* ids(const Chunk& chunk, std::vector<int32_t>& buffer) const;

 private:
  struct Run;    // a sorted table on disk
  struct Scan;   // scratch of one thread
  struct Merge;  // the merge of all tables

  Chunk scan_block(Scan& scan, char* text, int64_t size, const std::string& name, int64_t at);
  void close_table(Scan& scan);
  void keep_chunk(Chunk& chunk);
  [[noreturn]] void refuse(const std::string& name, int64_t line, int64_t byte, int value);
  void take_stream_block(int64_t size);

  CorpusOptions options_;
  std::string folder_;
  std::vector<std::unique_ptr<WordTable>> tables_;  // null where the run is on disk
  std::vector<std::unique_ptr<Run>> runs_;
  std::vector<Chunk> chunks_;
  std::unique_ptr<TemporaryFile> id_file_;
  int64_t id_file_size_ = 0, ids_in_memory_ = 0;
  std::mutex mutex_;

  std::unique_ptr<Scan> stream_scan_;
  std::vector<char> stream_;
  int64_t stream_used_ = 0, stream_line_ = 1;
  std::string stream_name_;

  std::vector<std::pair<std::string, int64_t>> known_;
  std::vector<int64_t> counts_;
  std::string words_text_;
  int64_t total_words_ = 0, raw_words_ = 0;
};

}  // namespace seqkit::embedding
