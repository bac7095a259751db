// What every bind.cpp needs, and nothing else includes: the error sentence "where: argument must rule, got value", and
// which device a call runs on, and a tensor's numbers.
//
// The tests build the same files with -DSEQKIT_EMULATE: the operators are then called seqkit_emulated::*, are
// registered for CPU tensors, and run cuda.cu on the host executor.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>

#include "common/device.h"

// SEQKIT_LIBRARY(library) { library.def(...); } declares operators, SEQKIT_LIBRARY_IMPL(CPU, library) or (CUDA,
// library) { library.impl(...); } says what runs them.
#ifdef SEQKIT_EMULATE
#define SEQKIT_LIBRARY(library) STABLE_TORCH_LIBRARY_FRAGMENT(SEQKIT_EMULATE, library)
#define SEQKIT_LIBRARY_IMPL_CPU(library) \
  [[maybe_unused]] static void unregistered([[maybe_unused]] torch::stable::detail::StableLibrary& library)
#define SEQKIT_LIBRARY_IMPL_CUDA(library) STABLE_TORCH_LIBRARY_IMPL(SEQKIT_EMULATE, CPU, library)
#else
#define SEQKIT_LIBRARY(library) STABLE_TORCH_LIBRARY_FRAGMENT(seqkit, library)
#define SEQKIT_LIBRARY_IMPL_CPU(library) STABLE_TORCH_LIBRARY_IMPL(seqkit, CPU, library)
#define SEQKIT_LIBRARY_IMPL_CUDA(library) STABLE_TORCH_LIBRARY_IMPL(seqkit, CUDA, library)
#endif
#define SEQKIT_LIBRARY_IMPL(device, library) SEQKIT_LIBRARY_IMPL_##device(library)

namespace seqkit {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using MaybeTensor = std::optional<Tensor>;

template <typename Number>
const Number* data(const Tensor& tensor) {
  return static_cast<const Number*>(tensor.const_data_ptr());
}

// Null where there is no tensor.
template <typename Number>
const Number* data(const MaybeTensor& tensor) {
  return tensor ? data<Number>(*tensor) : nullptr;
}

// Null where there is nothing to write.
template <typename Number>
Number* mutable_data(Tensor& tensor) {
  return tensor.numel() ? static_cast<Number*>(tensor.mutable_data_ptr()) : nullptr;
}

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

// Whether cuda.cu runs a call with this tensor; in the emulated build, always.
inline bool on_gpu([[maybe_unused]] const Tensor& tensor) {
#ifdef SEQKIT_EMULATE
  return true;
#else
  return tensor.is_cuda();
#endif
}

inline void check_device(const char* where, const char* name, const Tensor& tensor, const Tensor& same_as) {
  STD_TORCH_CHECK(tensor.is_cpu() == same_as.is_cpu() && tensor.get_device_index() == same_as.get_device_index(), where,
                  ": ", name, " must be on the device of the other tensors, got another device");
}

// torch's stream on the tensor's device, for the launches of this call. The function is in libtorch_cuda.so, which a
// CPU torch lacks: a direct reference would keep the library from loading there.
inline void* current_stream([[maybe_unused]] const Tensor& tensor) {
  void* stream = nullptr;
#ifndef SEQKIT_EMULATE
  using Lookup = AOTITorchError (*)(int32_t, void**);
  static const Lookup look_up = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library ? reinterpret_cast<Lookup>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  STD_TORCH_CHECK(look_up, "seqkit: torch must be built with CUDA for a CUDA tensor, got one without");
  TORCH_ERROR_CODE_CHECK(look_up(tensor.get_device_index(), &stream));
#endif
  return stream;
}

// Runs `launch(stream) -> const char*`, which is null or an error text, on the tensor's device and stream.
template <typename Launch>
void run_on_gpu(const char* where, const Tensor& tensor, const Launch& launch) {
#ifdef SEQKIT_EMULATE
  const char* error = launch(current_stream(tensor));
#else
  const torch::stable::accelerator::DeviceGuard guard(tensor.get_device_index());
  const char* error = launch(current_stream(tensor));
#endif
  STD_TORCH_CHECK(!error, where, ": the CUDA kernel must start, got ", error);
}

// The kind of number of a tensor that a CUDA kernel takes.
inline Element element_of(const char* where, const char* name, const Tensor& tensor) {
  const ScalarType dtype = tensor.scalar_type();
  STD_TORCH_CHECK(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16, where, ": ",
                  name, " must have the dtype Float, Half or BFloat16, got ", torch::headeronly::toString(dtype));
  return dtype == ScalarType::Float ? Element::kFloat : dtype == ScalarType::Half ? Element::kHalf : Element::kBfloat16;
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

// One int64 length a sentence, each from 0 to `longest`, on the device of another tensor. Reading a GPU's would wait
// for it: the kernels there cut what is outside.
inline void check_lengths(const char* where, const char* name, const Tensor& lengths, int64_t sentences,
                          int64_t longest, const Tensor& same_as) {
  check_device(where, name, lengths, same_as);
  check_dtype(where, name, lengths, ScalarType::Long);
  check_shape(where, name, lengths, {sentences});
  check_contiguous(where, name, lengths);
  if (on_gpu(lengths)) return;
  const int64_t* values = static_cast<const int64_t*>(lengths.const_data_ptr());
  for (int64_t sentence = 0; sentence < sentences; ++sentence) {
    STD_TORCH_CHECK(values[sentence] >= 0 && values[sentence] <= longest, where, ": ", name, " must be from 0 to ",
                    longest, ", got ", values[sentence]);
  }
}

}  // namespace seqkit
