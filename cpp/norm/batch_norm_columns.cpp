// Batch norm where a channel's elements lie apart (NC, NHWC, short inner axes): the array is a matrix whose columns
// belong to channels, and the kernels keep a strip of columns in registers while they walk down the rows.
//
// A matrix of few columns (C = 3, 24, 40) is folded: several rows side by side make one wider row, so that vectors are
// full; the columns of a channel are merged like any other blocks.
#include <algorithm>
#include <atomic>
#include <numeric>

#include "norm/batch_norm.hpp"
#include "norm/channels.hpp"
#include "norm/dispatch.hpp"
#include "norm/flat_rows.hpp"
#include "norm/scratch.hpp"
#include "norm/threads.hpp"

namespace normkit {
namespace {

// The matrix cut into chunks of rows, whose sums are put together in order. The cut depends on the shape alone: it
// decides the bits.
template <class T>
class Matrix {
 public:
  // Rows that a mask takes or leaves stay apart.
  Matrix(const ChannelShape& shape, bool where_rows_count) : shape_(shape), width_(shape.channels * shape.inner) {
    // Rows side by side until vectors are full, and end where rows end.
    constexpr Index full = 64, line = 16, widest = 4096;
    const Index step = line / std::gcd(width_, line), wanted = (full / width_ + step) / step * step;
    const bool folds = (width_ < full || step > 1) && wanted * width_ <= widest && shape.outer >= 2 * wanted;
    if (folds && !where_rows_count) fold_ = wanted;
    cols_ = fold_ * width_;
    rows_ = shape.outer / fold_;
    rest_ = shape.outer % fold_;
    // Eight chunks where there are rows for them, for as many threads; but putting a chunk's sums together costs as
    // much as some rows do.
    constexpr Index least_rows = 32, chunk_bytes = 256 << 10;
    const Index fitting = std::min(chunk_bytes / (cols_ * static_cast<Index>(sizeof(T))), (rows_ + 7) / 8);
    rows_each_ = (std::max({least_rows, fitting, (rows_ + most_chunks - 1) / most_chunks}) + 7) / 8 * 8;
    chunks_ = (rows_ + rows_each_ - 1) / rows_each_;
  }

  const ChannelShape& shape() const { return shape_; }
  Index cols() const { return cols_; }
  Index width() const { return width_; }
  Index chunks() const { return chunks_; }
  Index fold() const { return fold_; }
  Index rest() const { return rest_; }  // rows that are left over by folding: they make a shorter last row
  Index first_row(Index chunk) const { return chunk * rows_each_; }
  Index rows(Index chunk) const { return std::min(rows_each_, rows_ - chunk * rows_each_); }
  Index all_rows() const { return rows_; }

  // visit(fold, first, count) for the columns of some channels, one visit for each fold.
  template <class F>
  void each_fold(Share channels, F&& visit) const {
    for (Index fold = 0; fold < fold_; ++fold)
      visit(fold, fold * width_ + channels.begin * shape_.inner, (channels.end - channels.begin) * shape_.inner);
  }
  // visit(fold, column) for the columns of a channel.
  template <class F>
  void each_column(Index channel, F&& visit) const {
    for (Index fold = 0; fold < fold_; ++fold)
      for (Index i = 0; i < shape_.inner; ++i) visit(fold, fold * width_ + channel * shape_.inner + i);
  }
  bool columns_are_channels() const { return fold_ == 1 && shape_.inner == 1; }
  Runs channel_runs() const { return {shape_.outer, width_, shape_.inner}; }
  Index channel_offset(Index channel) const { return channel * shape_.inner; }

