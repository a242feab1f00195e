// Gradients of layer norm on rows, and the sums over a channel's runs that batch norm's need too. x, dy, dx: (rows,
// cols).

namespace {

// What the rounding of a row's mean to double lost; float data has nothing below a double.
template <class T>
NORMKIT_INLINE Sum refined_mean(const T* x, Index cols, Where where, double mean) {
  if constexpr (!is_double<T>) return {mean, 0.0};
  return refine_mean(mean, two_pass_mean(x, {1, 0, cols}, where));
}

template <class T>
struct GradientLanes {
  WideLanes<T, pair_lanes> g, gd;
};

template <bool has_weight, class T>
NORMKIT_INLINE void add_gradients(const T* dy, const T* x, const Real<T>* weight, Index count, Wide<T> minus_mean,
                                  GradientLanes<T>& sums, Index ahead) {
  GradientLanes<T> lanes = sums;
  each_wide<pair_lanes>(count, [&](Index i, int k, auto n) {
    if (k == 0) {
      fetch_line(dy + ahead, i);
      fetch_line(x + ahead, i);
    }
    Wide<T> g = widen(dy + i, n);
    if constexpr (has_weight) g = g * widen(weight + i, n);
    lanes.g.part[k] = accumulate(lanes.g.part[k], g);
    lanes.gd.part[k] = multiply_add(g, accumulate(minus_mean, widen(x + i, n)), lanes.gd.part[k]);
  });
  sums = lanes;
}

// Up to `most` channels; the lanes of one alone stay in registers from run to run.
template <bool has_weight, Index most, class T>
NORMKIT_INLINE void run_gradients(const T* dy, const T* x, const Real<T>* weight, Runs runs, Index channels,
                                  const Sum* mean, GradientSums* out, Index ahead) {
  GradientLanes<T> sums[most];
  each_run(runs, channels, [&](Index run, Index c) {
    const Wide<T> minus_mean = Wide<T>{} - broadcast_wide<T>(mean[c]);
    add_gradients<has_weight>(dy + run, x + run, weight, runs.inner, minus_mean, sums[c], ahead);
  });
  for (Index c = 0; c < channels; ++c) out[c] = {sums[c].g.total(), sums[c].gd.total()};
}

template <class T>
void gradient_sums(const T* dy, const T* x, const Real<T>* weight, Runs runs, Index channels, const Sum* mean,
                   GradientSums* out, Index ahead) {
  if (weight)
    run_gradients<true, 1>(dy, x, weight, runs, 1, mean, out, ahead);
  else if (channels == 1)
    run_gradients<false, 1>(dy, x, weight, runs, 1, mean, out, ahead);
  else
    run_gradients<false, most_channels>(dy, x, weight, runs, channels, mean, out, ahead);
}

// Rows of the backward pass are taken in tiles that share the loads of weight and of the accumulators of dweight and
// dbias. Those take in one row after the other, so that no bit depends on the size of a tile.
// Two rows and their accumulators stay in the first-level cache. Where rows are too long for that, more of them pass
// over the accumulators at once, if there are registers for their sums.
constexpr int short_gradient_rows = 2, gradient_rows = vector_bytes == 64 ? 4 : 2;
constexpr Index long_gradient_cols = 2048;

template <class T>
struct GradientTile {
  const T *dy[gradient_rows], *x[gradient_rows];
  T* dx[gradient_rows];
  RowGradient<Real<T>> row[gradient_rows];
  Sum mean[gradient_rows];
  double rstd[gradient_rows], count[gradient_rows];
  Where where[gradient_rows];
  int rows = 0;
};

// One row's part in the sums over rows and columns. For float data x̂ is taken in double, where it is as good as exact;
// for double data it is that of the result.
template <class T>
struct RowTerms;
template <>
struct RowTerms<float> {
  Vec<double> minus_mean, rstd;
  NORMKIT_INLINE void set(const RowGradient<float>&, Sum mean, double row_rstd) {
    minus_mean = broadcast(-mean.hi);
    rstd = broadcast(row_rstd);
  }
  // Adds dy and dy·x̂ to the columns' sums, and with row_sums g = dy·w and g·(x − mean) to the row's. The product of dy
  // and x − mean serves both; additions and multiplications have execution units of their own, and are as many.
  template <bool has_weight, bool row_sums, class T, class N>
  NORMKIT_INLINE void add(const T* dy_at, const T* x_at, N n, Wide<float> w, Wide<float>& dw, Wide<float>& db,
                          Wide<float>& g_sum, Wide<float>& gd_sum) const {
    const Vec<double> dy = widen(dy_at, n).hi, product = dy * (widen(x_at, n).hi + minus_mean);
    db.hi = db.hi + dy;
    dw.hi = fma(product, rstd, dw.hi);
    if constexpr (row_sums) {
      g_sum.hi = has_weight ? fma(dy, w.hi, g_sum.hi) : g_sum.hi + dy;
      gd_sum.hi = has_weight ? fma(product, w.hi, gd_sum.hi) : gd_sum.hi + product;
    }
  }
};
template <>
struct RowTerms<double> {
  Wide<double> mean;
  Vec<double> center, rstd, shift;
  NORMKIT_INLINE void set(const RowGradient<double>& row, Sum row_mean, double) {
    mean = broadcast_wide<double>(row_mean);
    center = broadcast(row.center);
    rstd = broadcast(row.rstd);
    shift = broadcast(row.shift);
  }
  template <bool has_weight, bool row_sums, class N>
  NORMKIT_INLINE void add(const double* dy_at, const double* x_at, N n, Wide<double> w, Wide<double>& dw,
                          Wide<double>& db, Wide<double>& g_sum, Wide<double>& gd_sum) const {
    const Wide<double> dy = widen(dy_at, n), x = widen(x_at, n);
    const Wide<double> x_hat = {fma(x.hi - center, rstd, shift), Vec<double>{}};
    db = db + dy;
    dw = multiply_add(dy, x_hat, dw);
    if constexpr (row_sums) {
      const Wide<double> g = has_weight ? dy * w : dy;
      g_sum = g_sum + g;
      gd_sum = multiply_add(g, x - mean, gd_sum);
    }
  }
};

// For the rows [begin, begin + rows) of a tile: adds Σ dy·x̂ and Σ dy to the accumulators of the columns [first, first +
// cols), and with row_sums finds each row's mean of g and of g·x̂.
template <bool has_weight, bool row_sums, int rows, class T>
NORMKIT_INLINE void tile_sums(GradientTile<T>& tile, int begin, const Real<T>* weight, Index first, Index cols,
                              double* dweight, double* dbias, Index ahead) {
  WideLanes<T, row_lanes> g_sums[rows], gd_sums[rows];
  double* dweight_lo = dweight + (accumulator_planes<T> - 1) * cols;
  double* dbias_lo = dbias + (accumulator_planes<T> - 1) * cols;
  // Copies, for all that the compiler knows the accumulators may lie in the tile.
  const T *dy_rows[rows], *x_rows[rows];
  RowTerms<Real<T>> terms[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    dy_rows[r] = tile.dy[begin + r] + first;
    x_rows[r] = tile.x[begin + r] + first;
    terms[r].set(tile.row[begin + r], tile.mean[begin + r], tile.rstd[begin + r]);
  }
  // Too large for the compiler to inline it unasked; as a call it takes three times as long.
  each_wide<row_lanes>(cols, [&](Index i, int k, auto n) __attribute__((always_inline)) {
    Wide<T> w{}, dw = load_planes<T>(dweight + i, dweight_lo + i, n), db = load_planes<T>(dbias + i, dbias_lo + i, n);
    if constexpr (has_weight && row_sums) w = widen(weight + first + i, n);
    if (i * static_cast<Index>(sizeof(T)) % 64 == 0)
      for (int r = 0; r < rows; ++r) {
        fetch_line(dy_rows[r] + ahead, i);
        fetch_line(x_rows[r] + ahead, i);
      }
    each_constant<rows>([&](auto r) __attribute__((always_inline)) {
      terms[r].template add<has_weight, row_sums>(dy_rows[r] + i, x_rows[r] + i, n, w, dw, db, g_sums[r].part[k],
                                                  gd_sums[r].part[k]);
    });
    store_planes<T>(dweight + i, dweight_lo + i, dw, n);
    store_planes<T>(dbias + i, dbias_lo + i, db, n);
  });
  if constexpr (row_sums) {
    if constexpr (!is_double<T>) {
      // Two sums of each row, as many side by side as give a vector.
      constexpr int width = static_cast<int>(wide_lanes), vectors = (2 * rows + width - 1) / width;
      Vec<double> sums[vectors][wide_lanes] = {}, counts[vectors] = {}, means[vectors];
      each_constant<rows>([&](auto r) {
        sums[2 * r / width][2 * r % width] = g_sums[r].one_vector().hi;
        sums[2 * r / width][2 * r % width + 1] = gd_sums[r].one_vector().hi;
        counts[2 * r / width][2 * r % width] = counts[2 * r / width][2 * r % width + 1] = tile.count[begin + r];
      });
      each_constant<vectors>([&](auto k) { means[k] = lane_sums(sums[k]) / counts[k]; });
      each_constant<rows>([&](auto r) {
        const int at = begin + r;
        set_means(tile.row[at], means[2 * r / width][2 * r % width],
                  means[2 * r / width][2 * r % width + 1] * tile.rstd[at]);
      });
    } else {
      for (int r = 0; r < rows; ++r) {
        const Sum g = g_sums[r].total(), gd = gd_sums[r].total();
        const double count = tile.count[begin + r];
        set_means(tile.row[begin + r], (g.hi + g.lo) / count, (gd.hi + gd.lo) * tile.rstd[begin + r] / count);
      }
    }
  }
}

// Row by row: two at once were no faster, and rows a power of two apart drive each other out of the first-level cache.
template <bool has_weight, bool stream, class T>
NORMKIT_INLINE void gradients_of_row(const GradientTile<T>& tile, int r, const Real<T>* weight, Index first, Index cols,
                                     Index ahead) {
  const RowGradient<Real<T>> row = tile.row[r];
  const T *dy = tile.dy[r] + first, *x = tile.x[r] + first;
  T* dx = tile.dx[r] + first;
  const Vec<T> center = broadcast(row.center), rstd = broadcast(row.rstd), shift = broadcast(row.shift),
               minus_mean_g = broadcast(-row.mean_g), minus_mean_gx = broadcast(-row.mean_gx);
  each_vector_of<stream>(dx, cols, [&](Index i, auto n) {
    fetch_beside_stream<stream>(dy + ahead, i);
    fetch_beside_stream<stream>(x + ahead, i);
    const Vec<T> dy_i = load(dy + i, n), x_hat = fma(load(x + i, n) - center, rstd, shift);
    Vec<T> g = dy_i + minus_mean_g;
    if constexpr (has_weight) g = fma(dy_i, load(weight + first + i, n), minus_mean_g);
    store<stream>(dx + i, fma(x_hat, minus_mean_gx, g) * rstd, n);
  });
}

// The same where only some elements count in the statistics; with plain stores. The others' gradient is g·rstd.
template <bool has_weight, class T>
NORMKIT_INLINE void chosen_gradients_of_row(const GradientTile<T>& tile, int r, const Real<T>* weight, Index first,
                                            Index cols) {
  const RowGradient<Real<T>> row = tile.row[r];
  const Where where = from(tile.where[r], 0, 0, first);
  const T *dy = tile.dy[r] + first, *x = tile.x[r] + first;
  T* dx = tile.dx[r] + first;
  each_vector<T>(cols, [&](Index i, auto n) {
    const Mask<T> chosen = chosen_lanes<T>(where, i, n);
    const Vec<T> dy_i = load(dy + i, n),
                 x_hat = fma(load(x + i, n) - broadcast(row.center), broadcast(row.rstd), broadcast(row.shift));
    Vec<T> g = dy_i, centred = dy_i - broadcast(row.mean_g);
    if constexpr (has_weight) {
      const Vec<T> w = load(weight + first + i, n);
      g = dy_i * w;
      centred = fma(dy_i, w, broadcast(-row.mean_g));
    }
    store(dx + i, (chosen ? fma(x_hat, broadcast(-row.mean_gx), centred) : g) * broadcast(row.rstd), n);
  });
}

template <bool has_weight, bool row_sums, bool stream, class T>
NORMKIT_INLINE void whole_tile(GradientTile<T>& tile, const Real<T>* weight, Index first, Index cols, double* dweight,
                               double* dbias, Index ahead) {
  int r = 0;
  if constexpr (gradient_rows > short_gradient_rows)
    if (tile.rows == gradient_rows) {
      tile_sums<has_weight, row_sums, gradient_rows>(tile, 0, weight, first, cols, dweight, dbias, ahead);
      r = gradient_rows;
    }
  for (; r + short_gradient_rows <= tile.rows; r += short_gradient_rows)
    tile_sums<has_weight, row_sums, short_gradient_rows>(tile, r, weight, first, cols, dweight, dbias, ahead);
  for (; r < tile.rows; ++r) tile_sums<has_weight, row_sums, 1>(tile, r, weight, first, cols, dweight, dbias, ahead);
  for (r = 0; r < tile.rows; ++r)
    if (tile.where[r].at)
      chosen_gradients_of_row<has_weight>(tile, r, weight, first, cols);
    else
      gradients_of_row<has_weight, stream>(tile, r, weight, first, cols, ahead);
}

// Passes on the rows [begin, end) whose rstd is in range, tile by tile; prepare(tile, r) completes the row that was
// added.
template <bool has_weight, bool row_sums, bool stream, class T, class P>
NORMKIT_INLINE Index each_tile(const LayerNormBackward<T>& args, Index begin, Index end, Index first, Index cols,
                               double* dweight, double* dbias, P&& prepare) {
  // What is read next: the rows of the next tile, or further columns of these.
  const int most_rows = cols > long_gradient_cols ? gradient_rows : short_gradient_rows;
  const Index ahead = row_sums ? most_rows * args.cols : cols;
  Index left_alone = 0;
  GradientTile<T> tile;
  for (Index r = begin; r < end; ++r) {
    if (is_out_of_range<T>(args.rstd[r])) {
      ++left_alone;
    } else {
      tile.dy[tile.rows] = args.dy + r * args.cols;
      tile.x[tile.rows] = args.x + r * args.cols;
      tile.dx[tile.rows] = args.dx + r * args.cols;
      tile.mean[tile.rows] = {args.mean[r], 0.0};
      tile.rstd[tile.rows] = args.rstd[r];
      tile.where[tile.rows] = from(args.where, r, 0, 0);
      if (row_sums) tile.count[tile.rows] = static_cast<double>(count_chosen({1, 0, args.cols}, tile.where[tile.rows]));
      prepare(tile, r);
      ++tile.rows;
    }
    if (tile.rows == most_rows || (r + 1 == end && tile.rows > 0)) {
      whole_tile<has_weight, row_sums, stream>(tile, args.weight, first, cols, dweight, dbias, ahead);
      tile.rows = 0;
    }
  }
  return left_alone;
}
template <bool row_sums, class T, class... Rest>
NORMKIT_INLINE Index each_tile(const LayerNormBackward<T>& args, Rest&&... rest) {
  if (args.reach == Reach::past)
    return args.weight ? each_tile<true, row_sums, true>(args, rest...)
                       : each_tile<false, row_sums, true>(args, rest...);
  return args.weight ? each_tile<true, row_sums, false>(args, rest...)
                     : each_tile<false, row_sums, false>(args, rest...);
}

template <class T>
Index layer_norm_backward_rows(const LayerNormBackward<T>& args, Index begin, Index end, double* dweight,
                               double* dbias) {
  return each_tile<true>(args, begin, end, 0, args.cols, dweight, dbias, [&](GradientTile<T>& tile, Index r) {
    const Sum mean = refined_mean(args.x + r * args.cols, args.cols, from(args.where, r, 0, 0), args.mean[r]);
    tile.mean[tile.rows] = mean;
    tile.row[tile.rows] = row_gradient<Real<T>>(mean, args.rstd[r], 0.0, 0.0);
  });
}

template <class T>
void layer_norm_backward_columns(const LayerNormBackward<T>& args, Index begin, Index end, Index first, Index cols,
                                 const RowGradient<Real<T>>* gradients, double* dweight, double* dbias) {
  each_tile<false>(args, begin, end, first, cols, dweight, dbias,
                   [&](GradientTile<T>& tile, Index r) { tile.row[tile.rows] = gradients[r]; });
}

}  // namespace
