#include "embedding/corpus.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <queue>
#include <stdexcept>
#include <thread>

#include "common/device.h"

namespace seqkit::embedding {

SEQKIT_DECLARE_LEVELS(classify_bytes,
                      (const char* text, int64_t words, uint64_t* space, uint64_t* newline, uint64_t* high));

namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

uint64_t mix(uint64_t hash, uint64_t bytes) {
  hash = (hash ^ bytes) * 0x9E3779B97F4A7C15ull;
  return hash ^ (hash >> 29);
}

// Reads up to seven bytes beyond the word.
uint32_t hash_of(const char* text, uint32_t length) {
  uint64_t hash = length, bytes;
  for (; length >= 8; length -= 8, text += 8) {
    std::memcpy(&bytes, text, 8);
    hash = mix(hash, bytes);
  }
  if (length) {
    std::memcpy(&bytes, text, 8);
    hash = mix(hash, bytes & (~uint64_t{0} >> (64 - 8 * length)));
  }
  return static_cast<uint32_t>(hash ^ (hash >> 32));
}

// The first byte that does not belong to a UTF-8 character, or -1. Bytes of `high` words that are zero are skipped.
int64_t invalid_utf8(const char* text, int64_t size, const uint64_t* high) {
  const auto byte = [&](int64_t at) { return at < size ? static_cast<unsigned char>(text[at]) : 0u; };
  const auto follows = [&](int64_t at) { return (byte(at) & 0xC0) == 0x80; };
  for (int64_t at = 0; at < size;) {
    const uint64_t ahead = high[at / 64] >> (at % 64);
    if (!ahead) {
      at = (at / 64 + 1) * 64;
      continue;
    }
    at += __builtin_ctzll(ahead);
    const unsigned first = byte(at), second = byte(at + 1);
    if (first >= 0xC2 && first <= 0xDF && follows(at + 1)) {
      at += 2;
    } else if ((first & 0xF0) == 0xE0 && follows(at + 1) && follows(at + 2) && !(first == 0xE0 && second < 0xA0) &&
               !(first == 0xED && second >= 0xA0)) {
      at += 3;
    } else if (first >= 0xF0 && first <= 0xF4 && follows(at + 1) && follows(at + 2) && follows(at + 3) &&
               !(first == 0xF0 && second < 0x90) && !(first == 0xF4 && second >= 0x90)) {
      at += 4;
    } else {
      return at;
    }
  }
  return -1;
}

bool is_space(char byte) { return byte == ' ' || static_cast<unsigned char>(byte - 9) <= 4; }

// Where a block ends, from a text that begins at the block's nominal end: after its first line, else after its first
// word, else at its end. -1 if more text must be seen.
int64_t cut_in(const char* text, int64_t size, bool complete) {
  const int64_t seen = std::min(size, kBlockBytes);
  if (const void* newline = std::memchr(text, '\n', seen)) return static_cast<const char*>(newline) - text + 1;
  if (seen < kBlockBytes && !complete) return -1;
  for (int64_t at = 0; at < seen; ++at) {
    if (is_space(text[at])) return at + 1;
  }
  return seen;
}

}  // namespace

// ---- Words ----

WordTable::WordTable() : slots_(1 << 12, Slot{0, -1}) {}

const char* WordTable::keep(const char* text, uint32_t length) {
  if (arena_used_ + length > arena_size_) {
    arena_size_ = std::max<int64_t>(1 << 18, length);
    arena_used_ = 0;
    arenas_.emplace_back(new char[arena_size_]);
  }
  char* place = arenas_.back().get() + arena_used_;
  std::memcpy(place, text, length);
  arena_used_ += length;
  return place;
}

void WordTable::grow() {
  std::vector<Slot> wider(slots_.size() * 2, Slot{0, -1});
  const uint32_t mask = static_cast<uint32_t>(wider.size() - 1);
  for (size_t id = 0; id < words_.size(); ++id) {
    uint32_t at = words_[id].hash & mask;
    while (wider[at].id >= 0) at = (at + 1) & mask;
    wider[at] = {words_[id].hash, static_cast<int32_t>(id)};
  }
  slots_.swap(wider);
}