 private:
  static constexpr Index most_chunks = 256;
  ChannelShape shape_;
  Index width_, fold_ = 1, cols_, rows_, rest_, rows_each_, chunks_;
};

// first(chunk, columns), finish(channels), second(rows): chunks are shared among the threads, channels between the two
// sweeps; of fewer chunks than threads the columns are shared, for the second sweep the rows. Memory is read from front
// to back. (Slabs of channels, each a thread's own, would find in the cache at the second
// sweep what the first has read; they were slower at every size: rows come in pieces that the processor does not
// foresee.)
template <class T, class First, class Finish, class Second>
void sweep_columns(const Team& team, const Matrix<T>& matrix, First&& first, Finish&& finish, Second&& second) {
  const Index cols = matrix.cols();
  const bool by_chunks = matrix.chunks() >= team.size;
  const Share mine = by_chunks ? team.share(matrix.chunks()) : Share{0, matrix.chunks()};
  constexpr Index strip = 64;
  const Share strips = team.share((cols + strip - 1) / strip);
  const Share columns = by_chunks ? Share{0, cols} : Share{strips.begin * strip, std::min(strips.end * strip, cols)};
  if (columns.begin < columns.end)
    for (Index chunk = mine.begin; chunk < mine.end; ++chunk) first(chunk, columns);
  team.barrier();
  finish(team.share(matrix.shape().channels));
  team.barrier();
  if (!by_chunks) return second(team.share(matrix.all_rows()));
  for (Index chunk = mine.end; chunk-- > mine.begin;)
    second(Share{matrix.first_row(chunk), matrix.first_row(chunk) + matrix.rows(chunk)});
}

// Where some columns of some rows start, and their shape. The rest of a folded matrix is one shorter row that comes
// with the last ones.
struct Piece {
  Index offset;
  Block block;
};
template <class T>
Piece piece_of(const Matrix<T>& matrix, Share rows, Share columns) {
  const Index cols = matrix.cols();
  return {rows.begin * cols + columns.begin, {rows.end - rows.begin, cols, columns.end - columns.begin}};
}
template <class T, class F>
void rest_piece(const Matrix<T>& matrix, Share columns, F&& body) {
  columns.end = std::min(columns.end, matrix.rest() * matrix.width());
  if (columns.begin >= columns.end) return;
  const Index row = matrix.all_rows();
  body(piece_of(matrix, {row, row + 1}, columns));
}
// body(piece, chunk) for some columns of a chunk, and for those of the rest, whose sums stand after the last chunk's.
template <class T, class F>
void each_piece(const Matrix<T>& matrix, Index chunk, Share columns, F&& body) {
  const Index first = matrix.first_row(chunk);
  body(piece_of(matrix, {first, first + matrix.rows(chunk)}, columns), chunk);
  if (chunk + 1 == matrix.chunks())
    rest_piece(matrix, columns, [&](const Piece& rest) { body(rest, matrix.chunks()); });
}

// Planes of doubles for every chunk, and one more set for the rest of a folded matrix.
template <class T>
class Planes {
 public:
  static constexpr Index count = 2 * accumulator_planes<T>;
  Planes(const Matrix<T>& matrix, bool needed)
      : cols_(matrix.cols()), values_(needed ? count * (matrix.chunks() + 1) * matrix.cols() : 0) {}
  // The planes of float data have no low part: hi stands in for it.
  double* hi(Index chunk, Index which, Index col) const {
    return values_.data() + (chunk * count + which * accumulator_planes<T>)*cols_ + col;
  }
  double* lo(Index chunk, Index which, Index col) const {
    return hi(chunk, which, col) + (accumulator_planes<T> - 1) * cols_;
  }
  Sum value(Index chunk, Index which, Index col) const {
    return {*hi(chunk, which, col), is_double<T> ? *lo(chunk, which, col) : 0.0};
  }

 private:
  Index cols_;
  Scratch<double> values_;
};

// Which elements of the matrix count: whole rows, or a byte for each element. A mask of another form, which some axes
// share beside short inner axes, is written out.
template <class T>
class MatrixMask {
 public:
  MatrixMask(const Matrix<T>& matrix, Where where)
      : cols_(matrix.cols()), where_(where), written_(is_other(matrix.shape(), where) ? matrix.shape().size() : 0) {
    const auto& [outer, channels, inner] = matrix.shape();
    if (!where.at || is_whole_rows(where)) return;
    where_ = {where.at, cols_, 0, 1};
    if (!is_other(matrix.shape(), where)) return;
    std::uint8_t* to = written_.data();
    where_.at = to;
    for (Index o = 0; o < outer; ++o)
      for (Index c = 0; c < channels; ++c)
        for (Index i = 0; i < inner; ++i) *to++ = *from(where, o, c, i).at;
  }
  static bool is_whole_rows(Where where) { return where.at && where.channel == 0 && where.inner == 0; }

