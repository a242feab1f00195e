// Which kernels run: the best instruction set that this CPU supports, NORMKIT_ISA's, or the one that use_isa() named.
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "kernels/table.hpp"

namespace normkit {

// Best first.
std::vector<std::string> available_isas();
const KernelSet& active_kernels();
// Throws std::invalid_argument, listing what there is, for a name that is unknown or that this CPU does not support.
void use_isa(const std::string& name);

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
