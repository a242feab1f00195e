// Which plan a batch norm takes, and the arrays that have no element.
#include "norm/batch_norm.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/coefficients.hpp"
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

}  // namespace

template <class T>
void batch_norm_training(const BatchNormForward<T>& args, int threads) {
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
  BatchNormBackward<T> args = given;
  const Scratch<double> samples(args.shape.channels);
  if (args.where.at && training) {
    count_channels(args.shape, args.where, samples.data(), threads);
    args.samples = samples.data();
  }
  if (args.shape.size() == 0) {
    std::fill(args.dweight, args.dweight + args.shape.channels, Real<T>(0));
    std::fill(args.dbias, args.dbias + args.shape.channels, Real<T>(0));
  } else if (goes_by_runs(args.shape)) {
    backward_by_runs(with_stores(args, 2, false, threads), training, threads);
  } else {
    backward_by_columns(with_stores(args, 2, training, threads), training, threads);
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