int32_t WordTable::add(const char* text, uint32_t length, int64_t count) {
  const uint32_t hash = hash_of(text, length), mask = static_cast<uint32_t>(slots_.size() - 1);
  uint32_t at = hash & mask;
  for (; slots_[at].id >= 0; at = (at + 1) & mask) {
    if (slots_[at].tag != hash) continue;
    Word& word = words_[slots_[at].id];
    if (word.length == length && std::memcmp(word.text, text, length) == 0) {
      word.count += count;
      return slots_[at].id;
    }
  }
  const int32_t id = static_cast<int32_t>(words_.size());
  slots_[at] = {hash, id};
  words_.push_back({keep(text, length), length, hash, count});
  if (words_.size() * 2 > slots_.size()) grow();
  return id;
}

int32_t WordTable::find(const char* text, uint32_t length) const {
  const uint32_t hash = hash_of(text, length), mask = static_cast<uint32_t>(slots_.size() - 1);
  for (uint32_t at = hash & mask; slots_[at].id >= 0; at = (at + 1) & mask) {
    const Word& word = words_[slots_[at].id];
    if (slots_[at].tag == hash && word.length == length && std::memcmp(word.text, text, length) == 0) {
      return slots_[at].id;
    }
  }
  return -1;
}

int64_t WordTable::bytes() const {
  return static_cast<int64_t>(slots_.size() * sizeof(Slot) + words_.capacity() * sizeof(Word) +
                              arenas_.size() * (1 << 18));
}

// ---- Files ----

TemporaryFile::TemporaryFile(const std::string& folder) {
  std::string name = folder + "/seqkit-XXXXXX";
  file_ = mkstemp(name.data());
  if (file_ < 0) fail(folder + ": temporary folder must be writable, got " + std::strerror(errno));
  unlink(name.c_str());
}

TemporaryFile::~TemporaryFile() { close(file_); }

void TemporaryFile::write(const void* from, int64_t bytes, int64_t at) {
  const char* data = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t done = pwrite(file_, data, bytes, at);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail(std::string("temporary file must have room on its disk, got ") + std::strerror(errno));
    data += done, at += done, bytes -= done;
  }
}

void TemporaryFile::read(void* to, int64_t bytes, int64_t at) const {
  char* data = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t done = pread(file_, data, bytes, at);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) fail("temporary file must be readable, got an early end");
    data += done, at += done, bytes -= done;
  }
}

// ---- Tables on disk ----

// Words in the order of their bytes, each with its count and its number in the table.
struct Corpus::Run {
  explicit Run(const std::string& folder) : file(folder) {}

  void write(WordTable& table, const std::vector<int32_t>& order) {
    std::string buffer;
    for (const int32_t id : order) {
      const WordTable::Word& word = table.words()[id];
      buffer.append(reinterpret_cast<const char*>(&word.length), sizeof word.length);
      buffer.append(reinterpret_cast<const char*>(&word.count), sizeof word.count);
      buffer.append(reinterpret_cast<const char*>(&id), sizeof id);
      buffer.append(word.text, word.length);
      if (buffer.size() > (1 << 18)) flush(buffer);
    }
    flush(buffer);
    words = static_cast<int64_t>(order.size());
  }

  void flush(std::string& buffer) {
    file.write(buffer.data(), static_cast<int64_t>(buffer.size()), size);
    size += static_cast<int64_t>(buffer.size());
    buffer.clear();
  }

  // Reads the next word; false at the end.
  bool next() {
    constexpr int64_t kHeader = 16;
    if (!ensure(kHeader)) return false;
    uint32_t length;
    std::memcpy(&length, piece.data() + at, 4);
    std::memcpy(&count, piece.data() + at + 4, 8);
    std::memcpy(&id, piece.data() + at + 12, 4);
    ensure(kHeader + length);
    text.assign(piece.data() + at + kHeader, length);
    at += kHeader + length;
    return true;
  }

  bool ensure(int64_t bytes) {
    if (static_cast<int64_t>(piece.size()) - at >= bytes) return true;
    piece.erase(piece.begin(), piece.begin() + at);
    at = 0;
    const int64_t more = std::min<int64_t>(size - read, 1 << 16);
    const size_t before = piece.size();
    piece.resize(before + more);
    file.read(piece.data() + before, more, read);
    read += more;
    return static_cast<int64_t>(piece.size()) >= bytes;
  }

