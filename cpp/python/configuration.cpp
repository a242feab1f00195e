// Instruction sets, threads and what this build is.
#include <pybind11/stl.h>

#include "norm/dispatch.hpp"
#include "norm/float_environment.hpp"
#include "norm/machine.hpp"
#include "norm/pool.hpp"
#include "norm/threads.hpp"
#include "python/checks.hpp"
#include "python/operations.hpp"

namespace normkit::python {
namespace {

py::dict build_config() {
  py::dict config;
#if defined(__clang__)
  config["compiler"] = "clang " __clang_version__;
#else
  config["compiler"] = "gcc " __VERSION__;
#endif
  config["pybind11"] = PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_MINOR);
  config["threads"] = thread_backend();
  config["usable_cores"] = usable_cores();
  config["cache_bytes"] = py::make_tuple(caches().second_level, caches().last_level);
  config["pool_limit_bytes"] = pool::usage().limit;
  return config;
}

// Throws what is wrong with the numbers in environment variables.
void check_environment() {
  pool::usage();
  num_threads();
}

void set_threads(const py::object& threads) { set_num_threads(checked_threads(Operation{"set_num_threads"}, threads)); }

}  // namespace

void register_configuration(py::module_& module) {
  module.def("isa_available", available_isas);
  module.def("isa_active", [] { return std::string(active_kernels().isa); });
  module.def("isa_use", use_isa);
  module.def("check_environment", check_environment);
  module.def("enter_default_float_mode", [] {
    const FloatMode mode = float_mode();
    set_float_mode(default_float_mode);
    return mode;
  });
  module.def("set_float_mode", set_float_mode);
  module.def("set_num_threads", set_threads);
  module.def("get_num_threads", num_threads);
  module.def("build_config", build_config);
  module.def("empty_cache", [] { pool::empty(); });
  module.def("pool_usage", [] {
    const pool::Usage usage = pool::usage();
    return py::make_tuple(usage.in_use, usage.waiting, usage.limit);
  });
}

}  // namespace normkit::python
