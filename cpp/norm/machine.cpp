#include "norm/machine.hpp"

#include <algorithm>
#include <thread>

#if defined(__linux__)
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <string>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace normkit {
namespace {

#if defined(__linux__)
// The caches of the first processor, as the kernel lists them: level, type, and a size such as "1024K".
Caches read_caches() {
  Caches found{0, 0};
  for (int index = 0; index < 8; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    std::ifstream level_file(folder + "level"), type_file(folder + "type"), size_file(folder + "size");
    int level = 0;
    std::string type, size;
    if (!(level_file >> level && type_file >> type && size_file >> size)) break;
    if (type == "Instruction" || level < 2) continue;
    const Index unit = size.back() == 'M' ? 1 << 20 : size.back() == 'K' ? 1 << 10 : 1;
    const Index bytes = std::strtoll(size.c_str(), nullptr, 10) * unit;
    if (level == 2) found.second_level = bytes;
    found.last_level = std::max(found.last_level, bytes);
  }
  return found;
}
#elif defined(__APPLE__)
Caches read_caches() {
  const auto value = [](const char* name) {
    std::int64_t bytes = 0;
    std::size_t size = sizeof bytes;
    return sysctlbyname(name, &bytes, &size, nullptr, 0) == 0 ? static_cast<Index>(bytes) : 0;
  };
  return {value("hw.perflevel0.l2cachesize"), std::max(value("hw.l3cachesize"), value("hw.perflevel0.l2cachesize"))};
}
#else
Caches read_caches() { return {0, 0}; }
#endif

// Read while the library is loaded: a child forked during a first use would wait for ever for its end.
const Caches sizes = [] {
  Caches found = read_caches();
  if (found.second_level <= 0) found.second_level = 1 << 20;
  if (found.last_level <= 0) found.last_level = 16 << 20;
  // A virtual machine with some cores of a processor is told the whole of a cache that it shares with many others; few
  // processors have more than this for each core.
  constexpr Index most_of_a_core = 32 << 20;
  found.last_level = std::min(found.last_level, most_of_a_core * std::max(1u, std::thread::hardware_concurrency()));
  return found;
}();

}  // namespace

const Caches& caches() { return sizes; }

Reach reach_of(Index bytes, Index read_again, int threads) {
  if (bytes <= threads * caches().second_level) return Reach::near;
  return bytes + read_again < caches().last_level ? Reach::far : Reach::past;
}

}  // namespace normkit