  TemporaryFile file;
  int32_t table = 0;
  int64_t words = 0, size = 0, read = 0, at = 0;
  std::vector<char> piece;
  std::string text;
  int64_t count = 0;
  int32_t id = 0;
};

struct Corpus::Scan {
  int32_t table = -1;
  std::vector<char> text;
  std::vector<uint64_t> space, newline, high;
  std::vector<int32_t> ids;
};

// ---- Reading ----

Corpus::Corpus(const CorpusOptions& options, std::string temporary_folder)
    : options_(options), folder_(std::move(temporary_folder)) {}

Corpus::~Corpus() = default;

void Corpus::add_known(std::string_view word, int64_t count) { known_.emplace_back(word, count); }

void Corpus::refuse(const std::string& name, int64_t line, int64_t byte, int value) {
  if (value < 0) {
    fail(name + ":" + std::to_string(line) + ": word must have at most " + std::to_string(kLongestWord) +
         " bytes, got more");
  }
  char hex[16];
  std::snprintf(hex, sizeof hex, "0x%02x", value);
  fail(name + ":" + std::to_string(line) + ": line must be UTF-8, got byte " + hex + " at " + std::to_string(byte));
}

// `at` is the text's line number in a stream, or minus its place in the file `name`: where an error is counted from.
Chunk Corpus::scan_block(Scan& scan, char* text, int64_t size, const std::string& name, int64_t at) {
  if (scan.table < 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    scan.table = static_cast<int32_t>(tables_.size());
    tables_.push_back(std::make_unique<WordTable>());
  }
  WordTable& table = *tables_[scan.table];
  const int64_t parts = (size + 63) / 64;
  std::memset(text + size, 0, kTextPad);
  scan.space.resize(parts + 1);
  scan.newline.resize(parts + 1);
  scan.high.resize(parts + 1);
  SEQKIT_PICK_LEVEL(classify_bytes)(text, parts, scan.space.data(), scan.newline.data(), scan.high.data());
  scan.space[parts] = ~uint64_t{0};
  if (size % 64) scan.space[parts - 1] |= ~uint64_t{0} << (size % 64);  // the end of the text ends a word

  const auto line_of = [&](int64_t where, int64_t* column) {
    int64_t line = at > 0 ? at : 1, begin = 0;
    if (at <= 0) {
      const int file = open(name.c_str(), O_RDONLY | O_CLOEXEC);
      std::vector<char> piece(1 << 16);
      for (int64_t from = 0; file >= 0 && from < -at;) {
        const ssize_t got = pread(file, piece.data(), std::min<int64_t>(-at - from, 1 << 16), from);
        if (got <= 0) break;
        line += std::count(piece.begin(), piece.begin() + got, '\n');
        from += got;
      }
      if (file >= 0) close(file);
    }
    for (int64_t i = 0; i < where; ++i) {
      if (text[i] == '\n') ++line, begin = i + 1;
    }
    *column = where - begin;
    return line;
  };
  bool ascii = true;
  for (int64_t p = 0; p < parts; ++p) ascii &= scan.high[p] == 0;
  if (!ascii) {
    const int64_t wrong = invalid_utf8(text, size, scan.high.data());
    if (wrong >= 0) {
      int64_t column;
      const int64_t line = line_of(wrong, &column);
      refuse(name, line, column, static_cast<unsigned char>(text[wrong]));
    }
  }

  std::vector<int32_t>& ids = scan.ids;
  ids.clear();
  int64_t words = 0, begin = 0;
  for (int64_t p = 0; p < parts; ++p) {
    uint64_t space = scan.space[p];
    const uint64_t newline = scan.newline[p];
    while (space) {
      const int bit = __builtin_ctzll(space);
      space &= space - 1;
      const int64_t end = 64 * p + bit;
      if (end > size) break;
      if (end > begin) {
        if (end - begin > kLongestWord) {
          int64_t column;
          const int64_t line = line_of(begin, &column);
          refuse(name, line, column, -1);
        }
        ids.push_back(table.add(text + begin, static_cast<uint32_t>(end - begin), 1));
        ++words;
      }
      begin = end + 1;
      if (newline >> bit & 1 && !ids.empty() && ids.back() >= 0) ids.push_back(-1);
    }
  }
  if (begin < size) ids.push_back(table.add(text + begin, static_cast<uint32_t>(size - begin), 1)), ++words;
  if (!ids.empty() && ids.back() >= 0) ids.push_back(-1);

  Chunk chunk;
  chunk.ids.assign(ids.begin(), ids.end());
  chunk.size = static_cast<int64_t>(ids.size());
  chunk.words = words;
  chunk.table = scan.table;
  if (options_.memory > 0 && table.bytes() > options_.memory / 4 / std::max(1, options_.threads)) close_table(scan);
  return chunk;
}

