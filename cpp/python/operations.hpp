// Each adds its functions to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace normkit::python {

void register_layer_norm(pybind11::module_& module);
void register_batch_norm(pybind11::module_& module);
void register_group_norm(pybind11::module_& module);
void register_losses(pybind11::module_& module);
void register_optimizers(pybind11::module_& module);
void register_configuration(pybind11::module_& module);

}  // namespace normkit::python
