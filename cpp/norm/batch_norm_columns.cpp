// Batch norm where a channel's elements lie apart (NC, NHWC, short inner axes): the array is a matrix whose columns
// belong to channels, and the kernels keep a strip of columns in registers while they walk down the rows.
//
// A matrix of few columns (C = 3, 24, 40) is folded: several rows side by side make one wider row, so that vectors are
// full; the columns of a channel are merged like any other blocks.
#include <algorithm>
#include <numeric>

#include "norm/batch_norm.hpp"
#include "norm/channels.hpp"
#include "norm/dispatch.hpp"
#include "norm/sweeps.hpp"

namespace normkit {
namespace {

// A part of the matrix: where it starts, and the first of the (folded) columns it covers.
struct Piece {
  Index offset, first_col;
  Block block;
};

// The matrix cut into slabs of columns (whole channels) and chunks of rows, by its shape alone.
template <class T>
class Matrix {
 public:
  explicit Matrix(const ChannelShape& shape) : shape_(shape), width_(shape.channels * shape.inner) {
    constexpr Index full = 64, line = 16;
    if (width_ < full) {
      const Index step = line / std::gcd(width_, line);
      const Index wanted = (full / width_ + step) / step * step;
      if (shape.outer >= 2 * wanted) fold_ = wanted;
    }
    cols_ = fold_ * width_;
    slab_channels_ = fold_ > 1 ? shape.channels : std::max<Index>(1, slab_cols / shape.inner);
    const Index rows = shape.outer / fold_, row_bytes = cols_ * static_cast<Index>(sizeof(T));
    const Index fitting = std::max(chunk_bytes / row_bytes, (rows + most_chunks - 1) / most_chunks);
    rows_each_ = std::max<Index>(16, (fitting + 15) / 16 * 16);
    row_chunks_ = (rows + rows_each_ - 1) / rows_each_;
    rest_ = shape.outer % fold_;
  }

  Index cols() const { return cols_; }
  Index slabs() const { return (shape_.channels + slab_channels_ - 1) / slab_channels_; }
  Index chunks() const { return row_chunks_ + (rest_ > 0 ? 1 : 0); }

  Share channels(Index slab) const {
    return {slab * slab_channels_, std::min(shape_.channels, (slab + 1) * slab_channels_)};
  }

  Piece piece(Index slab, Index chunk) const {
    const Share mine = channels(slab);
    const Index first = mine.begin * shape_.inner, cols = fold_ > 1 ? cols_ : (mine.end - mine.begin) * shape_.inner;
    const Index row = chunk * rows_each_, rows = shape_.outer / fold_;
    if (chunk == row_chunks_) return {rows * cols_, 0, {1, cols_, rest_ * width_}};
    return {row * cols_ + first, first, {std::min(rows_each_, rows - row), cols_, cols}};
  }

  // visit(column) for every column of a channel that a chunk has.
  template <class F>
  void each_column(Index channel, Index chunk, F&& visit) const {
    const Index folds = chunk == row_chunks_ ? rest_ : fold_;
    for (Index fold = 0; fold < folds; ++fold)
      for (Index i = 0; i < shape_.inner; ++i) visit(fold * width_ + channel * shape_.inner + i);
  }
  template <class F>
  void each_column(Index channel, F&& visit) const {
    for (Index fold = 0; fold < fold_; ++fold)
      for (Index i = 0; i < shape_.inner; ++i) visit(fold * width_ + channel * shape_.inner + i);
  }
  Index rows_of(Index chunk) const { return piece(0, chunk).block.rows; }
  Runs channel_runs() const { return {shape_.outer, width_, shape_.inner}; }
  Index channel_offset(Index channel) const { return channel * shape_.inner; }

 private:
  static constexpr Index chunk_bytes = 128 * 1024, most_chunks = 256, slab_cols = 256;
  ChannelShape shape_;
  Index width_, fold_ = 1, cols_, slab_channels_, rows_each_, row_chunks_, rest_;
};

// Moments of every column of every chunk, and of the channels they make up.
template <class T>
class MatrixMoments {
 public:
  explicit MatrixMoments(const Matrix<T>& matrix, bool needed)
      : matrix_(matrix), planes_(needed ? 4 * matrix.chunks() * matrix.cols() : 0) {}

  void compute(const T* x, Index slab, Index chunk) const {
    const Piece piece = matrix_.piece(slab, chunk);
    kernels<T>().column_moments(x + piece.offset, piece.block, at(chunk, piece.first_col));
  }

