// Group norm of channels that lie side by side (NHWC): an image is a matrix whose columns belong to channels. Columns
// have their statistics in chunks of rows, and those of a group are merged like any other blocks.
#include <algorithm>

#include "norm/dispatch.hpp"
#include "norm/group_norm.hpp"
#include "norm/machine.hpp"

namespace normkit {
namespace {

// The images' chunks of rows, by the shape alone.
template <class T>
class ImageChunks {
 public:
  explicit ImageChunks(const GroupShape& shape) : shape_(shape), cols_(shape.channels * shape.inner) {
    constexpr Index least_rows = 32, chunk_bytes = 256 << 10, most_chunks = 256;
    const Index fitting = std::min(chunk_bytes / (cols_ * static_cast<Index>(sizeof(T))), (shape.outer + 7) / 8);
    each_ = std::max({least_rows, fitting, (shape.outer + most_chunks - 1) / most_chunks});
    per_image_ = (shape.outer + each_ - 1) / each_;
  }
  Index cols() const { return cols_; }
  Index per_image() const { return per_image_; }
  Index count() const { return shape_.batch * per_image_; }
  Index groups() const { return shape_.batch * shape_.groups; }
  Index image(Index chunk) const { return chunk / per_image_; }
  Index rows(Index within) const { return std::min(each_, shape_.outer - within * each_); }
  Index offset(Index chunk) const { return (image(chunk) * shape_.outer + chunk % per_image_ * each_) * cols_; }
  Block block(Index chunk) const { return {rows(chunk % per_image_), cols_, cols_}; }

  // A group: its first column, how many it has, where it starts, and its elements.
  Index first_col(Index group) const { return group % shape_.groups * group_cols(); }
  Index group_cols() const { return shape_.per_group() * shape_.inner; }
  Index start(Index group) const { return group / shape_.groups * shape_.outer * cols_ + first_col(group); }
  Runs runs() const { return {shape_.outer, cols_, group_cols()}; }

 private:
  GroupShape shape_;
  Index cols_, each_, per_image_;
};

// Planes of values for the columns of every chunk, or of every image.
template <class V>
class ColumnPlanes {
 public:
  ColumnPlanes(Index sets, Index planes, Index cols) : planes_(planes), cols_(cols), values_(sets * planes * cols) {}
  V* at(Index set, Index plane, Index col) const { return values_.data() + (set * planes_ + plane) * cols_ + col; }

 private:
  Index planes_, cols_;
  Scratch<V> values_;
};

// The mask from an element of the array on.
inline Where at_element(Where rows, Index offset, Index cols) { return from(rows, offset / cols, 0, offset % cols); }

// Mean and Σ(x − mean)² of columns, chunk by chunk; then of groups.
template <class T>
class GroupMoments {
 public:
  GroupMoments(const ImageChunks<T>& chunks, Where mask, bool needed)
      : chunks_(chunks), mask_(mask), planes_(needed ? chunks.count() : 0, 5, chunks.cols()) {}

  void compute(const T* x, Index chunk) const {
    const Index at = chunks_.offset(chunk);
    kernels<T>().column_moments(x + at, chunks_.block(chunk), at_element(mask_, at, chunks_.cols()), sums(chunk, 0));
  }
  Moments<T> merged(Index group, Index image) const {
    const Index first = chunks_.first_col(group), count = chunks_.group_cols(), base = image * chunks_.per_image();
    double rows = static_cast<double>(chunks_.rows(0));
    for (Index chunk = 1; chunk < chunks_.per_image(); ++chunk) {
      const double more = static_cast<double>(chunks_.rows(chunk));
      kernels<T>().merge_columns(sums(base, first), rows, sums(base + chunk, first), more, count);
      rows += more;
    }
    return merge<T>([&](auto&& visit) {
      for (Index col = first; col < first + count; ++col)
        visit(BlockMoments{value(base, 0, col), value(base, 2, col), mask_.at ? *planes_.at(base, 4, col) : rows});
    });
  }

