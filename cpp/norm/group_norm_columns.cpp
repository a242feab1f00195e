// Group norm of channels that lie side by side (NHWC): an image is a matrix whose columns belong to channels. Columns
// have their statistics in chunks of rows, and those of a group are merged like any other blocks. Where channels are
// few, rows side by side make one wider row, so that vectors are full.
#include <algorithm>

#include "norm/dispatch.hpp"
#include "norm/flat_rows.hpp"
#include "norm/group_norm.hpp"
#include "norm/machine.hpp"

namespace normkit {
namespace {

// The mask from an element of the array on.
inline Where at_element(Where rows, Index offset, Index cols) { return from(rows, offset / cols, 0, offset % cols); }

// The images' chunks of rows, by the shape alone.
template <class T>
class ImageChunks {
 public:
  explicit ImageChunks(const GroupShape& shape) : shape_(shape), width_(shape.channels * shape.inner) {
    constexpr Index full = 64, line = 16;
    if (width_ < full)
      for (Index fold = 2; fold * width_ <= full + line && 2 * fold <= shape.outer; ++fold)
        if (shape.outer % fold == 0 && (cols() % line != 0 || fold * width_ % line == 0)) fold_ = fold;
    rows_ = shape.outer / fold_;
    constexpr Index least_rows = 32, chunk_bytes = 256 << 10, most_chunks = 256;
    const Index fitting = std::min(chunk_bytes / (cols() * static_cast<Index>(sizeof(T))), (rows_ + 7) / 8);
    each_ = std::max({least_rows, fitting, (rows_ + most_chunks - 1) / most_chunks});
    per_image_ = (rows_ + each_ - 1) / each_;
  }
  Index cols() const { return fold_ * width_; }
  Index per_image() const { return per_image_; }
  Index count() const { return shape_.batch * per_image_; }
  Index image(Index chunk) const { return chunk / per_image_; }
  Index all_rows() const { return rows_; }
  Index rows(Index within) const { return std::min(each_, rows_ - within * each_); }
  Index offset(Index chunk) const { return (image(chunk) * rows_ + chunk % per_image_ * each_) * cols(); }
  Share rows_of(Index chunk) const {
    const Index within = chunk % per_image_;
    return {within * each_, within * each_ + rows(within)};
  }
  Block block(Index chunk) const { return {rows(chunk % per_image_), cols(), cols()}; }

  // Groups of an image: their columns in the first of the folds.
  Share columns(Share groups) const {
    const Index each = shape_.per_group() * shape_.inner, first = groups.begin % shape_.groups * each;
    return {first, first + (groups.end - groups.begin) * each};
  }
  Share columns(Index group) const { return columns(Share{group, group + 1}); }
  // A group: where it starts, its elements, and where a mask has them.
  Index start(Index group) const { return group / shape_.groups * shape_.outer * width_ + columns(group).begin; }
  Runs runs() const { return {shape_.outer, width_, shape_.per_group() * shape_.inner}; }
  Where where(const DenseMask& mask, Index group) const { return at_element(mask.rows(width_), start(group), width_); }

  // From one value for each channel of some columns, which come first, to one for each column in each of the folds, and
  // for a line of columns more, by which rows may be shifted.
  Index spread_cols() const { return cols() + line_elements<T>; }
  template <class V>
  void spread(V* values, Share columns) const {
    const Index count = columns.end - columns.begin;
    if (shape_.inner > 1)
      for (Index c = count / shape_.inner; c-- > 0;) std::fill_n(values + c * shape_.inner, shape_.inner, values[c]);
    for (Index first = width_; first + columns.begin < spread_cols(); first += width_)
      std::copy_n(values, std::min(count, spread_cols() - first - columns.begin), values + first);
  }
  // visit(columns) for such columns in each of the folds.
  template <class F>
  void each_fold(Share columns, F&& visit) const {
    for (Index first = 0; first < cols(); first += width_) visit(Share{first + columns.begin, first + columns.end});
  }

 private:
  GroupShape shape_;
  Index width_, fold_ = 1, rows_, each_, per_image_;
};

// body(part, wait): members take whole images where there are enough for all, one after the other, so that the sweep
// that follows finds in the near caches what the first has read, and nobody waits; else they share everything.
struct Part {
  Share chunks, groups;  // counted through the batch
  Index groups_each;     // of an image

