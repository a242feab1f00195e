// Layer norm and RMS norm on rows: statistics and x̂·weight + bias. x, y: (rows, cols).

namespace {

// x̂·weight + bias, with the parameters that there are.
template <bool has_weight, bool has_bias, class T>
NORMKIT_INLINE Vec<T> with_parameters(Vec<T> x_hat, Vec<T> weight, Vec<T> bias) {
  if constexpr (has_weight && has_bias) return fma(x_hat, weight, bias);
  if constexpr (has_weight) return x_hat * weight;
  if constexpr (has_bias) return x_hat + bias;
  return x_hat;
}
// body(Constant<has_weight>, Constant<has_bias>)
template <class R, class F>
NORMKIT_INLINE void with_parameter_flags(const R* weight, const R* bias, F&& body) {
  with_flag(weight != nullptr,
            [&](auto has_weight) { with_flag(bias != nullptr, [&](auto has_bias) { body(has_weight, has_bias); }); });
}

// y = A(x̂·weight + bias) for `rows` rows, `stride` apart, that share the loads of weight and bias. A stream
// fetches what lies `ahead`.
template <class A, bool has_weight, bool has_bias, bool stream, int rows, class T>
NORMKIT_INLINE void normalize_rows(const T* x, T* y, const Real<T>* weight, const Real<T>* bias, Index stride,
                                   Index cols, const Affine<Real<T>>* affine, Index ahead) {
  Vec<T> center[rows], scale[rows], shift[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    center[r] = broadcast(affine[r].center);
    scale[r] = broadcast(affine[r].scale);
    shift[r] = broadcast(affine[r].shift);
  }
  each_vector_of<stream>(y, cols, [&](Index i, auto n) {
    Vec<T> w = {}, b = {};
    if constexpr (has_weight) w = load(weight + i, n);
    if constexpr (has_bias) b = load(bias + i, n);
    Vec<T> v[rows];
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      fetch_beside_stream<stream>(x + r * stride + ahead, i);
      const Vec<T> x_hat = fma(load(x + r * stride + i, n) - center[r], scale[r], shift[r]);
      v[r] = A::template value<T>(with_parameters<has_weight, has_bias, T>(x_hat, w, b));
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) store<stream>(y + r * stride + i, v[r], n);
  });
}

template <class A, bool stream, int rows, class T>
NORMKIT_INLINE void normalize_rows(const T* x, T* y, const Real<T>* weight, const Real<T>* bias, Index stride,
                                   Index cols, const Affine<Real<T>>* affine, Index ahead) {
  with_parameter_flags(weight, bias, [&](auto has_weight, auto has_bias) {
    normalize_rows<A, has_weight.value, has_bias.value, stream, rows>(x, y, weight, bias, stride, cols, affine, ahead);
  });
}

template <class T>
void normalize_row(const LayerNormForward<T>& args, Index row, Index first, Index cols, Affine<Real<T>> affine,
                   Stores stores) {
  const Index at = row * args.cols + first;
  const Real<T>*weight = args.weight ? args.weight + first : nullptr, *bias = args.bias ? args.bias + first : nullptr;
  with_activation(args.activation, [&](auto a) {
    using A = decltype(a);
    if (stores.reach == Reach::past)
      normalize_rows<A, true, 1>(args.x + at, args.y + at, weight, bias, 0, cols, &affine, stores.ahead);
    else
      normalize_rows<A, false, 1>(args.x + at, args.y + at, weight, bias, 0, cols, &affine, 0);
  });
}

template <class T>
void normalize(const LayerNormForward<T>& args, Index row, Index first, Index n, Affine<Real<T>> affine,
               Stores stores) {
  normalize_row(args, row, first, n, affine, stores);
}

// Rows whose statistics are finished side by side, as the lanes of vectors.
constexpr int most_tile_rows = 8;
template <class T>
struct RowTile {
  Index first, rows, left_alone;
  Affine<Real<T>> affine[most_tile_rows];

  // What in_range says of a row whose moments are stored already.
  NORMKIT_INLINE void set(Index row, const LayerNormForward<T>& args, Sum mean, double var) {
    double& rstd = args.rstd[first + row];
    rstd = in_range<T>(rstd, var, args.eps, mean.hi);
    left_alone += rstd == out_of_range;
    affine[row] = standardize<Real<T>>(mean, rstd);
  }
};

// The rows [first, first + rows) of a tile from the sums of their lanes; rows <= wide_lanes.
template <class T>
NORMKIT_INLINE void finish_rows(const LayerNormForward<T>& args, RowTile<T>& tile, Index first, Index rows,
                                const Vec<double> (&sums)[wide_lanes], const Vec<double> (&squares)[wide_lanes]) {
  const double count = static_cast<double>(args.cols);
  const Index row = tile.first + first;
  const Vec<double> sum = lane_sums(sums), mean = sum / count;
  Mask<double> cancels;
  Vec<double> m2 = centred_squares(sum, mean, lane_sums(squares), args.cols / pair_lanes, cancels);
  if (any(cancels))
    for (Index r = 0; r < rows; ++r)
      if (cancels[r]) m2[r] = squares_about(args.x + (row + r) * args.cols, {1, 0, args.cols}, {}, {mean[r], 0.0}).hi;
  const Vec<double> var = m2 / count, rstd = 1.0 / square_root(var + args.eps);
  store(args.mean + row, mean, Part{rows});
  store(args.rstd + row, rstd, Part{rows});
  for (Index r = 0; r < rows; ++r) tile.set(first + r, args, {mean[r], 0.0}, var[r]);
}

