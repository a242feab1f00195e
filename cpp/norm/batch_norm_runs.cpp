// Batch norm where a channel's elements come in long runs (NCHW): every channel is a few runs of H·W elements, cut into
// pieces that fit the first-level cache, each piece being part of a run or several runs.
#include <algorithm>
#include <initializer_list>

#include "norm/batch_norm.hpp"
#include "norm/channels.hpp"
#include "norm/dispatch.hpp"
#include "norm/scratch.hpp"
#include "norm/sweeps.hpp"

namespace normkit {
namespace {

template <class T>
class Pieces {
 public:
  explicit Pieces(const ChannelShape& shape)
      : shape_(shape),
        per_run_((shape.inner + limit - 1) / limit),
        runs_each_(std::max<Index>(1, limit / shape.inner)),
        count_(per_run_ > 1 ? shape.outer * per_run_ : (shape.outer + runs_each_ - 1) / runs_each_) {}

  Index count() const { return count_; }

  // Where the piece of a channel starts, and its runs from there.
  Index offset(Index channel, Index piece) const {
    const Index run = per_run_ > 1 ? piece / per_run_ : piece * runs_each_;
    return (run * shape_.channels + channel) * shape_.inner + within(piece);
  }
  Where where(Where whole, Index channel, Index piece) const {
    const Index run = per_run_ > 1 ? piece / per_run_ : piece * runs_each_;
    return from(whole, run, channel, within(piece));
  }
  Runs runs(Index piece) const {
    if (per_run_ > 1) return {1, 0, std::min(limit, shape_.inner - piece % per_run_ * limit)};
    return {std::min(runs_each_, shape_.outer - piece * runs_each_), shape_.channels * shape_.inner, shape_.inner};
  }
  // How far what is fetched lies from the piece at work; 0 for nothing. Of pieces of whole runs that is the next run.
  Index ahead(Share channels, Index piece, Next next) const {
    if (next.item < 0) return 0;
    if (next.item == channels.begin && per_run_ == 1) return shape_.channels * shape_.inner;
    return offset(next.item, next.piece) - offset(channels.begin, piece);
  }
  Runs whole() const { return {shape_.outer, shape_.channels * shape_.inner, shape_.inner}; }

  // Channels to take at once, a sweep over one of them reading channel_bytes: memory wants to be read some KB at a
  // time, and a core's cache has to hold these channels beside those that come next.
  Index together(Index channel_bytes) const {
    const Index fitting = caches().second_level / 2 / std::max<Index>(channel_bytes, 1);
    const Index wanted = most_staged / static_cast<Index>(sizeof(T)) / shape_.inner;
    return std::clamp<Index>(std::min(wanted, fitting), 1, most_channels);
  }
  // Where the result goes when so many channels are taken at once.
  Reach reach(Reach wanted, Index together) const {
    return limited(wanted, together * shape_.inner * static_cast<Index>(sizeof(T)));
  }

 private:
  Index within(Index piece) const { return per_run_ > 1 ? piece % per_run_ * limit : 0; }
  static constexpr Index limit = piece_elements<T>;
  ChannelShape shape_;
  Index per_run_, runs_each_, count_;
};

// What the second sweep needs of every channel: coefficients, or that it is done already, in a wider type.
template <class T>
class Coefficients {
 public:
  explicit Coefficients(Index channels) : channels_(channels), values_(4 * channels), done_(channels) {}

  void set(Index channel, const Affine<T>& a) const { put(channel, {a.center, a.scale, a.shift}); }
  void set(Index channel, const GradientAffine<T>& a) const {
    put(channel, {a.center, a.scale, a.dy_center, a.dy_scale});
  }
  void set_done(Index channel) const { done_[channel] = true; }

  AffineColumns<T> affine(Index channel) const { return {at(0, channel), at(1, channel), at(2, channel)}; }
  GradientAffineColumns<T> gradient(Index channel) const {
    return {at(0, channel), at(1, channel), at(2, channel), at(3, channel)};
  }

  // body(first, count) for the longest ranges of the channels that are not done.
  template <class F>
  void each_open(Share channels, F&& body) const {
    for (Index first = channels.begin; first < channels.end;) {
      Index end = first;
      while (end < channels.end && !done_[end]) ++end;
      if (end > first) body(first, end - first);
      first = end + 1;
    }
  }

 private:
  void put(Index channel, std::initializer_list<T> values) const {
    Index k = 0;
    for (const T value : values) at(k++, channel)[0] = value;
    done_[channel] = false;
  }
  T* at(Index k, Index channel) const { return values_.data() + k * channels_ + channel; }