void Corpus::close_table(Scan& scan) {
  WordTable& table = *tables_[scan.table];
  std::vector<int32_t> order(table.words().size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return table.text(a) < table.text(b); });
  auto run = std::make_unique<Run>(folder_);
  run->table = scan.table;
  run->write(table, order);
  const std::lock_guard<std::mutex> lock(mutex_);
  tables_[scan.table].reset();
  runs_.push_back(std::move(run));
  scan.table = -1;
}

void Corpus::keep_chunk(Chunk& chunk) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t bytes = chunk.size * static_cast<int64_t>(sizeof(int32_t));
  if (options_.memory > 0 && ids_in_memory_ + bytes > options_.memory / 4) {
    if (!id_file_) id_file_ = std::make_unique<TemporaryFile>(folder_);
    chunk.at = id_file_size_;
    id_file_->write(chunk.ids.data(), bytes, chunk.at);
    id_file_size_ += bytes;
    std::vector<int32_t>().swap(chunk.ids);
  } else {
    ids_in_memory_ += bytes;
  }
}

void Corpus::add_file(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat facts;
  if (file < 0 || fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) {
    const std::string why = file < 0 ? std::strerror(errno) : "no regular file";
    if (file >= 0) close(file);
    fail(path + ": corpus must be a file that can be read, got " + why);
  }
  const int64_t file_size = facts.st_size, blocks = (file_size + kBlockBytes - 1) / kBlockBytes;
  const size_t first = chunks_.size();
  chunks_.resize(first + blocks);
  std::atomic<int64_t> next{0};
  std::mutex error_mutex;
  std::exception_ptr error;
  int64_t error_block = blocks;

  const auto read_at = [&](char* to, int64_t bytes, int64_t at) {
    for (int64_t got = 0; got < bytes;) {
      const ssize_t done = pread(file, to + got, bytes - got, at + got);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) fail(path + ": corpus must be a file that can be read, got " + std::strerror(errno));
      if (done == 0) fail(path + ": corpus must stay as it is while it is read, got an early end");
      got += done;
    }
  };
  const auto scan_one = [&](Scan& scan, int64_t block) {
    const int64_t begin = block * kBlockBytes, nominal = std::min(begin + kBlockBytes, file_size);
    const int64_t seen = std::min(nominal + kBlockBytes, file_size);
    scan.text.resize(2 * kBlockBytes + kTextPad);
    char* text = scan.text.data();
    read_at(text, nominal - begin, begin);
    int64_t end = nominal, have = nominal;
    if (nominal < file_size) {
      int64_t cut = -1;
      while (cut < 0) {  // the line that crosses the end, a little at a time
        const int64_t more = std::min<int64_t>(4096, seen - have);
        read_at(text + have - begin, more, have);
        have += more;
        cut = cut_in(text + (nominal - begin), have - nominal, have == seen);
      }
      end = nominal + cut;
    }
    int64_t from = 0;
    if (block > 0) {
      from = cut_in(text, have - begin, true);
    } else if (file_size >= 3 && std::memcmp(text, "\xef\xbb\xbf", 3) == 0) {
      from = 3;
    }
    if (begin + from >= end) return;
    Chunk chunk = scan_block(scan, text + from, end - begin - from, path, -(begin + from));
    keep_chunk(chunk);
    chunks_[first + block] = std::move(chunk);
  };
  const auto work = [&] {
    Scan scan;
    for (int64_t block; (block = next.fetch_add(1)) < blocks;) {
      try {
        scan_one(scan, block);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(error_mutex);
        if (block < error_block) error_block = block, error = std::current_exception();
        next = blocks;
      }
    }
  };
  std::vector<std::thread> threads;
  const int64_t helpers = std::min<int64_t>(options_.threads, blocks) - 1;
  for (int64_t t = 0; t < helpers; ++t) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  close(file);
  if (error) std::rethrow_exception(error);
}

