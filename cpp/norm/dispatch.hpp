// Which kernels run: the best instruction set that this CPU supports, NORMKIT_ISA's, or the one that use_isa() named.
// An operation keeps the ones that it began with, on every thread of its team.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "kernels/table.hpp"

namespace normkit {

// Best first.
std::vector<std::string> available_isas();
// Of the operation that this thread is at work on, else those of the next one. Throws std::invalid_argument if
// NORMKIT_ISA names none that this CPU supports.
const KernelSet& active_kernels();
// Throws std::invalid_argument, listing what there is, for a name that is unknown or that this CPU does not support.
void use_isa(const std::string& name);

// While it lives, active_kernels() of this thread stay the same, whatever use_isa() does elsewhere. Every operation
// begins with one, and `parallel` gives each member of the team another.
class SameKernels {
 public:
  explicit SameKernels(const KernelSet& kernels = active_kernels());
  ~SameKernels();
  SameKernels(const SameKernels&) = delete;
  SameKernels& operator=(const SameKernels&) = delete;

 private:
  const KernelSet* before_;
};

template <class T>
const Kernels<T>& kernels() {
  if constexpr (std::is_same_v<T, float>)
    return active_kernels().f32;
  else if constexpr (std::is_same_v<T, double>)
    return active_kernels().f64;
  else if constexpr (std::is_same_v<T, BFloat16>)
    return active_kernels().bf16;
  else
    return active_kernels().f16;
}

}  // namespace normkit
