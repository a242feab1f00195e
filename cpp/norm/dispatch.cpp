#include "norm/dispatch.hpp"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "isas.hpp"
#include "norm/environment.hpp"

namespace normkit {

#define NORMKIT_DECLARE(isa) extern const KernelSet kernels_##isa;
NORMKIT_FOR_EACH_ISA(NORMKIT_DECLARE)
#undef NORMKIT_DECLARE

namespace {

// __builtin_cpu_supports also asks whether the operating system saves the registers.
bool supported(const std::string& isa) {
#if defined(__x86_64__)
#if defined(__clang__)
  if (isa == "avx2")
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (isa == "avx512")
    return supported("avx2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
#else
  if (isa == "avx2") return __builtin_cpu_supports("x86-64-v3");
  if (isa == "avx512") return __builtin_cpu_supports("x86-64-v4");
#endif
  // The same instructions, with doubles in whole registers: where both widths alternate, Granite Rapids takes up to 1.4
  // times as long. On Zen 4 it is whole registers that are slower, in sums of products by a third.
  if (isa == "avx512_wide") return supported("avx512") && __builtin_cpu_is("intel");
#endif
  return isa == "baseline" || isa == "neon";
}

std::vector<const KernelSet*> built() {
  std::vector<const KernelSet*> sets;
#define NORMKIT_ADD(isa) sets.push_back(&kernels_##isa);
  NORMKIT_FOR_EACH_ISA(NORMKIT_ADD)
#undef NORMKIT_ADD
  return sets;
}

const KernelSet& find(const std::string& name, const std::string& asked_by) {
  std::string there_is;
  for (const KernelSet* set : built()) {
    if (!supported(set->isa)) continue;
    if (set->isa == name) return *set;
    there_is += (there_is.empty() ? "" : ", ") + std::string(set->isa);
  }
  throw std::invalid_argument(asked_by + ": " + quoted(name.c_str()) +
                              " is not available on this machine; available: " + there_is);
}

std::atomic<const KernelSet*> active{nullptr};
thread_local const KernelSet* of_this_thread = nullptr;

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const KernelSet* set : built())
    if (supported(set->isa)) names.emplace_back(set->isa);
  return names;
}

const KernelSet& active_kernels() {
  if (of_this_thread != nullptr) return *of_this_thread;
  const KernelSet* set = active.load(std::memory_order_acquire);
  if (set == nullptr) {
    const char* name = std::getenv("NORMKIT_ISA");
    const std::string best = available_isas().front();
    set = name != nullptr && *name != '\0' ? &find(name, "NORMKIT_ISA") : &find(best, "isa");
    active.store(set, std::memory_order_release);
  }
  return *set;
}

SameKernels::SameKernels(const KernelSet& kernels) : before_(of_this_thread) { of_this_thread = &kernels; }
SameKernels::~SameKernels() { of_this_thread = before_; }

void use_isa(const std::string& name) { active.store(&find(name, "isa.use"), std::memory_order_release); }

}  // namespace normkit
