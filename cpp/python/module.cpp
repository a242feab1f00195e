// The compiled module normkit._core. Every argument is positional; normkit/ops has names, defaults and docstrings.
#include "python/memory.hpp"
#include "python/operations.hpp"

namespace {

// NumPy does not support several interpreters in a process, and neither does this module.
bool is_main_interpreter() { return PyInterpreterState_Get() == PyInterpreterState_Main(); }
constexpr const char* only_main =
    "normkit works in the main interpreter only, since NumPy does not support sub-interpreters; "
    "import it there, or use processes";

}  // namespace

PYBIND11_MODULE(_core_of_main, module, pybind11::mod_gil_not_used()) {
  if (!is_main_interpreter()) throw pybind11::import_error(only_main);
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

// What Python calls. It comes before pybind11, whose preparations wait for ever in a sub-interpreter of Python 3.11,
// and before NumPy, which can be loaded once in a process: a refused import leaves nothing behind. Python 3.13 and
// later call it in the main interpreter, and the rest in the one that imports, hence both checks.
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
  if (is_main_interpreter()) return PyInit__core_of_main();
  PyErr_SetString(PyExc_ImportError, only_main);
  return nullptr;
}