  // From an element of the matrix on; of whole rows, from its row on.
  Where at(Index offset) const { return from(where_, offset / cols_, 0, offset % cols_); }
  explicit operator bool() const { return where_.at != nullptr; }

 private:
  static bool is_other(const ChannelShape& shape, Where where) {
    const auto& [outer, channels, inner] = shape;
    const bool dense = (outer == 1 || where.outer == channels * inner) && (channels == 1 || where.channel == inner) &&
                       (inner == 1 || where.inner == 1);
    return where.at && !is_whole_rows(where) && !dense;
  }
  Index cols_;
  Where where_;
  Scratch<std::uint8_t> written_;
};

template <class T>
class MatrixMoments {
 public:
  MatrixMoments(const Matrix<T>& matrix, const MatrixMask<T>& mask, bool needed)
      : matrix_(matrix),
        mask_(mask),
        planes_(matrix, needed),
        counts_(mask && needed ? (matrix.chunks() + 1) * matrix.cols() : 0) {}

  void compute(const T* x, Index chunk, Share columns) const {
    each_piece(matrix_, chunk, columns, [&](const Piece& piece, Index set) {
      kernels<T>().column_moments(x + piece.offset, piece.block, mask_.at(piece.offset), at(set, columns.begin));
    });
  }

  // Puts the chunks of some channels together; then their moments can be asked for.
  void join(Share channels) const {
    matrix_.each_fold(channels, [&](Index fold, Index first, Index count) {
      double rows = static_cast<double>(matrix_.rows(0));
      const auto take = [&](Index chunk, Index more) {
        kernels<T>().merge_columns(at(0, first), rows, at(chunk, first), static_cast<double>(more), count);
        rows += static_cast<double>(more);
      };
      for (Index chunk = 1; chunk < matrix_.chunks(); ++chunk) take(chunk, matrix_.rows(chunk));
      if (fold < matrix_.rest()) take(matrix_.chunks(), 1);
    });
  }
  Moments<T> moments(Index channel) const {
    return merge<T>([&](auto&& block) {
      matrix_.each_column(channel, [&](Index fold, Index col) {
        const Index rows = matrix_.all_rows() + (fold < matrix_.rest() ? 1 : 0);
        block(BlockMoments{planes_.value(0, 0, col), planes_.value(0, 1, col),
                           mask_ ? counts_[col] : static_cast<double>(rows)});
      });
    });
  }
  // Of float data, where columns are channels.
  void store(Share channels, const BatchNormForward<T>& args) const {
    const double *means = planes_.hi(0, 0, 0), *squares = planes_.hi(0, 1, 0);
    for (Index c = channels.begin; c < channels.end; ++c) {
      const double count = mask_ ? counts_[c] : samples_of(matrix_.shape());
      args.mean[c] = means[c];
      args.var[c] = squares[c] / std::max(count, 1.0);
      if (mask_) args.samples[c] = count;
    }
  }

 private:
  ColumnMoments at(Index chunk, Index col) const {
    return {planes_.hi(chunk, 0, col), planes_.lo(chunk, 0, col), planes_.hi(chunk, 1, col), planes_.lo(chunk, 1, col),
            mask_ ? counts_.data() + chunk * matrix_.cols() + col : nullptr};
  }
  const Matrix<T>& matrix_;
  const MatrixMask<T>& mask_;
  Planes<T> planes_;
  Scratch<double> counts_;
};

// Σ dy and Σ dy·(x − mean) of every channel.
template <class T>
class MatrixGradientSums {
 public:
  explicit MatrixGradientSums(const Matrix<T>& matrix)
      : matrix_(matrix), planes_(matrix, true), means_(2 * matrix.cols()) {}

  void set_means(const double* mean) const {
    const Index channels = matrix_.shape().channels;
    if (matrix_.columns_are_channels()) {
      std::copy(mean, mean + channels, means_.data());
      std::fill_n(means_.data() + channels, channels, 0.0);
    } else {
      for (Index channel = 0; channel < channels; ++channel) set_mean(channel, {mean[channel], 0.0});
    }
  }
  void set_mean(Index channel, Sum mean) const {
    matrix_.each_fold({channel, channel + 1}, [&](Index, Index first, Index count) {
      std::fill_n(means_.data() + first, count, mean.hi);
      std::fill_n(means_.data() + matrix_.cols() + first, count, mean.lo);
    });
  }
  Sum mean(Index channel) const {
    const Index col = matrix_.channel_offset(channel);
    return {means_[col], means_[matrix_.cols() + col]};
  }