  // visit(image, its groups among these)
  template <class F>
  void each_image(F&& visit) const {
    for (Index begin = groups.begin; begin < groups.end;) {
      const Index image = begin / groups_each, end = std::min(groups.end, (image + 1) * groups_each);
      visit(image, Share{begin, end});
      begin = end;
    }
  }
};
template <class T, class F>
void each_part(const Team& team, const GroupShape& shape, const ImageChunks<T>& chunks, F&& body) {
  const Index each = chunks.per_image();
  if (shape.batch % team.size == 0 || shape.batch >= 8 * team.size) {
    const Share images = team.share(shape.batch);
    for (Index image = images.begin; image < images.end; ++image)
      body(Part{{image * each, (image + 1) * each}, {image * shape.groups, (image + 1) * shape.groups}, shape.groups},
           [] {});
  } else {
    body(Part{team.share(chunks.count()), team.share(shape.batch * shape.groups), shape.groups},
         [&] { team.barrier(); });
  }
}

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
  // Puts the chunks of an image together, in some columns; then their groups can be asked for.
  void join(Index image, Share columns) const {
    const Index base = image * chunks_.per_image();
    double rows = static_cast<double>(chunks_.rows(0));
    for (Index chunk = 1; chunk < chunks_.per_image(); ++chunk) {
      const double more = static_cast<double>(chunks_.rows(chunk));
      chunks_.each_fold(columns, [&](Share some) {
        kernels<T>().merge_columns(sums(base, some.begin), rows, sums(base + chunk, some.begin), more,
                                   some.end - some.begin);
      });
      rows += more;
    }
  }
  Moments<T> of(Index group, Index image) const {
    const Index base = image * chunks_.per_image();
    const double rows = static_cast<double>(chunks_.all_rows());
    return merge<T>([&](auto&& visit) {
      chunks_.each_fold(chunks_.columns(group), [&](Share some) {
        for (Index col = some.begin; col < some.end; ++col)
          visit(BlockMoments{value(base, 0, col), value(base, 2, col), mask_.at ? *planes_.at(base, 4, col) : rows});
      });
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

// body(offset, block, first column, reach) for what a chunk writes to `to`: all of it, or, where groups of its image
// are done, the longest ranges of columns whose groups are not.
template <class T, class F>
void each_block(const ImageChunks<T>& chunks, Index groups, const bool* all_done, Index chunk, const T* to, Reach reach,
                F&& body) {
  const Index image = chunks.image(chunk), start = chunks.offset(image * chunks.per_image());
  const bool* done = all_done + image * groups;
  if (std::none_of(done, done + groups, [](bool one) { return one; }))
    return each_flat_block(
        to + start, chunks.cols(), chunks.all_rows(), chunks.all_rows() * chunks.cols(), chunks.rows_of(chunk), true,
        reach,
        [&](Index offset, const Block& block, Index col, Reach reached) { body(start + offset, block, col, reached); });
  for (Index group = 0; group < groups;) {
    Index end = group;
    while (end < groups && !done[end]) ++end;
    if (end > group)
      chunks.each_fold(chunks.columns(Share{group, end}), [&](Share some) {
        Block block = chunks.block(chunk);
        block.cols = some.end - some.begin;
        body(chunks.offset(chunk) + some.begin, block, some.begin, Reach::near);
      });
    group = end + 1;
  }
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
  const ColumnPlanes<R> planes(shape.batch, 3, chunks.spread_cols());
  const Scratch<bool> done(shape.batch * shape.groups);
  const auto finish = [&](Index group, Index image) {
    const Moments<T> found = moments.of(group, image);
    args.mean[group] = found.mean.hi;
    args.rstd[group] = found.rstd(args.eps);
    const Share columns = chunks.columns(group);
    const auto plane = [&](Index k) { return planes.at(image, k, columns.begin); };
    done[group] = !set_group_affine(args, group, found, plane(0), plane(1), plane(2));
    for (Index k = 0; k < 3; ++k) chunks.spread(plane(k), columns);
    if (done[group]) careful_group(args, group, chunks.start(group), chunks.runs(), chunks.where(mask, group));
  };
  const auto apply = [&](Index chunk) {
    const Index image = chunks.image(chunk);
    each_block(chunks, shape.groups, done.data(), chunk, args.y, args.reach,
               [&](Index at, const Block& block, Index col, Reach reach) {
                 kernels<T>().column_affine(
                     args.x + at, args.y + at, block,
                     {planes.at(image, 0, col), planes.at(image, 1, col), planes.at(image, 2, col)},
                     from(args.fusion, at), reach);
               });
  };
  parallel(threads, [&](const Team& team) {
    each_part(team, shape, chunks, [&](const Part& part, auto&& wait) {
      for (Index chunk = part.chunks.begin; chunk < part.chunks.end; ++chunk) moments.compute(args.x, chunk);
      wait();
      part.each_image([&](Index image, Share groups) {
        moments.join(image, chunks.columns(groups));
        for (Index group = groups.begin; group < groups.end; ++group) finish(group, image);
      });
      wait();
      for (Index chunk = part.chunks.end; chunk-- > part.chunks.begin;) apply(chunk);
    });
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
  const ColumnPlanes<R> planes(shape.batch, 5, chunks.spread_cols());
  const Scratch<bool> done(shape.batch * shape.groups);
  const ParameterGradients<T> parameters(shape);
  const Reach reach = args.where.at ? std::min(args.reach, Reach::far) : args.reach;
  const auto set_mean = [&](Index group, Sum mean) {
    const Index image = group / shape.groups;
    chunks.each_fold(chunks.columns(group), [&](Share some) {
      std::fill(means.at(image, 0, some.begin), means.at(image, 0, some.end), mean.hi);
      std::fill(means.at(image, 1, some.begin), means.at(image, 1, some.end), mean.lo);
    });
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
  const auto join = [&](Index image, Share columns) {
    const Index base = image * chunks.per_image();
    for (Index chunk = 1; chunk < chunks.per_image(); ++chunk)
      chunks.each_fold(columns, [&](Share some) {
        kernels<T>().add_columns(sums_at(base, some.begin), sums_at(base + chunk, some.begin), some.end - some.begin);
      });
  };
  const auto finish = [&](Index group, Index image) {
    const Index base = image * chunks.per_image(), channel = first_channel(shape, group);
    const Share columns = chunks.columns(group);
    const auto value = [&](Index plane, Index col) {
      return Sum{*sums.at(base, plane, col), is_double<T> ? *sums.at(base, plane + 1, col) : 0.0};
    };
    W g = 0.0, gd = 0.0;
    for (Index c = 0; c < shape.per_group(); ++c) {
      ChannelSums<T> total;
      chunks.each_fold({columns.begin + c * inner, columns.begin + (c + 1) * inner}, [&](Share some) {
        for (Index col = some.begin; col < some.end; ++col) total.add({value(0, col), value(2, col)});
      });
      parameters.set(image, channel + c, sum_of(total.gd * W(args.rstd[group])), sum_of(total.g));
      const W weight = weight_of(args.weight, channel + c);
      g += weight * total.g;
      gd += weight * total.gd;
    }
    const Index start = chunks.start(group);
    const Where where = chunks.where(mask, group);
    const double count = static_cast<double>(active_kernels().masks.count(chunks.runs(), where));
    const Sum mean{*means.at(image, 0, columns.begin), *means.at(image, 1, columns.begin)};
    const GradientAffine<R> gradient = group_gradient<T>(mean, args.rstd[group], count, g, gd);
    done[group] = !group_gradient_fits(args, group, gradient, start, chunks.runs());
    if (done[group]) return careful_group_gradients(args, group, start, chunks.runs(), where, parameters);
    const R values[] = {gradient.center, gradient.scale, gradient.dy_center, gradient.dy_scale};
    const auto plane = [&](Index k) { return planes.at(image, k, columns.begin); };
    for (Index k = 0; k < 4; ++k) std::fill_n(plane(k), shape.per_group(), values[k]);
    if (args.weight) std::copy_n(args.weight + channel, shape.per_group(), plane(4));
    for (Index k = 0; k < (args.weight ? 5 : 4); ++k) chunks.spread(plane(k), columns);
  };
  const auto apply = [&](Index chunk) {
    const Index image = chunks.image(chunk);
    each_block(chunks, shape.groups, done.data(), chunk, args.dx, reach,
               [&](Index at, const Block& block, Index col, Reach reached) {
                 const auto plane = [&](Index k) { return planes.at(image, k, col); };
                 kernels<T>().column_gradient_affine(
                     args.dy + at, args.x + at, args.dx + at, block,
                     {plane(0), plane(1), plane(2), plane(3), args.weight ? plane(4) : nullptr},
                     Passage{from(args.active, at)}, at_element(mask.rows(cols), at, cols), reached);
               });
  };
  for (Index group = 0; group < shape.batch * shape.groups; ++group) set_mean(group, {args.mean[group], 0.0});
  parallel(threads, [&](const Team& team) {
    each_part(team, shape, chunks, [&](const Part& part, auto&& wait) {
      if (refines) {
        for (Index chunk = part.chunks.begin; chunk < part.chunks.end; ++chunk) moments.compute(args.x, chunk);
        wait();
        part.each_image([&](Index image, Share groups) {
          moments.join(image, chunks.columns(groups));
          for (Index group = groups.begin; group < groups.end; ++group)
            set_mean(group, refine_mean(args.mean[group], moments.of(group, image).mean));
        });
        wait();
      }
      for (Index chunk = part.chunks.begin; chunk < part.chunks.end; ++chunk) compute(chunk);
      wait();
      part.each_image([&](Index image, Share groups) {
        join(image, chunks.columns(groups));
        for (Index group = groups.begin; group < groups.end; ++group) finish(group, image);
      });
      wait();
      for (Index chunk = part.chunks.end; chunk-- > part.chunks.begin;) apply(chunk);
    });
    team.barrier();
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
