// Which plan a group norm takes, and the one for channels of few elements that lie side by side, as those of (N, C):
// rows of layer norm, each group with its own weight and bias, given for every element.
#include "norm/group_norm.hpp"

#include <algorithm>
#include <cmath>

#include "norm/dispatch.hpp"
#include "norm/machine.hpp"
#include "norm/rows.hpp"

namespace normkit {
namespace {

// Runs shorter than this would leave most lanes of a vector idle.
constexpr Index shortest_run = 32;

// A value for every element of an image from one for every channel; null stays null.
template <class R>
class Spread {
 public:
  Spread(const GroupShape& shape, const R* values)
      : given_(values != nullptr), elements_(given_ ? shape.channels * shape.inner : 0) {
    if (given_)
      for (Index c = 0; c < shape.channels; ++c)
        std::fill_n(elements_.data() + c * shape.inner, shape.inner, values[c]);
  }
  const R* from(Index element) const { return given_ ? elements_.data() + element : nullptr; }

 private:
  bool given_;
  Scratch<R> elements_;
};

template <class T>
void forward_by_rows(const GroupNormForward<T>& args, int threads) {
  const GroupShape& shape = args.shape;
  const Index cols = shape.group_size();
  const Spread<Real<T>> weight(shape, args.weight), bias(shape, args.bias);
  const DenseMask mask(shape, args.where);
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(shape.batch * shape.groups);
    for (Index row = mine.begin; row < mine.end; ++row) {
      const Index first = row % shape.groups * cols;
      const LayerNormForward<T> own{
          args.x, args.y,   weight.from(first), bias.from(first), args.mean, args.rstd,
          cols,   args.eps, args.reach,         mask.rows(cols),  true,      args.fusion.activation};
      if (kernels<T>().layer_norm_rows(own, row, row + 1) > 0) careful_row(own, row);
      if (args.fusion.active.at)
        kernels<T>().keep_active(args.y + row * cols, cols, from(args.fusion.active, row * cols));
    }
  });
}

template <class T>
void backward_by_rows(const GroupNormBackward<T>& args, int threads) {
  constexpr Index most_chunks = 64, least_bytes = 64 << 10, planes = accumulator_planes<T>;
  const GroupShape& shape = args.shape;
  const Index cols = shape.group_size(), width = planes * cols;
  const Spread<Real<T>> weight(shape, args.weight);
  const DenseMask mask(shape, args.where);
  // Chunks of images, by the shape alone: each has accumulators for all groups.
  const Index bytes = shape.size() * static_cast<Index>(sizeof(T)),
              wanted = std::clamp<Index>(std::min(bytes / least_bytes, shape.batch / 8), 1, most_chunks),
              each = (shape.batch + wanted - 1) / wanted, chunks = (shape.batch + each - 1) / each;
  const Scratch<double> accumulators(chunks * shape.groups * 2 * width);
  const Scratch<T> active_dy(args.active.at ? threads * cols : 0);
  const auto sums = [&](Index chunk, Index group) {
    return accumulators.data() + (chunk * shape.groups + group) * 2 * width;
  };
  const auto row_gradients = [&](const Team& team, Index row, double* dw) {
    const T* dy = args.dy;
    if (args.active.at) {
      T* staged = active_dy.data() + team.rank * cols;
      kernels<T>().active_gradients(args.dy + row * cols, staged, {1, 0, cols}, 1, from(args.active, row * cols));
      dy = staged - row * cols;
    }
    const LayerNormBackward<T> own{dy,         args.x,         args.dx,   weight.from(row % shape.groups * cols),
                                   nullptr,    args.mean,      args.rstd, cols,
                                   args.reach, mask.rows(cols)};
    if (kernels<T>().layer_norm_backward_rows(own, row, row + 1, dw, dw + width) > 0)
      careful_columns(own, row, careful_row_gradient(own, row), 0, cols, dw, dw + width);
  };
  const auto total = [&](Index channel, Index which) {
    const Index group = channel / shape.per_group(), first = channel % shape.per_group() * shape.inner;
    Wider<T> sum = 0.0;
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      const double* plane = sums(chunk, group) + which * width;
      for (Index i = first; i < first + shape.inner; ++i)
        sum += widened<T>(Sum{plane[i], is_double<T> ? plane[cols + i] : 0.0});
    }
    return rounded<Real<T>>(sum);
  };
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(chunks);
    for (Index chunk = mine.begin; chunk < mine.end; ++chunk) {
      std::fill_n(sums(chunk, 0), shape.groups * 2 * width, 0.0);
      for (Index image = chunk * each; image < std::min((chunk + 1) * each, shape.batch); ++image)
        for (Index group = 0; group < shape.groups; ++group)
          row_gradients(team, image * shape.groups + group, sums(chunk, group));
    }
    team.barrier();
    const Share channels = team.share(shape.channels);
    for (Index c = channels.begin; c < channels.end; ++c) {
      args.dweight[c] = total(c, 0);
      args.dbias[c] = total(c, 1);
    }
  });
}

template <class Arguments>
Arguments with_stores(Arguments args, Index arrays, int threads) {
  const Index bytes = args.shape.size() * static_cast<Index>(sizeof(*args.x));
  args.reach = std::min(args.reach, reach_of(arrays * bytes, 0, threads));
  return args;
}

}  // namespace

template <class T>
void group_norm(const GroupNormForward<T>& given, int threads) {
  const SameKernels throughout;
  const GroupNormForward<T> args = with_stores(given, 2, threads);
  const GroupShape& shape = args.shape;
  if (shape.size() == 0) {
    std::fill_n(args.mean, shape.batch * shape.groups, 0.0);
    std::fill_n(args.rstd, shape.batch * shape.groups, 1.0 / std::sqrt(args.eps));
  } else if (shape.outer > 1) {
    group_norm_by_columns(args, threads);
  } else if (shape.inner >= shortest_run) {
    group_norm_by_runs(args, threads);
  } else {
    forward_by_rows(args, threads);
  }
}

template <class T>
void group_norm_backward(const GroupNormBackward<T>& given, int threads) {
  const SameKernels throughout;
  const GroupNormBackward<T> args = with_stores(given, 3, threads);
  const GroupShape& shape = args.shape;
  if (shape.size() == 0) {
    std::fill_n(args.dweight, shape.channels, Real<T>(0));
    std::fill_n(args.dbias, shape.channels, Real<T>(0));
  } else if (shape.outer > 1) {
    group_norm_backward_by_columns(args, threads);
  } else if (shape.inner >= shortest_run) {
    group_norm_backward_by_runs(args, threads);
  } else {
    backward_by_rows(args, threads);
  }
}

template void group_norm(const GroupNormForward<float>&, int);
template void group_norm(const GroupNormForward<double>&, int);
template void group_norm(const GroupNormForward<BFloat16>&, int);
template void group_norm(const GroupNormForward<Float16>&, int);
template void group_norm_backward(const GroupNormBackward<float>&, int);
template void group_norm_backward(const GroupNormBackward<double>&, int);
template void group_norm_backward(const GroupNormBackward<BFloat16>&, int);
template void group_norm_backward(const GroupNormBackward<Float16>&, int);

}  // namespace normkit