  // given: the arguments before from_residual
  void compute(const BatchNormBackward<T>& args, const BatchNormBackward<T>& given, Index chunk, Share columns) const {
    const double* mean = means_.data() + columns.begin;
    each_piece(matrix_, chunk, columns, [&](const Piece& piece, Index set) {
      const Index first = piece.offset;
      if (args.dresidual)
        kernels<T>().active_gradients(given.dy + first, args.dresidual + first,
                                      {piece.block.rows, piece.block.stride, piece.block.cols}, 1,
                                      from(given.active, first));
      kernels<T>().column_gradient_sums(args.dy + first, args.x + first, piece.block, {mean, mean + matrix_.cols()},
                                        passage_of(args, first), at(set, columns.begin));
    });
  }

  // Puts the chunks of some channels together; then their sums can be asked for.
  void join(Share channels) const {
    matrix_.each_fold(channels, [&](Index fold, Index first, Index count) {
      for (Index chunk = 1; chunk < matrix_.chunks(); ++chunk)
        kernels<T>().add_columns(at(0, first), at(chunk, first), count);
      if (fold < matrix_.rest()) kernels<T>().add_columns(at(0, first), at(matrix_.chunks(), first), count);
    });
  }
  ChannelSums<T> sums(Index channel) const {
    ChannelSums<T> total;
    matrix_.each_column(channel,
                        [&](Index, Index col) { total.add({planes_.value(0, 0, col), planes_.value(0, 1, col)}); });
    return total;
  }
  // Where the sums of all channels stand one after the other, which is where columns are channels.
  const double* g() const { return planes_.hi(0, 0, 0); }
  const double* gd() const { return planes_.hi(0, 1, 0); }

 private:
  ColumnGradientSums at(Index chunk, Index col) const {
    return {planes_.hi(chunk, 0, col), planes_.lo(chunk, 0, col), planes_.hi(chunk, 1, col), planes_.lo(chunk, 1, col)};
  }
  const Matrix<T>& matrix_;
  Planes<T> planes_;
  Scratch<double> means_;
};

// Coefficients spread over the columns, in planes: those of Affine, or those of GradientAffine. Columns without any
// belong to channels that were computed in a wider type. Every plane holds its columns twice, so that a row may be
// taken to begin at any of them.
template <class T>
class Coefficients {
 public:
  explicit Coefficients(const Matrix<T>& matrix)
      : matrix_(matrix), planes_(4 * 2 * matrix.cols()), has_any_(matrix.cols()) {}

  void set(Index channel, const Affine<Real<T>>& value) const {
    set(channel, GradientAffine<Real<T>>{value.center, value.scale, value.shift, 0});
  }
  void set(Index channel, const GradientAffine<Real<T>>& value) const {
    const Real<T> parts[] = {value.center, value.scale, value.dy_center, value.dy_scale};
    matrix_.each_column(channel, [&](Index, Index col) {
      has_any_[col] = true;
      for (Index which = 0; which < 4; ++which) plane(which)[col] = plane(which)[matrix_.cols() + col] = parts[which];
    });
  }
  // The same for some channels at once, where columns are channels: fill(planes...) computes what set would be given.
  // Returns what fill does: whether none of them has to be looked at.
  template <class F>
  bool set(Share channels, F&& fill) const {
    const bool fit = fill(plane(0), plane(1), plane(2), plane(3));
    std::fill(has_any_.data() + channels.begin, has_any_.data() + channels.end, true);
    for (Index which = 0; which < 4; ++which)
      std::copy(plane(which) + channels.begin, plane(which) + channels.end,
                plane(which) + matrix_.cols() + channels.begin);
    return fit;
  }
  GradientAffine<Real<T>> get(Index channel) const {
    const Index col = matrix_.channel_offset(channel);
    return {plane(0)[col], plane(1)[col], plane(2)[col], plane(3)[col]};
  }
  void leave_out(Index channel) {
    complete_ = false;
    matrix_.each_column(channel, [&](Index, Index col) { has_any_[col] = false; });
  }
  bool complete() const { return complete_; }

