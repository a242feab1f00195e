// Layer norm on rows: statistics, x̂·weight + bias, and the gradients. x, y, dy, dx: (rows, cols).

namespace {

template <bool has_weight, bool has_bias, class T>
NORMKIT_INLINE void normalize_run(const T* x, T* y, const T* weight, const T* bias, Index count, Affine<T> affine) {
  const Vec<T> center = broadcast(affine.center), scale = broadcast(affine.scale), shift = broadcast(affine.shift);
  each_vector<T>(count, [&](Index i, auto n) {
    Vec<T> v = fma(load(x + i, n) - center, scale, shift);
    if constexpr (has_weight && has_bias)
      v = fma(v, load(weight + i, n), load(bias + i, n));
    else if constexpr (has_weight)
      v = v * load(weight + i, n);
    else if constexpr (has_bias)
      v = v + load(bias + i, n);
    store(y + i, v, n);
  });
}

template <class T>
void normalize(const T* x, T* y, const T* weight, const T* bias, Index n, Affine<T> affine) {
  if (weight && bias)
    normalize_run<true, true>(x, y, weight, bias, n, affine);
  else if (weight)
    normalize_run<true, false>(x, y, weight, bias, n, affine);
  else if (bias)
    normalize_run<false, true>(x, y, weight, bias, n, affine);
  else
    normalize_run<false, false>(x, y, weight, bias, n, affine);
}

template <class T>
Index layer_norm_rows(const LayerNormForward<T>& args, Index begin, Index end) {
  Index left_alone = 0;
  for (Index r = begin; r < end; ++r) {
    const T* x = args.x + r * args.cols;
    const BlockMoments stats = moments(x, {1, 0, args.cols});
    args.mean[r] = stats.mean.hi;
    const double count = static_cast<double>(args.cols);
    const double rstd = reciprocal_deviation<T>(stats.m2, count, args.eps);
    args.rstd[r] = in_range<T>(rstd, stats.m2.hi / count, args.eps, stats.mean.hi);
    if (args.rstd[r] == out_of_range)
      ++left_alone;
    else
      normalize(x, args.y + r * args.cols, args.weight, args.bias, args.cols, standardize<T>(stats.mean, args.rstd[r]));
  }
  return left_alone;
}

// What the rounding of a row's mean to double lost; float data has nothing below a double.
template <class T>
NORMKIT_INLINE Sum refined_mean(const T* x, Index cols, double mean) {
  if constexpr (sizeof(T) == sizeof(float)) return {mean, 0.0};
  return refine_mean(mean, divide<T>(sum_runs(x, {1, 0, cols}), static_cast<double>(cols)));
}

template <class T>
GradientSums gradient_sums(const T* dy, const T* x, const T* weight, Runs runs, Sum mean) {
  WideLanes<T, pair_lanes> g_sums, gd_sums;
  constexpr int vectors = WideLanes<T, pair_lanes>::vectors;
  const Wide<T> center = broadcast_wide<T>(mean);
  const auto sweep = [&](auto weighted) {
    for (Index o = 0; o < runs.outer; ++o) {
      const T *dy_run = dy + o * runs.stride, *x_run = x + o * runs.stride;
      for (Index first = 0; first < runs.inner; first += pair_lanes) {
        const Index left = runs.inner - first < pair_lanes ? runs.inner - first : pair_lanes;
        each_in_group<wide_lanes, vectors>(first, left, [&](Index i, int k, auto n) {
          Wide<T> g = widen(dy_run + i, n);
          if constexpr (weighted.value) g = g * widen(weight + i, n);
          g_sums.part[k] = g_sums.part[k] + g;
          gd_sums.part[k] = multiply_add(g, widen(x_run + i, n) - center, gd_sums.part[k]);
        });
      }
    }
  };
  if (weight)
    sweep(Constant<true>{});
  else
    sweep(Constant<false>{});
  return {g_sums.total(), gd_sums.total()};
}

// Rows are taken in tiles, so that a column of dweight and dbias stays in registers for all rows of the tile.
template <class T>
struct Tile {
  const T *dy[tile_rows], *x[tile_rows];
  T* dx[tile_rows];
  RowGradient<T> row[tile_rows];
  int rows = 0;
};

// dx, and the tile's Σ dy·x̂ and Σ dy added to the accumulators, for the columns [first, first + cols).
// rows: those of a whole tile, or 0 for however many this one has.
template <bool has_weight, int rows, class T>
NORMKIT_INLINE void tile_gradients(const Tile<T>& tile, const T* weight, Index first, Index cols, double* dweight,
                                   double* dbias) {
  const int count = rows > 0 ? rows : tile.rows;
  each_vector<T>(cols, [&](Index i, auto n) {
    Wide<T> dw[wides_per_vector<T>] = {}, db[wides_per_vector<T>] = {};
    Vec<T> w = {};
    if constexpr (has_weight) w = load(weight + first + i, n);
#pragma GCC unroll 8
    for (int r = 0; r < count; ++r) {
      const RowGradient<T>& row = tile.row[r];
      const Vec<T> dy = load(tile.dy[r] + first + i, n);
      const Vec<T> x_hat =
          fma(load(tile.x[r] + first + i, n) - broadcast(row.center), broadcast(row.rstd), broadcast(row.shift));
      each_part<T>(Full{}, [&](auto k, auto) {
        const Wide<T> dy_part = widen_part<k.value>(dy);
        dw[k.value] = multiply_add(dy_part, widen_part<k.value>(x_hat), dw[k.value]);
        db[k.value] = db[k.value] + dy_part;
      });
      Vec<T> g = dy - broadcast(row.mean_g);
      if constexpr (has_weight) g = fma(dy, w, broadcast(-row.mean_g));
      store(tile.dx[r] + first + i, fma(x_hat, broadcast(-row.mean_gx), g) * broadcast(row.rstd), n);
    }
    each_part<T>(n, [&](auto k, auto m) {
      add_to_planes<T>(dweight + i + k.value * wide_lanes, cols, dw[k.value], m);
      add_to_planes<T>(dbias + i + k.value * wide_lanes, cols, db[k.value], m);
    });
  });
}

template <class T>
NORMKIT_INLINE void tile_gradients(const Tile<T>& tile, const T* weight, Index first, Index cols, double* dweight,
                                   double* dbias) {
  const bool whole = tile.rows == tile_rows;
  if (weight && whole)
    tile_gradients<true, tile_rows>(tile, weight, first, cols, dweight, dbias);
  else if (weight)
    tile_gradients<true, 0>(tile, weight, first, cols, dweight, dbias);
  else if (whole)
    tile_gradients<false, tile_rows>(tile, weight, first, cols, dweight, dbias);
  else
    tile_gradients<false, 0>(tile, weight, first, cols, dweight, dbias);
}

// Calls gradient_of(r) for each row whose rstd is in range and passes the rows on tile by tile.
template <class T, class G, class F>
NORMKIT_INLINE Index each_tile(const LayerNormBackward<T>& args, Index begin, Index end, G&& gradient_of, F&& body) {
  Index left_alone = 0;
  Tile<T> tile;
  for (Index r = begin; r < end; ++r) {
    if (is_out_of_range<T>(args.rstd[r])) {
      ++left_alone;
      continue;
    }
    tile.dy[tile.rows] = args.dy + r * args.cols;
    tile.x[tile.rows] = args.x + r * args.cols;
    tile.dx[tile.rows] = args.dx + r * args.cols;
    tile.row[tile.rows] = gradient_of(r);
    if (++tile.rows == tile_rows) {
      body(tile);
      tile.rows = 0;
    }
  }
  if (tile.rows > 0) body(tile);
  return left_alone;
}

template <class T>
Index layer_norm_backward_rows(const LayerNormBackward<T>& args, Index begin, Index end, double* dweight,
                               double* dbias) {
  const auto gradient_of = [&](Index r) {
    const T* x = args.x + r * args.cols;
    const Sum mean = refined_mean(x, args.cols, args.mean[r]);
    const GradientSums sums = gradient_sums(args.dy + r * args.cols, x, args.weight, {1, 0, args.cols}, mean);
    return row_gradient<T>(sums, mean, args.rstd[r], static_cast<double>(args.cols));
  };
  return each_tile(args, begin, end, gradient_of,
                   [&](const Tile<T>& tile) { tile_gradients(tile, args.weight, 0, args.cols, dweight, dbias); });
}

template <class T>
void layer_norm_backward_columns(const LayerNormBackward<T>& args, Index end, Index first, Index cols,
                                 const RowGradient<T>* gradients, double* dweight, double* dbias) {
  each_tile(
      args, 0, end, [&](Index r) { return gradients[r]; },
      [&](const Tile<T>& tile) { tile_gradients(tile, args.weight, first, cols, dweight, dbias); });
}

}  // namespace