void Corpus::feed(const char* text, int64_t size, const std::string& name) {
  stream_name_ = name;
  while (size > 0) {
    // One block, the line after its nominal end and no more is held at a time.
    const int64_t room = 2 * kBlockBytes - stream_used_, take = std::min(room, size);
    stream_.resize(2 * kBlockBytes + 2 * kTextPad);
    std::memcpy(stream_.data() + stream_used_, text, take);
    stream_used_ += take, text += take, size -= take;
    while (stream_used_ > kBlockBytes) {
      const int64_t cut = cut_in(stream_.data() + kBlockBytes, stream_used_ - kBlockBytes, false);
      if (cut < 0) break;
      take_stream_block(kBlockBytes + cut);
    }
  }
}

void Corpus::take_stream_block(int64_t size) {
  if (!stream_scan_) stream_scan_ = std::make_unique<Scan>();
  char kept[kTextPad];
  std::memcpy(kept, stream_.data() + size, kTextPad);
  Chunk chunk = scan_block(*stream_scan_, stream_.data(), size, stream_name_, stream_line_);
  std::memcpy(stream_.data() + size, kept, kTextPad);
  stream_line_ += std::count(stream_.data(), stream_.data() + size, '\n');
  keep_chunk(chunk);
  chunks_.push_back(std::move(chunk));
  std::memmove(stream_.data(), stream_.data() + size, stream_used_ - size);
  stream_used_ -= size;
}

void Corpus::end_stream() {
  if (stream_used_ > 0) take_stream_block(stream_used_);
  stream_line_ = 1;
}

// ---- The vocabulary ----

// What the merge decides for each word: its count over all tables, and where its numbers in them stand.
struct Corpus::Merge {
  struct Kept {
    int64_t text;  // place in `texts`
    uint32_t length;
    int64_t count;
    int32_t known;  // its fixed id, or -1
  };
  std::vector<Kept> kept;
  std::string texts;
  std::vector<std::vector<int32_t>> renumber;  // per table: place in `kept`, or -1

  std::string_view text(const Kept& word) const { return {texts.data() + word.text, word.length}; }
  int32_t keep(std::string_view word, int64_t count, int32_t known) {
    kept.push_back({static_cast<int64_t>(texts.size()), static_cast<uint32_t>(word.size()), count, known});
    texts.append(word);
    return static_cast<int32_t>(kept.size() - 1);
  }
};

