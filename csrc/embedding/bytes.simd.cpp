// What each byte of a text is, once per machine level; see ByteClasses in corpus.h.
#include "common/device.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

struct Bits {
  uint64_t space, newline, high;
};

// Whitespace is the space and 9 to 13: tab, line feed, vertical tab, form feed, carriage return.
#if defined(__AVX512BW__)
inline Bits classify(const char* text) {
  const __m512i bytes = _mm512_loadu_si512(text);
  const __m512i shifted = _mm512_sub_epi8(bytes, _mm512_set1_epi8(9));
  const uint64_t control = _mm512_cmple_epu8_mask(shifted, _mm512_set1_epi8(4));
  return {control | _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(' ')),
          _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\n')), _mm512_movepi8_mask(bytes)};
}
#elif defined(__AVX2__)
inline Bits classify(const char* text) {
  Bits bits{};
  for (int part = 0; part < 2; ++part) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text + 32 * part));
    const __m256i shifted = _mm256_sub_epi8(bytes, _mm256_set1_epi8(9));
    const __m256i control = _mm256_cmpeq_epi8(_mm256_min_epu8(shifted, _mm256_set1_epi8(4)), shifted);
    const __m256i space = _mm256_or_si256(control, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(' ')));
    const __m256i newline = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\n'));
    bits.space |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(space))} << (32 * part);
    bits.newline |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(newline))} << (32 * part);
    bits.high |= uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(bytes))} << (32 * part);
  }
  return bits;
}
#else
inline Bits classify(const char* text) {
  Bits bits{};
  for (int i = 0; i < 64; ++i) {
    const unsigned char byte = static_cast<unsigned char>(text[i]);
    bits.space |= uint64_t{byte == ' ' || static_cast<unsigned char>(byte - 9) <= 4} << i;
    bits.newline |= uint64_t{byte == '\n'} << i;
    bits.high |= uint64_t{byte >= 0x80} << i;
  }
  return bits;
}
#endif

}  // namespace

namespace seqkit::embedding {

// Whole words of 64 bytes; the text is readable to the end of the last.
void SEQKIT_AT_LEVEL(classify_bytes)(const char* text, int64_t words, uint64_t* space, uint64_t* newline,
                                     uint64_t* high) {
  for (int64_t w = 0; w < words; ++w) {
    const Bits bits = classify(text + 64 * w);
    space[w] = bits.space;
    newline[w] = bits.newline;
    high[w] = bits.high;
  }
}

}  // namespace seqkit::embedding