  AffineColumns<Real<T>> affine(Index first_col) const {
    return {plane(0) + first_col, plane(1) + first_col, plane(2) + first_col};
  }
  GradientAffineColumns<Real<T>> gradient(Index first_col) const {
    return {plane(0) + first_col, plane(1) + first_col, plane(2) + first_col, plane(3) + first_col};
  }

  // body(offset, block, first column, reach) for what some rows write to `to`, in blocks whose rows begin at a column.
  template <class F>
  void each_block(const T* to, Share rows, bool shifts, Reach reach, F&& body) const {
    if (rows.begin >= rows.end) return;
    if (complete_)
      return each_flat_block(to, matrix_.cols(), matrix_.all_rows(), matrix_.shape().size(), rows, shifts, reach, body);
    const auto part = [&](const Piece& piece) {
      for (Index begin = 0; begin < piece.block.cols;) {
        Index stop = begin;
        while (stop < piece.block.cols && has_any_[stop]) ++stop;
        if (stop > begin)
          body(piece.offset + begin, Block{piece.block.rows, piece.block.stride, stop - begin}, begin, Reach::near);
        begin = stop + 1;
      }
    };
    const Share columns{0, matrix_.cols()};
    part(piece_of(matrix_, rows, columns));
    if (rows.end == matrix_.all_rows()) rest_piece(matrix_, columns, part);
  }

 private:
  Real<T>* plane(Index which) const { return planes_.data() + which * 2 * matrix_.cols(); }

