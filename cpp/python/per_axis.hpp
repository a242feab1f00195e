// A value for each axis of an array: a vector without the heap, which would take a tenth of a small call.
#pragma once

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <stdexcept>

namespace normkit::python {

template <class T>
class PerAxis {
 public:
  static constexpr std::size_t most = 64;  // NumPy's limit of axes

  PerAxis() {}  // NOLINT: values_ stays uninitialized
  PerAxis(std::initializer_list<T> values) : PerAxis(values.begin(), values.end()) {}
  template <class Iterator>
  PerAxis(Iterator first, Iterator last) {
    append(first, last);
  }
  PerAxis(const PerAxis& other) : PerAxis(other.begin(), other.end()) {}
  PerAxis& operator=(const PerAxis& other) {
    std::copy(other.begin(), other.end(), values_);
    size_ = other.size_;
    return *this;
  }

  void push_back(T value) {
    if (size_ == most) throw std::length_error("more values than axes");
    values_[size_++] = value;
  }
  template <class Iterator>
  void append(Iterator first, Iterator last) {
    for (; first != last; ++first) push_back(*first);
  }
  void resize(std::size_t size) {
    if (size > most) throw std::length_error("more values than axes");
    std::fill(values_ + std::min(size_, size), values_ + size, T{});
    size_ = size;
  }
  // Moves the value to the place behind that of `other`; both are there.
  void move_behind(T value, T other) {
    T* const from = std::find(begin(), end(), value);
    T* const to = std::find(begin(), end(), other);
    if (from < to)
      std::rotate(from, from + 1, to + 1);
    else
      std::rotate(to + 1, from, from + 1);
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* begin() { return values_; }
  T* end() { return values_ + size_; }
  const T* begin() const { return values_; }
  const T* end() const { return values_ + size_; }
  auto rbegin() const { return std::make_reverse_iterator(end()); }
  auto rend() const { return std::make_reverse_iterator(begin()); }
  const T* data() const { return values_; }
  T& operator[](std::size_t i) { return values_[i]; }
  const T& operator[](std::size_t i) const { return values_[i]; }
  T back() const { return values_[size_ - 1]; }
  bool operator==(const PerAxis& other) const { return std::equal(begin(), end(), other.begin(), other.end()); }
  bool operator!=(const PerAxis& other) const { return !(*this == other); }

 private:
  std::size_t size_ = 0;
  T values_[most];
};

}  // namespace normkit::python