 private:
  ColumnMoments sums(Index chunk, Index col) const {
    return {planes_.at(chunk, 0, col), planes_.at(chunk, 1, col), planes_.at(chunk, 2, col), planes_.at(chunk, 3, col),
            mask_.at ? planes_.at(chunk, 4, col) : nullptr};
  }
  Sum value(Index chunk, Index plane, Index col) const {
    return {*planes_.at(chunk, plane, col), is_double<T> ? *planes_.at(chunk, plane + 1, col) : 0.0};
  }
  const ImageChunks<T>& chunks_;
  Where mask_;
  ColumnPlanes<double> planes_;
};

// body(columns) for the longest ranges of an image's columns whose groups are not done.
template <class T, class F>
void each_open_range(const ImageChunks<T>& chunks, const GroupShape& shape, const bool* done, Index image, F&& body) {
  for (Index group = 0; group < shape.groups;) {
    Index end = group;
    while (end < shape.groups && !done[image * shape.groups + end]) ++end;
    if (end > group) body(Share{group * chunks.group_cols(), end * chunks.group_cols()});
    group = end + 1;
  }
}

// Streaming stores need whole rows that begin and end with lines.
template <class T>
Reach reach_of_rows(const T* to, Index cols, Share columns, Reach wanted) {
  const bool lines = cols * static_cast<Index>(sizeof(T)) % 64 == 0 && reinterpret_cast<std::uintptr_t>(to) % 64 == 0;
  return lines && columns.end - columns.begin == cols ? limited(wanted, cols * static_cast<Index>(sizeof(T)))
                                                      : std::min(wanted, Reach::far);
}

}  // namespace

template <class T>
void group_norm_by_columns(const GroupNormForward<T>& args, int threads) {
  using R = Real<T>;
  const GroupShape& shape = args.shape;
  const ImageChunks<T> chunks(shape);
  const Index cols = chunks.cols();
  const DenseMask mask(shape, args.where);
  const GroupMoments<T> moments(chunks, mask.rows(cols), true);
  const ColumnPlanes<R> planes(shape.batch, 3, cols);
  const Scratch<bool> done(chunks.groups());
  const auto finish = [&](Index group) {
    const Index image = group / shape.groups, first = chunks.first_col(group);
    const Moments<T> found = moments.merged(group, image);
    args.mean[group] = found.mean.hi;
    args.rstd[group] = found.rstd(args.eps);
    done[group] = !set_group_affine(args, group, found, [&](Index c, const Affine<R>& affine) {
      const R values[] = {affine.center, affine.scale, affine.shift};
      for (Index k = 0; k < 3; ++k) std::fill_n(planes.at(image, k, first + c * shape.inner), shape.inner, values[k]);
    });
    const Index start = chunks.start(group);
    if (done[group]) careful_group(args, group, start, chunks.runs(), at_element(mask.rows(cols), start, cols));
  };
  const auto apply = [&](Index chunk) {
    const Index image = chunks.image(chunk);
    each_open_range(chunks, shape, done.data(), image, [&](Share columns) {
      const Index at = chunks.offset(chunk) + columns.begin;
      Block block = chunks.block(chunk);
      block.cols = columns.end - columns.begin;
      kernels<T>().column_affine(
          args.x + at, args.y + at, block,
          {planes.at(image, 0, columns.begin), planes.at(image, 1, columns.begin), planes.at(image, 2, columns.begin)},
          from(args.fusion, at), reach_of_rows(args.y, cols, columns, args.reach));
    });
  };
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(chunks.count()), groups = team.share(chunks.groups());
    for (Index chunk = mine.begin; chunk < mine.end; ++chunk) moments.compute(args.x, chunk);
    team.barrier();
    for (Index group = groups.begin; group < groups.end; ++group) finish(group);
    team.barrier();
    for (Index chunk = mine.end; chunk-- > mine.begin;) apply(chunk);
  });
}

