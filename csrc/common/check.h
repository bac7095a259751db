// The error sentence of every operator, for use in bind.cpp only: "where: argument must rule, got value".
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <string>

namespace seqkit {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_text(const Tensor& tensor) {
  std::string text = "[";
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) {
    text += (axis ? ", " : "") + std::to_string(tensor.size(axis));
  }
  return text + "]";
}

// Any integers but `kAny` must match.
constexpr int64_t kAny = -1;

inline void check_shape(const char* where, const char* name, const Tensor& tensor,
                        std::initializer_list<int64_t> shape) {
  bool same = tensor.dim() == static_cast<int64_t>(shape.size());
  std::string wanted = "[";
  int64_t axis = 0;
  for (int64_t size : shape) {
    same = same && (size == kAny || tensor.size(axis) == size);
    wanted += (axis ? ", " : "") + (size == kAny ? std::string("any") : std::to_string(size));
    ++axis;
  }
  STD_TORCH_CHECK(same, where, ": ", name, " must have the shape ", wanted, "], got ", shape_text(tensor));
}

inline void check_dtype(const char* where, const char* name, const Tensor& tensor, ScalarType dtype) {
  STD_TORCH_CHECK(tensor.scalar_type() == dtype, where, ": ", name, " must have the dtype ",
                  torch::headeronly::toString(dtype), ", got ", torch::headeronly::toString(tensor.scalar_type()));
}

inline void check_cpu(const char* where, const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.is_cpu(), where, ": ", name, " must be on the CPU, got another device");
}

inline void check_contiguous(const char* where, const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.is_contiguous(), where, ": ", name, " must be contiguous, got other strides");
}

// What most kernels ask of a tensor: contiguous float32 on the CPU.
inline void check_floats(const char* where, const char* name, const Tensor& tensor,
                         std::initializer_list<int64_t> shape) {
  check_cpu(where, name, tensor);
  check_dtype(where, name, tensor, ScalarType::Float);
  check_shape(where, name, tensor, shape);
  check_contiguous(where, name, tensor);
}

// One int64 length a sentence, each from 0 to `longest`.
inline void check_lengths(const char* where, const char* name, const Tensor& lengths, int64_t sentences,
                          int64_t longest) {
  check_cpu(where, name, lengths);
  check_dtype(where, name, lengths, ScalarType::Long);
  check_shape(where, name, lengths, {sentences});
  check_contiguous(where, name, lengths);
  const int64_t* values = static_cast<const int64_t*>(lengths.const_data_ptr());
  for (int64_t sentence = 0; sentence < sentences; ++sentence) {
    STD_TORCH_CHECK(values[sentence] >= 0 && values[sentence] <= longest, where, ": ", name, " must be from 0 to ",
                    longest, ", got ", values[sentence]);
  }
}

}  // namespace seqkit
