// Limits that Linux's control groups (version 2) set to this process.
#pragma once

#include <fstream>
#include <string>

namespace normkit {

// visit(std::ifstream&) for the file of that name in the process's group and in every group above it, those that can be
// opened; each of them limits the process.
template <class F>
void each_control_group_file(const std::string& name, F&& visit) {
  std::ifstream groups("/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (line.rfind("0::", 0) != 0) continue;
    for (std::string path = line.substr(3);; path.erase(path.rfind('/'))) {
      std::ifstream file("/sys/fs/cgroup" + (path == "/" ? "" : path) + "/" + name);
      if (file) visit(file);
      if (path.empty() || path.rfind('/') == std::string::npos) break;
    }
  }
}

}  // namespace normkit