template <bool centered, class T>
NORMKIT_INLINE void two_pass_tile_statistics(const LayerNormForward<T>& args, RowTile<T>& tile) {
  for (Index r = 0; r < tile.rows; ++r) {
    const Index row = tile.first + r;
    const BlockMoments stats =
        two_pass_moments<centered>(args.x + row * args.cols, {1, 0, args.cols}, from(args.where, row, 0, 0));
    args.mean[row] = stats.mean.hi;
    args.rstd[row] = stats.count > 0.0 ? reciprocal_deviation<T>(stats.m2, stats.count, args.eps) : out_of_range;
    tile.set(r, args, stats.mean, stats.m2.hi / stats.count);
  }
}

template <bool centered, class T>
NORMKIT_INLINE void one_pass_tile_statistics(const LayerNormForward<T>& args, RowTile<T>& tile) {
  constexpr int groups = most_tile_rows / static_cast<int>(wide_lanes);
  Vec<double> sums[groups][wide_lanes], squares[groups][wide_lanes];
  const T* x = args.x + tile.first * args.cols;
  const auto put = [&](Index r, const Powers& row) {
    sums[r / wide_lanes][r % wide_lanes] = centered ? row.sums.one_vector().hi : Vec<double>{};
    squares[r / wide_lanes][r % wide_lanes] = row.squares.one_vector().hi;
  };
  Index r = 0;
  for (; r + power_runs <= tile.rows; r += power_runs) {
    Powers rows[power_runs];
    add_powers<centered>(x + r * args.cols, args.cols, args.cols, rows, tile.rows * args.cols);
#pragma GCC unroll 2
    for (int k = 0; k < power_runs; ++k) put(r + k, rows[k]);
  }
  for (; r < tile.rows; ++r) {
    Powers row;
    add_powers<centered>(x + r * args.cols, args.cols, row, tile.rows * args.cols);
    put(r, row);
  }
  for (; r % wide_lanes != 0; ++r) put(r, Powers{});
  for (Index first = 0; first < tile.rows; first += wide_lanes) {
    const Index left = tile.rows - first, group = first / wide_lanes;
    finish_rows(args, tile, first, left < wide_lanes ? left : wide_lanes, sums[group], squares[group]);
  }
}

template <class T>
NORMKIT_INLINE void tile_statistics(const LayerNormForward<T>& args, RowTile<T>& tile) {
  with_flag(args.centered, [&](auto centered) {
    if constexpr (!is_double<T>)
      if (!args.where.at) return one_pass_tile_statistics<centered.value>(args, tile);
    two_pass_tile_statistics<centered.value>(args, tile);
  });
}

template <class T>
NORMKIT_INLINE void normalize_tile(const LayerNormForward<T>& args, const RowTile<T>& tile) {
  const T* x = args.x + tile.first * args.cols;
  T* y = args.y + tile.first * args.cols;
  const auto one_row = [&](Index r, Index first, Index cols) {
    if (args.rstd[tile.first + r] != out_of_range)
      normalize_row(args, tile.first + r, first, cols, tile.affine[r], {args.reach, tile.rows * args.cols});
  };
  if (args.reach == Reach::past) {
    // A stream wants one row at a time; a block of columns keeps weight and bias in the first-level cache meanwhile.
    constexpr Index block = 4096 / static_cast<Index>(sizeof(T));
    for (Index first = 0; first < args.cols; first += block)
      for (Index r = 0; r < tile.rows; ++r) one_row(r, first, args.cols - first < block ? args.cols - first : block);
    return;
  }
  // Rows of which each begins elsewhere in its line are written one at a time too.
  constexpr Index line = 64 / static_cast<Index>(sizeof(T));
  const bool aligned =
      (args.cols % line == 0 && past_a_line(y) == 0) || args.cols * static_cast<Index>(sizeof(T)) < worth_aligning;
  Index r = 0;
  const bool plain = args.activation == Activation::none;
  for (; args.reach == Reach::near && plain && aligned && tile.left_alone == 0 && r + rows_at_once <= tile.rows;
       r += rows_at_once)
    normalize_rows<Identity, false, rows_at_once>(x + r * args.cols, y + r * args.cols, args.weight, args.bias,
                                                  args.cols, args.cols, tile.affine + r, 0);
  for (; r < tile.rows; ++r) one_row(r, 0, args.cols);
}

// Rows in tiles whose second reading comes from the nearest caches.
template <class T>
Index layer_norm_rows(const LayerNormForward<T>& args, Index begin, Index end) {
  constexpr Index tile_bytes = 128 * 1024;
  const Index fitting = tile_bytes / static_cast<Index>(sizeof(T)) / args.cols;
  const Index rows = fitting < rows_at_once ? rows_at_once : fitting < most_tile_rows ? fitting : most_tile_rows;
  Index left_alone = 0;
  for (Index first = begin; first < end; first += rows) {
    RowTile<T> tile;
    tile.first = first;
    tile.rows = first + rows < end ? rows : end - first;
    tile.left_alone = 0;
    if (args.residual.sum) add_residual(args.residual, first * args.cols, tile.rows * args.cols);
    tile_statistics(args, tile);
    normalize_tile(args, tile);
    left_alone += tile.left_alone;
  }
  return left_alone;
}

}  // namespace
