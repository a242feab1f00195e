// Losses that are fused with the activation before them.
#include <cmath>
#include <memory>

#include "norm/dispatch.hpp"
#include "python/checks.hpp"
#include "python/fastcall.hpp"
#include "python/operations.hpp"

namespace normkit::python {
namespace {

// Labels as they are kept: int64, one per row, each the number of a class.
py::array checked_labels(const Operation& op, const py::object& object, Index rows, Index classes) {
  const auto labels = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>::ensure(object);
  if (!labels)
    op.type_error("labels must be integers, got " + std::string(py::str(py::type::of(object).attr("__name__"))));
  if (labels.size() != rows)
    op.value_error("there must be a label for each of " + std::to_string(rows) + " rows, got " +
                   std::to_string(labels.size()));
  const std::int64_t* label = data<std::int64_t>(labels);
  for (Index i = 0; i < rows; ++i)
    if (label[i] < 0 || label[i] >= classes)
      op.value_error("labels must be in [0, " + std::to_string(classes) + "), got " + std::to_string(label[i]));
  return labels;
}

// logits: (..., classes); labels: as many as there are rows; weights: the same, in the dtype of the logits, or None.
// Returns the mean of the losses, its gradient with respect to the logits, and the softmax.
py::object softmax_cross_entropy(const py::object& logits_object, const py::object& labels_object,
                                 const py::object& weights_object) {
  const Operation op{"sparse_categorical_crossentropy"};
  const py::array logits = contiguous(checked_input(op, "logits", logits_object));
  const Shape shape = shape_of(logits);
  const Scalar scalar = scalar_of(logits);
  if (real_of(scalar) != scalar || shape.empty() || shape.back() == 0)
    op.value_error("logits must be float32 or float64 of shape (..., classes), got " +
                   std::string(py::str(logits.dtype())) + " of shape " + text_of(shape));
  const Index classes = shape.back(), rows = logits.size() / classes;
  const py::array labels = checked_labels(op, labels_object, rows, classes);
  py::array weights = no_array();
  if (!weights_object.is_none()) weights = contiguous(checked_like(op, "weights", weights_object, scalar, Shape{rows}));
  Destination gradient = new_result(scalar, shape), probabilities = new_result(scalar, shape);
  const std::unique_ptr<double[]> totals(new double[2 * static_cast<std::size_t>(rows)]);
  double* const shifted = totals.get() + rows;
  double sum = 0.0;
  const auto run = [&](auto type, auto kernel) {
    using T = decltype(type);
    const SoftmaxCrossEntropy<T> args{data<T>(logits),
                                      data<std::int64_t>(labels),
                                      optional_data<T>(weights),
                                      writable<T>(gradient.array),
                                      writable<T>(probabilities.array),
                                      totals.get(),
                                      shifted,
                                      rows,
                                      classes,
                                      1.0 / static_cast<double>(rows)};
    without_gil(logits.nbytes(), [&] {
      kernel(args);
      for (Index i = 0; i < rows; ++i) {
        const double loss = std::log(totals[static_cast<std::size_t>(i)]) - shifted[i];
        sum += args.weights == nullptr ? loss : loss * static_cast<double>(args.weights[i]);
      }
    });
  };
  if (scalar == Scalar::f32)
    run(float{}, active_kernels().losses.softmax_cross_entropy_f32);
  else
    run(double{}, active_kernels().losses.softmax_cross_entropy_f64);
  return py::make_tuple(sum / static_cast<double>(rows), gradient.array, probabilities.array);
}

}  // namespace

void register_losses(py::module_& module) { define<softmax_cross_entropy>(module, "softmax_cross_entropy"); }

}  // namespace normkit::python