  Moments<T> channel(Index channel, Index count) const {
    return merge<T>(count, [&](auto&& visit) {
      for (Index chunk = 0; chunk < matrix_.chunks(); ++chunk) {
        const Index rows = matrix_.rows_of(chunk);
        matrix_.each_column(channel, chunk, [&](Index col) {
          const ColumnMoments column = at(chunk, col);
          visit(rows, BlockMoments{{*column.mean, *column.mean_lo}, {*column.m2, *column.m2_lo}});
        });
      }
    });
  }

 private:
  ColumnMoments at(Index chunk, Index col) const {
    const Index cols = matrix_.cols();
    double* first = planes_.data() + 4 * chunk * cols + col;
    return {first, first + cols, first + 2 * cols, first + 3 * cols};
  }

  const Matrix<T>& matrix_;
  Scratch<double> planes_;
};

// Coefficients spread over the columns, in planes: those of Affine, or those of GradientAffine. Columns without any
// belong to channels that were computed in a wider type.
template <class T>
class Coefficients {
 public:
  explicit Coefficients(const Matrix<T>& matrix)
      : matrix_(matrix), planes_(4 * matrix.cols()), has_any_(matrix.cols()), complete_(matrix.slabs()) {
    std::fill(complete_.data(), complete_.data() + matrix.slabs(), true);
  }

  void set(Index channel, const Affine<T>& value) const {
    set(channel, GradientAffine<T>{value.center, value.scale, value.shift, 0});
  }
  void set(Index channel, const GradientAffine<T>& value) const {
    const Index cols = matrix_.cols();
    matrix_.each_column(channel, [&](Index col) {
      has_any_[col] = true;
      planes_[col] = value.center;
      planes_[cols + col] = value.scale;
      planes_[2 * cols + col] = value.dy_center;
      planes_[3 * cols + col] = value.dy_scale;
    });
  }
  void leave_out(Index slab, Index channel) const {
    complete_[slab] = false;
    matrix_.each_column(channel, [&](Index col) { has_any_[col] = false; });
  }

  // body(part) for the parts of a piece whose columns have coefficients.
  template <class F>
  void each_part(Index slab, const Piece& piece, F&& body) const {
    if (complete_[slab]) return body(piece);
    const Index end = piece.first_col + piece.block.cols;
    for (Index begin = piece.first_col; begin < end;) {
      Index stop = begin;
      while (stop < end && has_any_[stop]) ++stop;
      if (stop > begin)
        body(
            Piece{piece.offset + begin - piece.first_col, begin, {piece.block.rows, piece.block.stride, stop - begin}});
      begin = stop + 1;
    }
  }

  AffineColumns<T> affine(Index first_col) const {
    const T* p = planes_.data() + first_col;
    return {p, p + matrix_.cols(), p + 2 * matrix_.cols()};
  }
  GradientAffineColumns<T> gradient(Index first_col) const {
    const AffineColumns<T> a = affine(first_col);
    return {a.center, a.scale, a.shift, a.shift + matrix_.cols()};
  }