  Index channels_;
  Scratch<T> values_;
  Scratch<bool> done_;
};

// parts: one for each piece and channel, the channels of a piece side by side.
template <class T>
Moments<T> merge_pieces(const Pieces<T>& pieces, const ChannelShape& shape, const BlockMoments* parts, Index channel) {
  return merge<T>([&](auto&& visit) {
    for (Index piece = 0; piece < pieces.count(); ++piece) visit(parts[piece * shape.channels + channel]);
  });
}

}  // namespace

template <class T>
void forward_by_runs(const BatchNormForward<T>& args, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const Index channels = args.shape.channels;
  const Index channel_bytes = args.shape.per_channel() * static_cast<Index>(sizeof(T));
  const Pieces<T> pieces(args.shape);
  const Scratch<BlockMoments> parts(channels * pieces.count());
  const Coefficients<Real<T>> coefficients(channels);
  const auto statistics = [&](Share some, Index piece, Next next) {
    kernel.moments(args.x + pieces.offset(some.begin, piece), pieces.runs(piece), some.end - some.begin,
                   pieces.where(args.where, some.begin, piece), parts.data() + piece * channels + some.begin,
                   pieces.ahead(some, piece, next));
  };
  const auto finish = [&](Index channel) {
    const Moments<T> moments = merge_pieces(pieces, args.shape, parts.data(), channel);
    if (channel_fits(args, channel, moments)) {
      coefficients.set(channel, channel_affine(args, channel, moments));
    } else {
      coefficients.set_done(channel);
      const Index first = pieces.offset(channel, 0);
      careful_channel(args, channel, args.x + first, args.y ? args.y + first : nullptr, pieces.whole(), true);
    }
  };
  const Index together = pieces.together(channel_bytes);
  const Reach reach = pieces.reach(args.reach, together);
  const auto apply = [&](Share some, Index piece, Next next) {
    if (args.y == nullptr) return;
    const Stores stores{reach, pieces.ahead(some, piece, next)};
    coefficients.each_open(some, [&](Index channel, Index count) {
      const Index first = pieces.offset(channel, piece);
      kernel.affine(args.x + first, args.y + first, pieces.runs(piece), count, coefficients.affine(channel),
                    from(args.fusion, first), stores);
    });
  };
  parallel(threads, [&](const Team& team) {
    two_sweeps(team, channels, together, pieces.count(), channel_bytes, statistics, finish, apply);
  });
}

// Statistics that are constants: the planes of the channels in the order of memory.
template <class T>
void inference_by_planes(const BatchNormForward<T>& args, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const auto [outer, channels, inner] = args.shape;
  const Pieces<T> pieces(args.shape);
  const Coefficients<Real<T>> coefficients(channels);
  const Reach reach = pieces.reach(args.reach, 1);  // putting short planes together first took up to 1.7 times as long
  const auto prepare = [&](Index channel) {
    const Moments<T> moments{{args.mean[channel], 0.0}, args.var[channel], samples_of(args.shape)};
    if (channel_fits(args, channel, moments)) {
      coefficients.set(channel, channel_affine(args, channel, moments));
    } else {
      coefficients.set_done(channel);
      const Index first = pieces.offset(channel, 0);
      careful_channel(args, channel, args.x + first, args.y + first, pieces.whole(), false);
    }
  };
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(channels);
    for (Index channel = mine.begin; channel < mine.end; ++channel) prepare(channel);
    team.barrier();
    const Share planes = team.share(outer * channels);
    for (Index p = planes.begin; p < planes.end;) {
      const Index channel = p % channels, count = std::min(planes.end - p, channels - channel);
      coefficients.each_open({channel, channel + count}, [&](Index first, Index some) {
        const Index at = (p + first - channel) * inner;
        kernel.affine(args.x + at, args.y + at, {1, 0, inner}, some, coefficients.affine(first), from(args.fusion, at),
                      {reach, 0});
      });
      p += count;
    }
  });
}

// dx = dy·scale
template <class T>
void scale_gradients(const BatchNormBackward<T>& args, Index first, Runs runs, Index channels,
                     AffineColumns<Real<T>> scale, Stores stores) {
  const T* dy = args.dy + first;
  T* dx = args.dx + first;
  if (args.active.at) {
    kernels<T>().active_gradients(dy, dx, runs, channels, from(args.active, first));
    dy = dx;
    stores = {Reach::near, 0};
  }
  kernels<T>().affine(dy, dx, runs, channels, scale, {}, stores);
}