void Corpus::finish() {
  stream_scan_.reset();
  std::vector<char>().swap(stream_);
  Merge merge;
  merge.renumber.resize(tables_.size());
  WordTable known;
  for (auto& [word, count] : known_) {
    word.resize(word.size() + kTextPad);  // as the table wants it
    known.add(word.data(), static_cast<uint32_t>(word.size() - kTextPad), count);
    word.resize(word.size() - kTextPad);
  }
  std::vector<int32_t> known_place(known.words().size(), -1);
  const auto decide = [&](std::string_view word, int64_t count) {
    const int32_t fixed = known.find(word.data(), static_cast<uint32_t>(word.size()));
    if (fixed < 0 && count < options_.min_count) return -1;
    const int32_t place = merge.keep(word, count + (fixed < 0 ? 0 : known.words()[fixed].count), fixed);
    if (fixed >= 0) known_place[fixed] = place;
    return place;
  };

  if (runs_.empty()) {
    // All tables into the largest, word by word.
    size_t main = 0;
    for (size_t t = 1; t < tables_.size(); ++t) {
      if (tables_[t]->words().size() > tables_[main]->words().size()) main = t;
    }
    for (size_t t = 0; t < tables_.size(); ++t) {
      if (t == main) continue;
      for (const WordTable::Word& word : tables_[t]->words()) {
        std::string padded(word.text, word.length);
        padded.resize(word.length + kTextPad);
        merge.renumber[t].push_back(tables_[main]->add(padded.data(), word.length, word.count));
      }
      tables_[t].reset();
    }
    if (!tables_.empty()) {
      std::string padded;
      for (const WordTable::Word& word : tables_[main]->words()) {
        int32_t place = -1;
        if (word.count >= options_.min_count || !known_.empty()) {
          padded.assign(word.text, word.length).append(kTextPad, '\0');
          place = decide({padded.data(), word.length}, word.count);
        }
        merge.renumber[main].push_back(place);
      }
      for (size_t t = 0; t < tables_.size(); ++t) {
        if (t == main) continue;
        for (int32_t& id : merge.renumber[t]) id = merge.renumber[main][id];
      }
    }
  } else {
    for (size_t t = 0; t < tables_.size(); ++t) {
      Scan scan;
      scan.table = static_cast<int32_t>(t);
      if (tables_[t]) close_table(scan);
    }
    const auto later = [](const Run* a, const Run* b) { return a->text > b->text; };
    std::priority_queue<Run*, std::vector<Run*>, decltype(later)> queue(later);
    for (auto& run : runs_) {
      merge.renumber[run->table].assign(run->words, -1);
      if (run->next()) queue.push(run.get());
    }
    std::string word;
    std::vector<std::pair<int32_t, int32_t>> places;  // table, number
    while (!queue.empty()) {
      word = queue.top()->text;
      int64_t count = 0;
      places.clear();
      while (!queue.empty() && queue.top()->text == word) {
        Run* run = queue.top();
        queue.pop();
        count += run->count;
        places.emplace_back(run->table, run->id);
        if (run->next()) queue.push(run);
      }
      const size_t length = word.size();
      word.resize(length + kTextPad);
      const int32_t place = decide({word.data(), length}, count);
      for (const auto& [table, id] : places) merge.renumber[table][id] = place;
    }
  }
  tables_.clear();
  for (size_t k = 0; k < known_.size(); ++k) {
    if (known_place[k] < 0) merge.keep(known_[k].first, known_[k].second, static_cast<int32_t>(k));
  }

  // Known words first, in their order; then by count, then by bytes.
  std::vector<int32_t> order(merge.kept.size()), final_id(merge.kept.size(), -1);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const Merge::Kept &x = merge.kept[a], &y = merge.kept[b];
    if (x.known != y.known) return y.known < 0 || (x.known >= 0 && x.known < y.known);
    if (x.count != y.count) return x.count > y.count;
    return merge.text(x) < merge.text(y);
  });
  const int64_t bound = std::max<int64_t>(options_.max_words, static_cast<int64_t>(known_.size()));
  if (options_.max_words > 0 && static_cast<int64_t>(order.size()) > bound) order.resize(bound);
  for (size_t i = 0; i < order.size(); ++i) {
    final_id[order[i]] = static_cast<int32_t>(i);
    counts_.push_back(merge.kept[order[i]].count);
    words_text_.append(merge.text(merge.kept[order[i]])).push_back('\n');
  }
  for (auto& places : merge.renumber) {
    for (int32_t& place : places) place = place < 0 ? -1 : final_id[place];
  }

  // The chunks with their last numbers; rare words go, and so do sentences that hold no other.
  std::vector<int32_t> buffer;
  std::vector<Chunk> kept;
  for (Chunk& chunk : chunks_) {
    if (chunk.size == 0) continue;
    raw_words_ += chunk.words;
    std::vector<int32_t>& ids = chunk.at < 0 ? chunk.ids : buffer;
    if (chunk.at >= 0) {
      buffer.resize(chunk.size);
      id_file_->read(buffer.data(), chunk.size * 4, chunk.at);
    }
    const int32_t* renumber = merge.renumber[chunk.table].data();
    int64_t size = 0, words = 0;
    for (int64_t i = 0; i < chunk.size; ++i) {
      if (ids[i] < 0) {
        if (size > 0 && ids[size - 1] >= 0) ids[size++] = -1;
        continue;
      }
      const int32_t id = renumber[ids[i]];
      ids[size] = id;
      size += id >= 0;
      words += id >= 0;
    }
    chunk.size = size;
    chunk.words = words;
    chunk.words_before = total_words_;
    total_words_ += words;
    if (chunk.at >= 0) {
      id_file_->write(buffer.data(), size * 4, chunk.at);
    } else {
      chunk.ids.resize(size);
    }
    if (words > 0) kept.push_back(std::move(chunk));
  }
  chunks_.swap(kept);
}

const int32_t* Corpus::ids(const Chunk& chunk, std::vector<int32_t>& buffer) const {
  if (chunk.at < 0) return chunk.ids.data();
  buffer.resize(chunk.size);
  id_file_->read(buffer.data(), chunk.size * 4, chunk.at);
  return buffer.data();
}

}  // namespace seqkit::embedding