 private:
  const Matrix<T>& matrix_;
  Scratch<T> planes_;
  Scratch<bool> has_any_, complete_;
};

}  // namespace

template <class T>
void forward_by_columns(const BatchNormForward<T>& args, bool training, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const Matrix<T> matrix(args.shape);
  const MatrixMoments<T> moments(matrix, training);
  const Coefficients<T> coefficients(matrix);
  const auto statistics = [&](Index slab, Index chunk) {
    if (training) moments.compute(args.x, slab, chunk);
  };
  const auto finish = [&](Index slab) {
    const Share channels = matrix.channels(slab);
    for (Index channel = channels.begin; channel < channels.end; ++channel) {
      const Moments<T> merged = training ? moments.channel(channel, args.shape.per_channel())
                                         : Moments<T>{{args.mean[channel], 0.0}, args.var[channel]};
      if (channel_fits(args, channel, merged)) {
        coefficients.set(channel, channel_affine(args, channel, merged));
      } else {
        const Index first = matrix.channel_offset(channel);
        careful_channel(args, channel, args.x + first, args.y + first, matrix.channel_runs(), training);
        coefficients.leave_out(slab, channel);
      }
    }
  };
  const auto apply = [&](Index slab, Index chunk) {
    coefficients.each_part(slab, matrix.piece(slab, chunk), [&](const Piece& part) {
      kernel.column_affine(args.x + part.offset, args.y + part.offset, part.block, coefficients.affine(part.first_col));
    });
  };
  parallel(threads,
           [&](const Team& team) { two_sweeps(team, matrix.slabs(), matrix.chunks(), statistics, finish, apply); });
}

template <class T>
void backward_by_columns(const BatchNormBackward<T>& args, bool training, int threads) {
  constexpr bool refines = std::is_same_v<T, double>;
  const Kernels<T>& kernel = kernels<T>();
  const Matrix<T> matrix(args.shape);
  const Index cols = matrix.cols();
  const MatrixMoments<T> moments(matrix, refines && training);
  const Coefficients<T> coefficients(matrix);
  const Scratch<double> means(2 * cols), sums(4 * cols * matrix.chunks());
  const auto column_sums = [&](Index chunk, Index col) -> ColumnGradientSums {
    double* p = sums.data() + 4 * cols * chunk + col;
    return {p, p + cols, p + 2 * cols, p + 3 * cols};
  };
  const auto set_mean = [&](Index channel, Sum mean) {
    matrix.each_column(channel, [&](Index col) { means[col] = mean.hi, means[cols + col] = mean.lo; });
  };
  const auto mean_of = [&](Index channel) {
    const Index col = matrix.channel_offset(channel);
    return Sum{means[col], means[cols + col]};
  };
  const auto refine = [&](Index slab) {
    const Share channels = matrix.channels(slab);
    for (Index channel = channels.begin; channel < channels.end; ++channel)
      set_mean(channel, refine_mean(args.mean[channel], moments.channel(channel, args.shape.per_channel()).mean));
  };
  const auto gradient_sums = [&](Index slab, Index chunk) {
    const Piece piece = matrix.piece(slab, chunk);
    const double* mean = means.data() + piece.first_col;
    kernel.column_gradient_sums(args.dy + piece.offset, args.x + piece.offset, piece.block, {mean, mean + cols},
                                column_sums(chunk, piece.first_col));
  };
  const auto finish = [&](Index slab) {
    const Share channels = matrix.channels(slab);
    for (Index channel = channels.begin; channel < channels.end; ++channel) {
      ChannelSums<T> total;
      for (Index chunk = 0; chunk < matrix.chunks(); ++chunk)
        matrix.each_column(channel, chunk, [&](Index col) {
          const ColumnGradientSums at = column_sums(chunk, col);
          total.add({{*at.g, *at.g_lo}, {*at.gd, *at.gd_lo}});
        });
      const GradientAffine<T> gradient = channel_gradient(args, channel, mean_of(channel), total);
      if (!gradient_fits(args, channel, gradient)) {
        careful_channel_gradients(args, channel, matrix.channel_offset(channel), matrix.channel_runs(), training);
        coefficients.leave_out(slab, channel);
      } else if (training) {
        coefficients.set(channel, gradient);
      } else {
        coefficients.set(channel, Affine<T>{0, gradient.dy_scale, 0});
      }
    }
  };
  const auto apply = [&](Index slab, Index chunk) {
    coefficients.each_part(slab, matrix.piece(slab, chunk), [&](const Piece& part) {
      const T* dy = args.dy + part.offset;
      T* dx = args.dx + part.offset;
      if (training)
        kernel.column_gradient_affine(dy, args.x + part.offset, dx, part.block, coefficients.gradient(part.first_col));
      else
        kernel.column_affine(dy, dx, part.block, coefficients.affine(part.first_col));
    });
  };
  for (Index channel = 0; channel < args.shape.channels; ++channel) set_mean(channel, {args.mean[channel], 0.0});
  parallel(threads, [&](const Team& team) {
    if (refines && training) {
      two_sweeps(
          team, matrix.slabs(), matrix.chunks(), [&](Index slab, Index chunk) { moments.compute(args.x, slab, chunk); },
          refine, [](Index, Index) {});
      team.barrier();
    }
    two_sweeps(team, matrix.slabs(), matrix.chunks(), gradient_sums, finish, apply);
  });
}

template void forward_by_columns(const BatchNormForward<float>&, bool, int);
template void forward_by_columns(const BatchNormForward<double>&, bool, int);
template void backward_by_columns(const BatchNormBackward<float>&, bool, int);
template void backward_by_columns(const BatchNormBackward<double>&, bool, int);

}  // namespace normkit
