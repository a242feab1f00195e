// The compiled module normkit._core. Every argument is positional; normkit/ops has names, defaults and docstrings.
#include "python/memory.hpp"
#include "python/operations.hpp"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
  module.doc() = "Compiled kernels of normkit.";
  module.attr("__version__") = NORMKIT_VERSION;
  normkit::python::register_memory();
  normkit::python::register_layer_norm(module);
  normkit::python::register_batch_norm(module);
  normkit::python::register_group_norm(module);
  normkit::python::register_losses(module);
  normkit::python::register_optimizers(module);
  normkit::python::register_configuration(module);
}