  const Matrix<T>& matrix_;
  Scratch<Real<T>> planes_;
  Scratch<bool> has_any_;
  std::atomic<bool> complete_{true};
};

}  // namespace

template <class T>
void forward_by_columns(const BatchNormForward<T>& args, bool training, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const Matrix<T> matrix(args.shape, MatrixMask<T>::is_whole_rows(args.where));
  const MatrixMask<T> mask(matrix, args.where);
  const MatrixMoments<T> moments(matrix, mask, training);
  Coefficients<T> coefficients(matrix);
  const auto statistics = [&](Index chunk, Share columns) {
    if (training) moments.compute(args.x, chunk, columns);
  };
  const auto careful = [&](Index channel) {
    const Index first = matrix.channel_offset(channel);
    careful_channel(args, channel, args.x + first, args.y ? args.y + first : nullptr, matrix.channel_runs(), training);
    coefficients.leave_out(channel);
  };
  const auto finish = [&](Share channels) {
    if (training) moments.join(channels);
    if constexpr (!is_double<T>)
      if (matrix.columns_are_channels()) {
        if (training) moments.store(channels, args);
        const bool fit = coefficients.set(channels, [&](float* center, float* scale, float* shift, float*) {
          return active_kernels().channels.affines(
              {args.mean, args.var, args.weight, args.bias, args.eps, args.rstd, center, scale, shift}, channels.begin,
              channels.end);
        });
        if (fit && !mask) return;
        for (Index channel = channels.begin; channel < channels.end; ++channel)
          if (!channel_fits(args, channel)) careful(channel);
        return;
      }
    for (Index channel = channels.begin; channel < channels.end; ++channel) {
      const Moments<T> found = training
                                   ? moments.moments(channel)
                                   : Moments<T>{{args.mean[channel], 0.0}, args.var[channel], samples_of(args.shape)};
      if (channel_fits(args, channel, found))
        coefficients.set(channel, channel_affine(args, channel, found));
      else
        careful(channel);
    }
  };
  const auto apply = [&](Share rows) {
    if (args.y == nullptr) return;
    coefficients.each_block(args.y, rows, true, args.reach,
                            [&](Index offset, const Block& block, Index first_col, Reach reach) {
                              kernel.column_affine(args.x + offset, args.y + offset, block,
                                                   coefficients.affine(first_col), from(args.fusion, offset), reach);
                            });
  };
  parallel(threads, [&](const Team& team) { sweep_columns(team, matrix, statistics, finish, apply); });
}

template <class T>
void backward_by_columns(const BatchNormBackward<T>& given, bool training, int threads) {
  const BatchNormBackward<T> args = from_residual(given);
  const bool refines = is_double<T> && training && !args.from_output, takes_x = training || args.slope != 1.0;
  const Kernels<T>& kernel = kernels<T>();
  const Matrix<T> matrix(args.shape, MatrixMask<T>::is_whole_rows(args.where));
  const MatrixMask<T> mask(matrix, args.where);
  const MatrixMoments<T> moments(matrix, mask, refines);
  const MatrixGradientSums<T> sums(matrix);
  Coefficients<T> coefficients(matrix);
  const bool at_once = !is_double<T> && matrix.columns_are_channels() && !mask;
  const auto refine = [&](Share channels) {
    moments.join(channels);
    for (Index channel = channels.begin; channel < channels.end; ++channel)
      sums.set_mean(channel, refine_mean(args.mean[channel], moments.moments(channel).mean));
  };
  const auto set = [&](Index channel, const GradientAffine<Real<T>>& gradient) {
    const Index first = matrix.channel_offset(channel);
    if (!gradient_fits(args, channel, gradient, first, matrix.channel_runs())) {
      careful_channel_gradients(args, channel, first, matrix.channel_runs(), training);
      coefficients.leave_out(channel);
    } else if (!takes_x) {
      coefficients.set(channel, Affine<Real<T>>{0, gradient.dy_scale, 0});
    } else if (!training) {
      coefficients.set(channel, of_constants<T>(gradient));
    } else if (!at_once) {
      coefficients.set(channel, gradient);
    }
  };
  const auto finish = [&](Share channels) {
    sums.join(channels);
    if constexpr (!is_double<T>)
      if (at_once) {
        const auto fill = [&](float* center, float* scale, float* dy_center, float* dy_scale) {
          return active_kernels().channels.gradients(
              {args.mean, args.rstd, sums.g(), sums.gd(), args.weight, samples_of(args.shape), args.dweight, args.dbias,
               center, scale, dy_center, dy_scale},
              channels.begin, channels.end);
        };
        const bool fit = coefficients.set(channels, fill);
        if (training && fit) return;
        for (Index channel = channels.begin; channel < channels.end; ++channel) set(channel, coefficients.get(channel));
        return;
      }
    for (Index channel = channels.begin; channel < channels.end; ++channel)
      set(channel, channel_gradient(args, channel, sums.mean(channel), sums.sums(channel)));
  };
  const auto apply = [&](Share rows) {
    // A mask of the gradient goes by whole rows.
    coefficients.each_block(
        args.dx, rows, !mask, args.reach, [&](Index offset, const Block& block, Index first_col, Reach reach) {
          const T* dy = args.dy + offset;
          T* dx = args.dx + offset;
          const Passage passage = passage_of(args, offset);
          if (takes_x) {
            kernel.column_gradient_affine(dy, args.x + offset, dx, block, coefficients.gradient(first_col), passage,
                                          mask.at(offset), reach);
          } else if (passage.active.at) {
            kernel.active_gradients(dy, dx, {block.rows, block.stride, block.cols}, 1, passage.active);
            kernel.column_affine(dx, dx, block, coefficients.affine(first_col), {}, Reach::near);
          } else {
            kernel.column_affine(dy, dx, block, coefficients.affine(first_col), {}, reach);
          }
        });
  };
  sums.set_means(args.mean);
  parallel(threads, [&](const Team& team) {
    if (refines) {
      sweep_columns(
          team, matrix, [&](Index chunk, Share columns) { moments.compute(args.x, chunk, columns); }, refine,
          [](Share) {});
      team.barrier();
    }
    sweep_columns(
        team, matrix, [&](Index chunk, Share columns) { sums.compute(args, given, chunk, columns); }, finish, apply);
  });
}

template void forward_by_columns(const BatchNormForward<float>&, bool, int);
template void forward_by_columns(const BatchNormForward<double>&, bool, int);
template void forward_by_columns(const BatchNormForward<BFloat16>&, bool, int);
template void forward_by_columns(const BatchNormForward<Float16>&, bool, int);
template void backward_by_columns(const BatchNormBackward<float>&, bool, int);
template void backward_by_columns(const BatchNormBackward<double>&, bool, int);
template void backward_by_columns(const BatchNormBackward<BFloat16>&, bool, int);
template void backward_by_columns(const BatchNormBackward<Float16>&, bool, int);

}  // namespace normkit
