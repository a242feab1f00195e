// Group norm where a channel's elements come in one run (NCHW): a group is one stretch of memory, cut into pieces that
// fit the first-level cache, each being some channels or part of one. Statistics know no channels; coefficients do.
#include <algorithm>

#include "norm/dispatch.hpp"
#include "norm/group_norm.hpp"
#include "norm/sweeps.hpp"

namespace normkit {
namespace {

// Channels [channel, channel + channels) of a group, or `count` elements of one of them.
struct GroupPiece {
  Index channel, channels, within, count;
};

template <class T>
class GroupPieces {
 public:
  explicit GroupPieces(const GroupShape& shape)
      : shape_(shape),
        per_channel_((shape.inner + limit - 1) / limit),
        channels_each_(std::clamp<Index>(limit / shape.inner, 1, most_channels)),
        count_(per_channel_ > 1 ? shape.per_group() * per_channel_
                                : (shape.per_group() + channels_each_ - 1) / channels_each_) {}

  Index groups() const { return shape_.batch * shape_.groups; }
  Index count() const { return count_; }
  Index group_bytes() const { return shape_.group_size() * static_cast<Index>(sizeof(T)); }
  GroupPiece piece(Index i) const {
    if (per_channel_ > 1) {
      const Index within = i % per_channel_ * limit;
      return {i / per_channel_, 1, within, std::min(limit, shape_.inner - within)};
    }
    const Index channel = i * channels_each_;
    return {channel, std::min(channels_each_, shape_.per_group() - channel), 0, shape_.inner};
  }
  // Counted through the batch.
  Index channel(Index group, const GroupPiece& piece) const { return group * shape_.per_group() + piece.channel; }
  Index offset(Index group, const GroupPiece& piece) const {
    return channel(group, piece) * shape_.inner + piece.within;
  }
  Index ahead(Index group, const GroupPiece& from, Next next) const {
    return next.item < 0 ? 0 : offset(next.item, piece(next.piece)) - offset(group, from);
  }
  Where where(Where whole, Index group, const GroupPiece& piece) const {
    return from(whole, group / shape_.groups, first_channel(shape_, group) + piece.channel, piece.within);
  }
  // Where sums of a channel's parts are kept, those of one channel side by side.
  Index slot(Index group, const GroupPiece& piece) const {
    return channel(group, piece) * per_channel_ + piece.within / limit;
  }
  Index slots() const { return shape_.batch * shape_.channels * per_channel_; }
  Index per_channel() const { return per_channel_; }
  Reach reach(Reach wanted) const {
    return limited(wanted, std::min(channels_each_ * shape_.inner, limit) * static_cast<Index>(sizeof(T)));
  }

  // A group's elements, channel by channel, and its mask.
  Runs runs() const { return {shape_.per_group(), shape_.inner, shape_.inner}; }
  Where mask(Where whole, Index group) const { return by_channels(where(whole, group, piece(0))); }
  Index start(Index group) const { return group * shape_.group_size(); }

  void moments(const T* x, Where whole, Index group, Index i, BlockMoments* out, Index ahead) const {
    const GroupPiece at = piece(i);
    const T* from_x = x + offset(group, at);
    if (whole.at)
      kernels<T>().moments(from_x, {at.channels, at.count, at.count}, 1, by_channels(where(whole, group, at)), out,
                           ahead);
    else
      kernels<T>().moments(from_x, {1, 0, at.channels * at.count}, 1, {}, out, ahead);
  }
  Moments<T> merged(const BlockMoments* parts, Index group) const {
    return merge<T>([&](auto&& visit) {
      for (Index i = 0; i < count_; ++i) visit(parts[group * count_ + i]);
    });
  }

 private:
  static Where by_channels(Where where) { return {where.at, where.channel, 0, where.inner}; }
  static constexpr Index limit = piece_elements<T>;
  GroupShape shape_;
  Index per_channel_, channels_each_, count_;
};

// `planes` coefficients of every channel of the batch.
template <class T>
class ChannelPlanes {
 public:
  ChannelPlanes(const GroupShape& shape, Index planes) : size_(shape.batch * shape.channels), values_(planes * size_) {}
  T* at(Index plane, Index channel) const { return values_.data() + plane * size_ + channel; }