template <class T>
void group_norm_backward_by_columns(const GroupNormBackward<T>& args, int threads) {
  using R = Real<T>;
  using W = Wider<T>;
  constexpr bool refines = is_double<T>;
  const GroupShape& shape = args.shape;
  const ImageChunks<T> chunks(shape);
  const Index cols = chunks.cols(), inner = shape.inner;
  const DenseMask mask(shape, args.where);
  const GroupMoments<T> moments(chunks, mask.rows(cols), refines);
  const ColumnPlanes<double> means(shape.batch, 2, cols), sums(chunks.count(), 4, cols);
  const ColumnPlanes<R> planes(shape.batch, 5, cols);
  const Scratch<bool> done(chunks.groups());
  const ParameterGradients<T> parameters(shape);
  const auto set_mean = [&](Index group, Sum mean) {
    const Index image = group / shape.groups, first = chunks.first_col(group);
    std::fill_n(means.at(image, 0, first), chunks.group_cols(), mean.hi);
    std::fill_n(means.at(image, 1, first), chunks.group_cols(), mean.lo);
  };
  const auto sums_at = [&](Index chunk, Index col) {
    return ColumnGradientSums{sums.at(chunk, 0, col), sums.at(chunk, 1, col), sums.at(chunk, 2, col),
                              sums.at(chunk, 3, col)};
  };
  const auto compute = [&](Index chunk) {
    const Index at = chunks.offset(chunk), image = chunks.image(chunk);
    kernels<T>().column_gradient_sums(args.dy + at, args.x + at, chunks.block(chunk),
                                      {means.at(image, 0, 0), means.at(image, 1, 0)}, Passage{from(args.active, at)},
                                      sums_at(chunk, 0));
  };
  const auto finish = [&](Index group) {
    const Index image = group / shape.groups, first = chunks.first_col(group), base = image * chunks.per_image(),
                channel = first_channel(shape, group);
    for (Index chunk = 1; chunk < chunks.per_image(); ++chunk)
      kernels<T>().add_columns(sums_at(base, first), sums_at(base + chunk, first), chunks.group_cols());
    const auto value = [&](Index plane, Index col) {
      return Sum{*sums.at(base, plane, col), is_double<T> ? *sums.at(base, plane + 1, col) : 0.0};
    };
    W g = 0.0, gd = 0.0;
    for (Index c = 0; c < shape.per_group(); ++c) {
      ChannelSums<T> total;
      for (Index col = first + c * inner; col < first + (c + 1) * inner; ++col)
        total.add({value(0, col), value(2, col)});
      parameters.set(image, channel + c, total.gd * W(args.rstd[group]), total.g);
      const W weight = weight_of(args.weight, channel + c);
      g += weight * total.g;
      gd += weight * total.gd;
    }
    const Index start = chunks.start(group);
    const Where where = at_element(mask.rows(cols), start, cols);
    const double count = static_cast<double>(active_kernels().masks.count(chunks.runs(), where));
    const Sum mean{*means.at(image, 0, first), *means.at(image, 1, first)};
    const GradientAffine<R> gradient = group_gradient<T>(mean, args.rstd[group], count, g, gd);
    done[group] = !group_gradient_fits<T>(args.rstd[group], gradient);
    if (done[group]) return careful_group_gradients(args, group, start, chunks.runs(), where, parameters);
    const R values[] = {gradient.center, gradient.scale, gradient.dy_center, gradient.dy_scale};
    for (Index k = 0; k < 4; ++k) std::fill_n(planes.at(image, k, first), chunks.group_cols(), values[k]);
    for (Index c = 0; c < shape.per_group() && args.weight; ++c)
      std::fill_n(planes.at(image, 4, first + c * inner), inner, args.weight[channel + c]);
  };
  const auto apply = [&](Index chunk) {
    const Index image = chunks.image(chunk);
    each_open_range(chunks, shape, done.data(), image, [&](Share columns) {
      const Index at = chunks.offset(chunk) + columns.begin;
      Block block = chunks.block(chunk);
      block.cols = columns.end - columns.begin;
      const auto plane = [&](Index k) { return planes.at(image, k, columns.begin); };
      kernels<T>().column_gradient_affine(args.dy + at, args.x + at, args.dx + at, block,
                                          {plane(0), plane(1), plane(2), plane(3), args.weight ? plane(4) : nullptr},
                                          Passage{from(args.active, at)}, at_element(mask.rows(cols), at, cols),
                                          reach_of_rows(args.dx, cols, columns, args.reach));
    });
  };
  for (Index group = 0; group < chunks.groups(); ++group) set_mean(group, {args.mean[group], 0.0});
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(chunks.count()), groups = team.share(chunks.groups());
    if (refines) {
      for (Index chunk = mine.begin; chunk < mine.end; ++chunk) moments.compute(args.x, chunk);
      team.barrier();
      for (Index group = groups.begin; group < groups.end; ++group)
        set_mean(group, refine_mean(args.mean[group], moments.merged(group, group / shape.groups).mean));
      team.barrier();
    }
    for (Index chunk = mine.begin; chunk < mine.end; ++chunk) compute(chunk);
    team.barrier();
    for (Index group = groups.begin; group < groups.end; ++group) finish(group);
    team.barrier();
    for (Index chunk = mine.end; chunk-- > mine.begin;) apply(chunk);
    parameters.store(team.share(shape.channels), args.dweight, args.dbias);
  });
}

template void group_norm_by_columns(const GroupNormForward<float>&, int);
template void group_norm_by_columns(const GroupNormForward<double>&, int);
template void group_norm_by_columns(const GroupNormForward<BFloat16>&, int);
template void group_norm_by_columns(const GroupNormForward<Float16>&, int);
template void group_norm_backward_by_columns(const GroupNormBackward<float>&, int);
template void group_norm_backward_by_columns(const GroupNormBackward<double>&, int);
template void group_norm_backward_by_columns(const GroupNormBackward<BFloat16>&, int);
template void group_norm_backward_by_columns(const GroupNormBackward<Float16>&, int);

}  // namespace normkit
