// Batch norm where a channel's elements come in long runs (NCHW): every channel is a few runs of H·W elements, cut into
// pieces that fit the first-level cache, each piece being part of a run or several runs.
#include <algorithm>

#include "norm/batch_norm.hpp"
#include "norm/channels.hpp"
#include "norm/dispatch.hpp"
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
    return (run * shape_.channels + channel) * shape_.inner + (per_run_ > 1 ? piece % per_run_ * limit : 0);
  }
  Runs runs(Index piece) const {
    if (per_run_ > 1) return {1, 0, std::min(limit, shape_.inner - piece % per_run_ * limit)};
    return {std::min(runs_each_, shape_.outer - piece * runs_each_), shape_.channels * shape_.inner, shape_.inner};
  }
  Runs whole() const { return {shape_.outer, shape_.channels * shape_.inner, shape_.inner}; }

 private:
  static constexpr Index limit = piece_elements<T>;
  ChannelShape shape_;
  Index per_run_, runs_each_, count_;
};

template <class T>
Moments<T> merge_pieces(const Pieces<T>& pieces, const ChannelShape& shape, const BlockMoments* parts) {
  return merge<T>(shape.per_channel(), [&](auto&& visit) {
    for (Index piece = 0; piece < pieces.count(); ++piece) {
      const Runs runs = pieces.runs(piece);
      visit(runs.outer * runs.inner, parts[piece]);
    }
  });
}

}  // namespace

template <class T>
void forward_by_runs(const BatchNormForward<T>& args, bool training, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const Index channels = args.shape.channels;
  const Pieces<T> pieces(args.shape);
  const Scratch<BlockMoments> parts(training ? channels * pieces.count() : 0);
  const Scratch<Affine<T>> affine(channels);
  const Scratch<bool> done(channels);
  const auto statistics = [&](Index channel, Index piece) {
    if (training)
      parts[channel * pieces.count() + piece] =
          kernel.moments(args.x + pieces.offset(channel, piece), pieces.runs(piece));
  };
  const auto finish = [&](Index channel) {
    const Moments<T> moments = training ? merge_pieces(pieces, args.shape, parts.data() + channel * pieces.count())
                                        : Moments<T>{{args.mean[channel], 0.0}, args.var[channel]};
    done[channel] = !channel_fits(args, channel, moments);
    if (done[channel]) {
      const Index first = pieces.offset(channel, 0);
      careful_channel(args, channel, args.x + first, args.y + first, pieces.whole(), training);
    } else {
      affine[channel] = channel_affine(args, channel, moments);
    }
  };
  const auto apply = [&](Index channel, Index piece) {
    const Index first = pieces.offset(channel, piece);
    if (!done[channel]) kernel.affine(args.x + first, args.y + first, pieces.runs(piece), affine[channel], args.stream);
  };
  parallel(threads, [&](const Team& team) { two_sweeps(team, channels, pieces.count(), statistics, finish, apply); });
}

template <class T>
void backward_by_runs(const BatchNormBackward<T>& args, bool training, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const Index channels = args.shape.channels;
  const Pieces<T> pieces(args.shape);
  constexpr bool refines = std::is_same_v<T, double>;
  const Scratch<GradientSums> parts(channels * pieces.count());
  const Scratch<BlockMoments> moments(refines && training ? channels * pieces.count() : 0);
  const Scratch<Sum> means(channels);
  const Scratch<GradientAffine<T>> affine(channels);
  const Scratch<bool> done(channels);
  const auto statistics = [&](Index channel, Index piece) {
    moments[channel * pieces.count() + piece] =
        kernel.moments(args.x + pieces.offset(channel, piece), pieces.runs(piece));
  };
  const auto refine = [&](Index channel) {
    const Sum mean = merge_pieces(pieces, args.shape, moments.data() + channel * pieces.count()).mean;
    means[channel] = refine_mean(args.mean[channel], mean);
  };
  const auto sums = [&](Index channel, Index piece) {
    const Index first = pieces.offset(channel, piece);
    parts[channel * pieces.count() + piece] =
        kernel.gradient_sums(args.dy + first, args.x + first, nullptr, pieces.runs(piece), means[channel]);
  };
  const auto finish = [&](Index channel) {
    ChannelSums<T> total;
    for (Index piece = 0; piece < pieces.count(); ++piece) total.add(parts[channel * pieces.count() + piece]);
    affine[channel] = channel_gradient(args, channel, means[channel], total);
    done[channel] = !gradient_fits(args, channel, affine[channel]);
    if (done[channel]) careful_channel_gradients(args, channel, pieces.offset(channel, 0), pieces.whole(), training);
  };
  const auto apply = [&](Index channel, Index piece) {
    if (done[channel]) return;
    const Index first = pieces.offset(channel, piece);
    if (training)
      kernel.gradient_affine(args.dy + first, args.x + first, args.dx + first, pieces.runs(piece), affine[channel], args.stream);
    else
      kernel.affine(args.dy + first, args.dx + first, pieces.runs(piece), {0, affine[channel].dy_scale, 0}, args.stream);
  };
  for (Index channel = 0; channel < channels; ++channel) means[channel] = {args.mean[channel], 0.0};
  parallel(threads, [&](const Team& team) {
    if (refines && training) {
      two_sweeps(team, channels, pieces.count(), statistics, refine, [](Index, Index) {});
      team.barrier();
    }
    two_sweeps(team, channels, pieces.count(), sums, finish, apply);
  });
}

template void forward_by_runs(const BatchNormForward<float>&, bool, int);
template void forward_by_runs(const BatchNormForward<double>&, bool, int);
template void backward_by_runs(const BatchNormBackward<float>&, bool, int);
template void backward_by_runs(const BatchNormBackward<double>&, bool, int);

}  // namespace normkit
