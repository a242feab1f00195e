// Batch norm where a channel's elements come in long runs (NCHW): every channel is a few runs of H·W elements, cut into
// pieces that fit the first-level cache, each piece being part of a run or several runs.
#include <algorithm>
#include <atomic>

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
    return (run * shape_.channels + channel) * shape_.inner + (per_run_ > 1 ? piece % per_run_ * limit : 0);
  }
  Runs runs(Index piece) const {
    if (per_run_ > 1) return {1, 0, std::min(limit, shape_.inner - piece % per_run_ * limit)};
    return {std::min(runs_each_, shape_.outer - piece * runs_each_), shape_.channels * shape_.inner, shape_.inner};
  }
  // How far the piece that is fetched lies from the one at work; 0 for none.
  Index ahead(Index channel, Index piece, Next next) const {
    return next.item < 0 ? 0 : offset(next.item, next.piece) - offset(channel, piece);
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
void forward_by_runs(const BatchNormForward<T>& args, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const Index channels = args.shape.channels;
  const Index channel_bytes = args.shape.per_channel() * static_cast<Index>(sizeof(T));
  const Pieces<T> pieces(args.shape);
  const Scratch<BlockMoments> parts(channels * pieces.count());
  const Scratch<Affine<T>> affine(channels);
  const Scratch<bool> done(channels);
  const auto statistics = [&](Index channel, Index piece, Next next) {
    parts[channel * pieces.count() + piece] =
        kernel.moments(args.x + pieces.offset(channel, piece), pieces.runs(piece), pieces.ahead(channel, piece, next));
  };
  const auto finish = [&](Index channel) {
    const Moments<T> moments = merge_pieces(pieces, args.shape, parts.data() + channel * pieces.count());
    done[channel] = !channel_fits(args, channel, moments);
    if (done[channel]) {
      const Index first = pieces.offset(channel, 0);
      careful_channel(args, channel, args.x + first, args.y + first, pieces.whole(), true);
    } else {
      affine[channel] = channel_affine(args, channel, moments);
    }
  };
  const auto apply = [&](Index channel, Index piece, Next next) {
    const Index first = pieces.offset(channel, piece);
    if (!done[channel])
      kernel.affine(args.x + first, args.y + first, pieces.runs(piece), affine[channel],
                    {args.stream, pieces.ahead(channel, piece, next)});
  };
  parallel(threads, [&](const Team& team) {
    two_sweeps(team, channels, pieces.count(), channel_bytes, statistics, finish, apply);
  });
}

// Statistics that are constants: the planes of the channels in the order of memory.
template <class T>
void inference_by_planes(const BatchNormForward<T>& args, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const auto [outer, channels, inner] = args.shape;
  const Pieces<T> pieces(args.shape);
  const Scratch<T> coefficients(3 * channels);
  const AffineColumns<T> affine{coefficients.data(), coefficients.data() + channels,
                                coefficients.data() + 2 * channels};
  const Scratch<bool> done(channels);
  std::atomic<bool> any_done{false};
  const auto prepare = [&](Index channel) {
    const Moments<T> moments{{args.mean[channel], 0.0}, args.var[channel]};
    const Affine<T> a = channel_affine(args, channel, moments);
    coefficients[channel] = a.center;
    coefficients[channels + channel] = a.scale;
    coefficients[2 * channels + channel] = a.shift;
    done[channel] = !channel_fits(args, channel, moments);
    if (!done[channel]) return;
    any_done = true;
    const Index first = pieces.offset(channel, 0);
    careful_channel(args, channel, args.x + first, args.y + first, pieces.whole(), false);
  };
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(channels);
    for (Index channel = mine.begin; channel < mine.end; ++channel) prepare(channel);
    team.barrier();
    const Share planes = team.share(outer * channels);
    for (Index p = planes.begin; p < planes.end;) {
      const Index channel = p % channels, left = std::min(planes.end - p, channels - channel);
      Index count = 0;
      if (!any_done)
        count = left;
      else
        while (count < left && !done[channel + count]) ++count;
      kernel.plane_affine(args.x + p * inner, args.y + p * inner, count, inner,
                          {affine.center + channel, affine.scale + channel, affine.shift + channel}, args.stream);
      p += std::max<Index>(count, 1);
    }
  });
}

template <class T>
void backward_by_runs(const BatchNormBackward<T>& args, bool training, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const Index channels = args.shape.channels;
  const Index channel_bytes = 2 * args.shape.per_channel() * static_cast<Index>(sizeof(T));
  const Pieces<T> pieces(args.shape);
  constexpr bool refines = std::is_same_v<T, double>;
  const Scratch<GradientSums> parts(channels * pieces.count());
  const Scratch<BlockMoments> moments(refines && training ? channels * pieces.count() : 0);
  const Scratch<Sum> means(channels);
  const Scratch<GradientAffine<T>> affine(channels);
  const Scratch<bool> done(channels);
  const auto statistics = [&](Index channel, Index piece, Next) {
    moments[channel * pieces.count() + piece] =
        kernel.moments(args.x + pieces.offset(channel, piece), pieces.runs(piece), 0);
  };
  const auto refine = [&](Index channel) {
    const Sum mean = merge_pieces(pieces, args.shape, moments.data() + channel * pieces.count()).mean;
    means[channel] = refine_mean(args.mean[channel], mean);
  };
  const auto sums = [&](Index channel, Index piece, Next next) {
    const Index first = pieces.offset(channel, piece);
    parts[channel * pieces.count() + piece] =
        kernel.gradient_sums(args.dy + first, args.x + first, nullptr, pieces.runs(piece), means[channel],
                             pieces.ahead(channel, piece, next));
  };
  const auto finish = [&](Index channel) {
    ChannelSums<T> total;
    for (Index piece = 0; piece < pieces.count(); ++piece) total.add(parts[channel * pieces.count() + piece]);
    affine[channel] = channel_gradient(args, channel, means[channel], total);
    done[channel] = !gradient_fits(args, channel, affine[channel]);
    if (done[channel]) careful_channel_gradients(args, channel, pieces.offset(channel, 0), pieces.whole(), training);
  };
  const auto apply = [&](Index channel, Index piece, Next next) {
    if (done[channel]) return;
    const Index first = pieces.offset(channel, piece);
    const Stores stores{args.stream, pieces.ahead(channel, piece, next)};
    if (training)
      kernel.gradient_affine(args.dy + first, args.x + first, args.dx + first, pieces.runs(piece), affine[channel],
                             stores);
    else
      kernel.affine(args.dy + first, args.dx + first, pieces.runs(piece), {0, affine[channel].dy_scale, 0}, stores);
  };
  for (Index channel = 0; channel < channels; ++channel) means[channel] = {args.mean[channel], 0.0};
  parallel(threads, [&](const Team& team) {
    if (refines && training) {
      two_sweeps(team, channels, pieces.count(), channel_bytes / 2, statistics, refine, [](Index, Index, Next) {});
      team.barrier();
    }
    two_sweeps(team, channels, pieces.count(), channel_bytes, sums, finish, apply);
  });
}

template void inference_by_planes(const BatchNormForward<float>&, int);
template void inference_by_planes(const BatchNormForward<double>&, int);
template void forward_by_runs(const BatchNormForward<float>&, int);
template void forward_by_runs(const BatchNormForward<double>&, int);
template void backward_by_runs(const BatchNormBackward<float>&, bool, int);
template void backward_by_runs(const BatchNormBackward<double>&, bool, int);

}  // namespace normkit
