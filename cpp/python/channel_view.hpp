// How the operations with a channel axis see an array, and what they keep of it for their gradients.
#pragma once

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "norm/norm.hpp"
#include "python/checks.hpp"

namespace normkit::python {

// x as (outer, channels, inner): every axis but the channel axis is reduced, so their order in memory does not matter;
// but where every image of the batch has statistics of its own, axis 0 has to be the slowest.
class ChannelView {
 public:
  ChannelView(const py::array& x, int axis, bool batch_first = false) : array_(x), axis_(axis) {
    Axes order;
    const auto batch_is_first = [&] {
      const auto first = std::find_if(order.begin(), order.end(), [&](int i) { return x.shape(i) != 1; });
      return first == order.end() || *first == 0 || x.shape(0) == 1;
    };
    if (!is_dense(x, order) || (batch_first && !batch_is_first())) {
      array_ = contiguous(x);
      is_dense(array_, order);
    }
    // A single channel lies anywhere. Where every image has statistics of its own, it begins each image.
    if (batch_first && x.shape(axis) == 1) order.move_behind(axis, 0);
    shape_ = {1, x.shape(axis), 1};
    bool before = true;
    for (const int i : order) {
      if (i == axis)
        before = false;
      else
        (before ? shape_.outer : shape_.inner) *= x.shape(i);
      if (i != axis) (before ? outer_ : inner_).push_back(i);
    }
  }

  const py::array& array() const { return array_; }
  const ChannelShape& shape() const { return shape_; }
  Shape channels() const { return {static_cast<py::ssize_t>(shape_.channels)}; }

  // Another array of x's shape in the same layout; a copy where its own is another.
  py::array matched(const py::array& other) const {
    return same_layout(other, array_) ? other : copy_in_layout(other, array_);
  }
  // mask: of x's shape, or none.
  Mask mask(const py::array& mask) const {
    return mask && array_.size() > 0 ? grouped(mask, outer_, {axis_}, inner_) : Mask{};
  }
  Destination result(const py::object& out, std::initializer_list<const py::array*> inputs) const {
    if (!out.is_none()) {
      const auto array = py::reinterpret_borrow<py::array>(out);
      const bool aligned = is_aligned(array);
      if (aligned && same_layout(array, array_)) return {array, is_none_of(array, inputs)};
    }
    return new_result_like(array_);
  }
  static py::object finish(const py::object& out, const py::array& result) {
    if (out.is_none()) return result;
    if (py::reinterpret_borrow<py::array>(out).data() != result.data())
      copy_to(py::reinterpret_borrow<py::array>(out), result);
    return out;
  }

  // Which order of which axes the bits of an array are in.
  std::uint64_t signature() const {
    std::uint64_t hash = 14695981039346656037u;  // FNV-1a
    const auto add = [&](py::ssize_t value) { hash = (hash ^ static_cast<std::uint64_t>(value)) * 1099511628211u; };
    for (py::ssize_t i = 0; i < array_.ndim(); ++i) {
      add(array_.shape(i));
      add(array_.shape(i) > 1 ? array_.strides(i) / array_.itemsize() : 0);
    }
    return hash;
  }

 private:
  py::array array_;
  ChannelShape shape_;
  int axis_;
  Axes outer_, inner_;
};

// A bit for every element of x, in its order in memory, and behind them which order that is. The array is made where
// relu is to be differentiated.
class KeptBits {
 public:
  KeptBits(const ChannelView& view, bool wanted) : view_(view) {
    if (!wanted) return;
    array_ = bytes(whole_bytes() + signature_bytes + readable);
    auto* to = static_cast<std::uint8_t*>(array_.mutable_data());
    std::memset(to, 0, static_cast<std::size_t>(whole_bytes() + readable));
    const std::uint64_t signature = view.signature();
    std::memcpy(to + whole_bytes() + readable, &signature, signature_bytes);
  }
  // Those of the forward pass, or None.
  KeptBits(const Operation& op, const ChannelView& view, const py::object& given) : view_(view) {
    if (given.is_none()) return;
    const auto array = py::array_t<std::uint8_t, py::array::c_style>::ensure(given);
    if (!array) op.type_error("moments.active must be the bits that the forward pass returned, an array of uint8");
    const std::uint64_t signature = view.signature();
    if (array.size() != whole_bytes() + signature_bytes + readable ||
        std::memcmp(array.data() + whole_bytes() + readable, &signature, signature_bytes) != 0)
      op.value_error(
          "moments.active was made for an array of another shape, or of another order in memory; pass the x of "
          "the forward pass");
    array_ = array;
  }
  py::object object() const { return array_ ? py::object(array_) : py::none(); }
  ActiveBits bits() const {
    return {array_ ? static_cast<std::uint8_t*>(const_cast<void*>(array_.data())) : nullptr, 0};
  }

 private:
  static constexpr Index signature_bytes = 8, readable = 4;
  Index whole_bytes() const { return (view_.array().size() + 7) / 8; }
  const ChannelView& view_;
  py::array array_ = no_array();
};

// None or "relu". known: the names that the operation takes, for the message.
inline Activation checked_relu(const Operation& op, const py::object& name, const char* known = "'relu'") {
  if (name.is_none()) return Activation::none;
  if (py::isinstance<py::str>(name) && name.cast<std::string>() == "relu") return Activation::relu;
  op.value_error("activation must be " + std::string(known) + " or None, got " + std::string(py::repr(name)) +
                 "; layer_norm and rms_norm have others");
}

}  // namespace normkit::python