template <class T>
void backward_by_runs(const BatchNormBackward<T>& given, bool training, int threads) {
  const BatchNormBackward<T> args = from_residual(given);
  const Kernels<T>& kernel = kernels<T>();
  const Index channels = args.shape.channels;
  const Index channel_bytes = 2 * args.shape.per_channel() * static_cast<Index>(sizeof(T));
  const Pieces<T> pieces(args.shape);
  const bool refines = is_double<T> && training && !args.from_output, takes_x = training || args.slope != 1.0;
  const Scratch<GradientSums> parts(channels * pieces.count());
  const Scratch<BlockMoments> moments(refines ? channels * pieces.count() : 0);
  const Scratch<Sum> means(channels);
  const Coefficients<Real<T>> coefficients(channels);
  const auto statistics = [&](Share some, Index piece, Next) {
    kernel.moments(args.x + pieces.offset(some.begin, piece), pieces.runs(piece), some.end - some.begin,
                   pieces.where(args.where, some.begin, piece), moments.data() + piece * channels + some.begin, 0);
  };
  const auto refine = [&](Index channel) {
    means[channel] = refine_mean(args.mean[channel], merge_pieces(pieces, args.shape, moments.data(), channel).mean);
  };
  const auto sums = [&](Share some, Index piece, Next next) {
    const Index first = pieces.offset(some.begin, piece), count = some.end - some.begin;
    const Runs runs = pieces.runs(piece);
    if (args.dresidual)
      kernel.active_gradients(given.dy + first, args.dresidual + first, runs, count, from(given.active, first));
    kernel.gradient_sums(args.dy + first, args.x + first, runs, count, means.data() + some.begin,
                         passage_of(args, first), parts.data() + piece * channels + some.begin,
                         pieces.ahead(some, piece, next));
  };
  const auto finish = [&](Index channel) {
    ChannelSums<T> total;
    for (Index piece = 0; piece < pieces.count(); ++piece) total.add(parts[piece * channels + channel]);
    const GradientAffine<Real<T>> gradient = channel_gradient(args, channel, means[channel], total);
    const Index first = pieces.offset(channel, 0);
    if (!gradient_fits(args, channel, gradient, first, pieces.whole())) {
      coefficients.set_done(channel);
      careful_channel_gradients(args, channel, first, pieces.whole(), training);
    } else if (takes_x) {
      coefficients.set(channel, training ? gradient : of_constants<T>(gradient));
    } else {
      coefficients.set(channel, Affine<Real<T>>{0, gradient.dy_scale, 0});
    }
  };
  const Index together = pieces.together(channel_bytes);
  const Reach reach = pieces.reach(args.reach, together);
  const auto apply = [&](Share some, Index piece, Next next) {
    const Stores stores{reach, pieces.ahead(some, piece, next)};
    const Runs runs = pieces.runs(piece);
    coefficients.each_open(some, [&](Index channel, Index count) {
      const Index first = pieces.offset(channel, piece);
      if (takes_x)
        kernel.gradient_affine(args.dy + first, args.x + first, args.dx + first, runs, count,
                               coefficients.gradient(channel), passage_of(args, first),
                               pieces.where(args.where, channel, piece), stores);
      else
        scale_gradients(args, first, runs, count, coefficients.affine(channel), stores);
    });
  };
  for (Index channel = 0; channel < channels; ++channel) means[channel] = {args.mean[channel], 0.0};
  parallel(threads, [&](const Team& team) {
    if (refines) {
      two_sweeps(team, channels, together, pieces.count(), channel_bytes / 2, statistics, refine,
                 [](Share, Index, Next) {});
      team.barrier();
    }
    two_sweeps(team, channels, together, pieces.count(), channel_bytes, sums, finish, apply);
  });
}

template void inference_by_planes(const BatchNormForward<float>&, int);
template void inference_by_planes(const BatchNormForward<double>&, int);
template void inference_by_planes(const BatchNormForward<BFloat16>&, int);
template void inference_by_planes(const BatchNormForward<Float16>&, int);
template void forward_by_runs(const BatchNormForward<float>&, int);
template void forward_by_runs(const BatchNormForward<double>&, int);
template void forward_by_runs(const BatchNormForward<BFloat16>&, int);
template void forward_by_runs(const BatchNormForward<Float16>&, int);
template void backward_by_runs(const BatchNormBackward<float>&, bool, int);
template void backward_by_runs(const BatchNormBackward<double>&, bool, int);
template void backward_by_runs(const BatchNormBackward<BFloat16>&, bool, int);
template void backward_by_runs(const BatchNormBackward<Float16>&, bool, int);

}  // namespace normkit
