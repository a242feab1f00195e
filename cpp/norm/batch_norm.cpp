// Which plan a batch norm takes, and the arrays that have no element.
#include "norm/batch_norm.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/coefficients.hpp"
#include "norm/channels.hpp"
#include "norm/dispatch.hpp"
#include "norm/machine.hpp"
#include "norm/scratch.hpp"
#include "norm/threads.hpp"

namespace normkit {
namespace {

// Runs shorter than this would leave most lanes of a vector idle, so they are taken as columns.
constexpr Index shortest_run = 32;

bool goes_by_runs(const ChannelShape& shape) { return shape.inner >= shortest_run; }

// The arguments with the plan's choice of stores, the operation reading `arrays` arrays; twice: as columns, once for
// the statistics of all channels and once more.
template <class Arguments>
Arguments with_stores(Arguments args, Index arrays, bool twice, int threads) {
  const Index bytes = args.shape.size() * static_cast<Index>(sizeof(*args.x));
  args.reach = std::min(args.reach, reach_of((arrays + 1) * bytes, twice ? arrays * bytes : 0, threads));
  return args;
}

// How many elements of each channel count.
void count_channels(const ChannelShape& shape, Where where, double* samples, int threads) {
  const MaskKernels& kernel = active_kernels().masks;
  const Index width = shape.channels * shape.inner;
  const Runs runs{shape.outer, width, shape.inner};
  if (where.channel == 0) {
    std::fill(samples, samples + shape.channels, static_cast<double>(kernel.count(runs, where)));
    return;
  }
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(shape.channels);
    const Where first = from(where, 0, mine.begin, 0);
    if (shape.inner == 1)
      kernel.count_columns({shape.outer, width, mine.end - mine.begin}, {first.at, where.outer, 0, where.channel},
                           samples + mine.begin);
    else
      for (Index c = mine.begin; c < mine.end; ++c)
        samples[c] = static_cast<double>(kernel.count(runs, from(where, 0, c, 0)));
  });
}

template <class T>
void backward_by_plan(const BatchNormBackward<T>& args, bool training, int threads) {
  if (goes_by_runs(args.shape))
    backward_by_runs(with_stores(args, 2, false, threads), training, threads);
  else
    backward_by_columns(with_stores(args, 2, training, threads), training, threads);
}

// The gradients from y. With z = |weight|·x̂' + bias, x̂' being x̂ or −x̂, they are those of a batch norm of z whose mean
// is bias, whose rstd is 1/|weight| and whose weight is such that the product of the two is weight·rstd.
template <class T>
void backward_from_output(const BatchNormBackward<T>& given, bool training, int threads) {
  BatchNormBackward<T> args = given;
  const Index channels = args.shape.channels;
  const Scratch<double> mean(channels), rstd(channels);
  const Scratch<Real<T>> weight(channels);
  for (Index c = 0; c < channels; ++c) {
    const double own = weight_of(args.weight, c), size = std::fabs(own);
    mean[c] = args.bias ? static_cast<double>(args.bias[c]) : 0.0;
    rstd[c] = 1.0 / size;
    weight[c] = static_cast<Real<T>>(own * args.rstd[c] * size);
  }
  args.mean = mean.data();
  args.rstd = rstd.data();
  args.weight = weight.data();
  backward_by_plan(args, training, threads);
  for (Index c = 0; c < channels; ++c) {
    if (weight_of(given.weight, c) < 0.0) args.dweight[c] = -args.dweight[c];
    if (given.rstd[c] == 0.0) args.dweight[c] = 0;  // no element counts: x̂ is 0, whatever rounding made of y
  }
}

}  // namespace

template <class T>
void batch_norm_training(const BatchNormForward<T>& args, int threads) {
  const SameKernels throughout;
  if (args.shape.size() == 0) {
    std::fill(args.mean, args.mean + args.shape.channels, 0.0);
    std::fill(args.var, args.var + args.shape.channels, 0.0);
    std::fill(args.rstd, args.rstd + args.shape.channels, 1.0 / std::sqrt(args.eps));
  } else if (goes_by_runs(args.shape)) {
    forward_by_runs(with_stores(args, 1, false, threads), threads);
  } else {
    forward_by_columns(with_stores(args, 1, true, threads), true, threads);
  }
}

template <class T>
void batch_norm_inference(const BatchNormForward<T>& args, int threads) {
  const SameKernels throughout;
  if (args.shape.size() == 0) {
    for (Index c = 0; c < args.shape.channels; ++c) args.rstd[c] = 1.0 / std::sqrt(args.var[c] + args.eps);
  } else if (goes_by_runs(args.shape)) {
    inference_by_planes(with_stores(args, 1, false, threads), threads);
  } else {
    forward_by_columns(with_stores(args, 1, false, threads), false, threads);
  }
}

template <class T>
void batch_norm_backward(const BatchNormBackward<T>& given, bool training, int threads) {
  const SameKernels throughout;
  BatchNormBackward<T> args = given;
  const Scratch<double> samples(args.shape.channels);
  if (args.where.at && training) {
    count_channels(args.shape, args.where, samples.data(), threads);
    args.samples = samples.data();
  }
  if (args.shape.size() == 0) {
    std::fill(args.dweight, args.dweight + args.shape.channels, Real<T>(0));
    std::fill(args.dbias, args.dbias + args.shape.channels, Real<T>(0));
  } else if (args.from_output) {
    backward_from_output(args, training, threads);
  } else {
    backward_by_plan(args, training, threads);
  }
}

template void batch_norm_training(const BatchNormForward<float>&, int);
template void batch_norm_training(const BatchNormForward<double>&, int);
template void batch_norm_training(const BatchNormForward<BFloat16>&, int);
template void batch_norm_training(const BatchNormForward<Float16>&, int);
template void batch_norm_inference(const BatchNormForward<float>&, int);
template void batch_norm_inference(const BatchNormForward<double>&, int);
template void batch_norm_inference(const BatchNormForward<BFloat16>&, int);
template void batch_norm_inference(const BatchNormForward<Float16>&, int);
template void batch_norm_backward(const BatchNormBackward<float>&, bool, int);
template void batch_norm_backward(const BatchNormBackward<double>&, bool, int);
template void batch_norm_backward(const BatchNormBackward<BFloat16>&, bool, int);
template void batch_norm_backward(const BatchNormBackward<Float16>&, bool, int);

}  // namespace normkit