 private:
  Index size_;
  Scratch<T> values_;
};

}  // namespace

template <class T>
void group_norm_by_runs(const GroupNormForward<T>& args, int threads) {
  using R = Real<T>;
  const GroupPieces<T> pieces(args.shape);
  const Index per_group = args.shape.per_group();
  const Scratch<BlockMoments> parts(pieces.groups() * pieces.count());
  const ChannelPlanes<R> planes(args.shape, 3);
  const Scratch<bool> done(pieces.groups());
  const auto statistics = [&](Share some, Index i, Next next) {
    for (Index group = some.begin; group < some.end; ++group)
      pieces.moments(args.x, args.where, group, i, parts.data() + group * pieces.count() + i,
                     pieces.ahead(group, pieces.piece(i), next));
  };
  const auto finish = [&](Index group) {
    const Moments<T> moments = pieces.merged(parts.data(), group);
    args.mean[group] = moments.mean.hi;
    args.rstd[group] = moments.rstd(args.eps);
    const Index channel = group * per_group;
    done[group] =
        !set_group_affine(args, group, moments, planes.at(0, channel), planes.at(1, channel), planes.at(2, channel));
    if (done[group]) careful_group(args, group, pieces.start(group), pieces.runs(), pieces.mask(args.where, group));
  };
  const auto apply = [&](Share some, Index i, Next next) {
    const GroupPiece piece = pieces.piece(i);
    for (Index group = some.begin; group < some.end; ++group) {
      if (done[group]) continue;
      const Index at = pieces.offset(group, piece), channel = pieces.channel(group, piece);
      kernels<T>().affine(args.x + at, args.y + at, {1, 0, piece.count}, piece.channels,
                          {planes.at(0, channel), planes.at(1, channel), planes.at(2, channel)}, from(args.fusion, at),
                          {pieces.reach(args.reach), pieces.ahead(group, piece, next)});
    }
  };
  parallel(threads, [&](const Team& team) {
    two_sweeps(team, pieces.groups(), 1, pieces.count(), pieces.group_bytes(), statistics, finish, apply);
  });
}

template <class T>
void group_norm_backward_by_runs(const GroupNormBackward<T>& args, int threads) {
  using R = Real<T>;
  using W = Wider<T>;
  constexpr bool refines = is_double<T>;
  const GroupPieces<T> pieces(args.shape);
  const Index per_group = args.shape.per_group(), channels = args.shape.batch * args.shape.channels;
  const Scratch<BlockMoments> parts(refines ? pieces.groups() * pieces.count() : 0);
  const Scratch<Sum> means(channels);
  const Scratch<GradientSums> sums(pieces.slots());
  const ChannelPlanes<R> planes(args.shape, 4);
  const Scratch<bool> done(pieces.groups());
  const ParameterGradients<T> parameters(args.shape);
  const auto set_mean = [&](Index group, Sum mean) { std::fill_n(means.data() + group * per_group, per_group, mean); };
  const auto statistics = [&](Share some, Index i, Next) {
    pieces.moments(args.x, args.where, some.begin, i, parts.data() + some.begin * pieces.count() + i, 0);
  };
  const auto refine = [&](Index group) {
    set_mean(group, refine_mean(args.mean[group], pieces.merged(parts.data(), group).mean));
  };
  const auto gradient_sums = [&](Share some, Index i, Next next) {
    const GroupPiece piece = pieces.piece(i);
    for (Index group = some.begin; group < some.end; ++group) {
      const Index at = pieces.offset(group, piece);
      kernels<T>().gradient_sums(args.dy + at, args.x + at, {1, 0, piece.count}, piece.channels,
                                 means.data() + pieces.channel(group, piece), Passage{from(args.active, at)},
                                 sums.data() + pieces.slot(group, piece), pieces.ahead(group, piece, next));
    }
  };
  const auto finish = [&](Index group) {
    const Index image = group / args.shape.groups, first = first_channel(args.shape, group);
    W g = 0.0, gd = 0.0;
    for (Index c = 0; c < per_group; ++c) {
      ChannelSums<T> total;
      for (Index part = 0; part < pieces.per_channel(); ++part)
        total.add(sums[(group * per_group + c) * pieces.per_channel() + part]);
      parameters.set(image, first + c, sum_of(total.gd * W(args.rstd[group])), sum_of(total.g));
      const W weight = weight_of(args.weight, first + c);
      g += weight * total.g;
      gd += weight * total.gd;
    }
    const Where mask = pieces.mask(args.where, group);
    const double count = static_cast<double>(active_kernels().masks.count(pieces.runs(), mask));
    const GradientAffine<R> gradient = group_gradient<T>(means[group * per_group], args.rstd[group], count, g, gd);
    done[group] = !group_gradient_fits(args, group, gradient, pieces.start(group), pieces.runs());
    if (done[group]) return careful_group_gradients(args, group, pieces.start(group), pieces.runs(), mask, parameters);
    const R values[] = {gradient.center, gradient.scale, gradient.dy_center, gradient.dy_scale};
    for (Index k = 0; k < 4; ++k) std::fill_n(planes.at(k, group * per_group), per_group, values[k]);
  };
  const auto apply = [&](Share some, Index i, Next next) {
    const GroupPiece piece = pieces.piece(i);
    for (Index group = some.begin; group < some.end; ++group) {
      if (done[group]) continue;
      const Index at = pieces.offset(group, piece), channel = pieces.channel(group, piece);
      const R* weight = args.weight ? args.weight + first_channel(args.shape, group) + piece.channel : nullptr;
      kernels<T>().gradient_affine(
          args.dy + at, args.x + at, args.dx + at, {1, 0, piece.count}, piece.channels,
          {planes.at(0, channel), planes.at(1, channel), planes.at(2, channel), planes.at(3, channel), weight},
          Passage{from(args.active, at)}, pieces.where(args.where, group, piece),
          {pieces.reach(args.reach), pieces.ahead(group, piece, next)});
    }
  };
  for (Index group = 0; group < pieces.groups(); ++group) set_mean(group, {args.mean[group], 0.0});
  parallel(threads, [&](const Team& team) {
    const auto sweeps = [&](Index bytes, auto&& first, auto&& between, auto&& second) {
      two_sweeps(team, pieces.groups(), 1, pieces.count(), bytes, first, between, second);
      team.barrier();
    };
    if (refines) sweeps(pieces.group_bytes(), statistics, refine, [](Share, Index, Next) {});
    sweeps(2 * pieces.group_bytes(), gradient_sums, finish, apply);
    parameters.store(team.share(args.shape.channels), args.dweight, args.dbias);
  });
}

template void group_norm_by_runs(const GroupNormForward<float>&, int);
template void group_norm_by_runs(const GroupNormForward<double>&, int);
template void group_norm_by_runs(const GroupNormForward<BFloat16>&, int);
template void group_norm_by_runs(const GroupNormForward<Float16>&, int);
template void group_norm_backward_by_runs(const GroupNormBackward<float>&, int);
template void group_norm_backward_by_runs(const GroupNormBackward<double>&, int);
template void group_norm_backward_by_runs(const GroupNormBackward<BFloat16>&, int);
template void group_norm_backward_by_runs(const GroupNormBackward<Float16>&, int);

}  // namespace normkit
