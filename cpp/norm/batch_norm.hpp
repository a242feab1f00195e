// The two plans of batch norm; batch_norm.cpp chooses by the shape alone.
#pragma once

#include "norm/norm.hpp"

namespace normkit {

template <class T>
void forward_by_runs(const BatchNormForward<T>& args, int threads);
template <class T>
void inference_by_planes(const BatchNormForward<T>& args, int threads);
template <class T>
void backward_by_runs(const BatchNormBackward<T>& args, bool training, int threads);

template <class T>
void forward_by_columns(const BatchNormForward<T>& args, bool training, int threads);
template <class T>
void backward_by_columns(const BatchNormBackward<T>& args, bool training, int threads);

}  // namespace normkit
