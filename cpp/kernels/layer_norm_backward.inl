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

// dy and x: as they are stored, or what they are computed in.
template <bool has_weight, class T, class D, class P = AllOf>
NORMKIT_INLINE void add_gradients(const D* dy, const D* x, const Real<T>* weight, Index count, Wide<T> minus_mean,
                                  GradientLanes<T>& sums, Index ahead, P passage = {}) {
  GradientLanes<T> lanes = sums;
  each_wide<pair_lanes>(count, [&](Index i, int k, auto n) {
    if (k == 0) {
      fetch_line(dy + ahead, i);
      fetch_line(x + ahead, i);
    }
    const Wide<T> x_i = widen(x + i, n);
    Wide<T> g = passage.gradient(Wide<T>(widen(dy + i, n)), x_i, i);
    if constexpr (has_weight) g = g * widen(weight + i, n);
    lanes.g.part[k] = accumulate(lanes.g.part[k], g);
    lanes.gd.part[k] = multiply_add(g, accumulate(minus_mean, passage.input(x_i)), lanes.gd.part[k]);
  });
  sums = lanes;
}

// Up to `most` channels; the lanes of one alone stay in registers from run to run.
template <Index most, class T, class P>
NORMKIT_INLINE void run_gradients(const T* dy, const T* x, Runs runs, Index channels, const Sum* mean, P passage,
                                  GradientSums* out, Index ahead) {
  GradientLanes<T> sums[most];
  each_run(runs, channels, [&](Index run, Index c) {
    const Wide<T> minus_mean = Wide<T>{} - broadcast_wide<T>(mean[c]);
    add_gradients<false, T>(dy + run, x + run, nullptr, runs.inner, minus_mean, sums[c], ahead, passage.from(run));
  });
  for (Index c = 0; c < channels; ++c) out[c] = {sums[c].g.total(), sums[c].gd.total()};
}

template <class T>
void gradient_sums(const T* dy, const T* x, Runs runs, Index channels, const Sum* mean, Passage passage,
                   GradientSums* out, Index ahead) {
  with_passage(passage, [&](auto passes) {
    if (channels > 1 && runs.outer > 1)
      return run_gradients<most_channels>(dy, x, runs, channels, mean, passes, out, ahead);
    for (Index c = 0, first = 0; c < channels; ++c, first += runs.inner)
      run_gradients<1>(dy + first, x + first, runs, 1, mean + c, passes.from(first), out + c, ahead);
  });
}

// dz = dy·A'(z) over some columns of a row, z being computed as the forward pass did.
template <class A, class T>
NORMKIT_INLINE void activation_gradients(const LayerNormBackward<T>& args, Index row, Index first, Index cols,
                                         Affine<Real<T>> affine, Real<T>* dz) {
  const T *dy = args.dy + row * args.cols + first, *x = args.x + row * args.cols + first;
  const Vec<T> center = broadcast(affine.center), scale = broadcast(affine.scale), shift = broadcast(affine.shift);
  with_parameter_flags(args.weight, args.bias, [&](auto has_weight, auto has_bias) {
    each_vector<T>(cols, [&](Index i, auto n) {
      Vec<T> w = {}, b = {};
      if constexpr (has_weight.value) w = load(args.weight + first + i, n);
      if constexpr (has_bias.value) b = load(args.bias + first + i, n);
      const Vec<T> z =
          with_parameters<has_weight.value, has_bias.value, T>(fma(load(x + i, n) - center, scale, shift), w, b);
      store(dz + i, A::template gradient<T>(load(dy + i, n), z), n);
    });
  });
}
// x − mean = (y − bias) / weight / rstd
template <class T>
NORMKIT_INLINE void restore_inputs(const LayerNormBackward<T>& args, Index row, Index first, Index cols, Real<T>* to) {
  const T* y = args.x + row * args.cols + first;
  const Vec<T> deviation = broadcast(static_cast<Real<T>>(1.0 / args.rstd[row]));
  with_parameter_flags(args.weight, args.bias, [&](auto has_weight, auto has_bias) {
    each_vector<T>(cols, [&](Index i, auto n) {
      Vec<T> x_hat = load(y + i, n);
      if constexpr (has_bias.value) x_hat = x_hat - load(args.bias + first + i, n);
      if constexpr (has_weight.value) x_hat = x_hat / load(args.weight + first + i, n);
      store(to + i, x_hat * deviation, n);
    });
  });
}
template <class T>
NORMKIT_INLINE void copy_as_real(const T* from, Index cols, Real<T>* to) {
  each_vector<T>(cols, [&](Index i, auto n) { store(to + i, load(from + i, n), n); });
}

template <class D>
struct Staged {
  const D *dy, *x;
};
// dy and x of some columns of a row, as D; those that an activation or the recovery of x has to do with in the memory
// given, and where T is not what it is computed in, both.
template <class D, class T>
NORMKIT_CALL Staged<D> stage(const LayerNormBackward<T>& args, Index row, Index first, Index cols,
                             Affine<Real<T>> affine, Real<T>* dz, Real<T>* x) {
  const Index at = row * args.cols + first;
  constexpr bool as_real = !is_same_type<T, Real<T>>;
  with_activation(args.activation, [&](auto a) {
    if constexpr (!is_same_type<decltype(a), Identity>)
      activation_gradients<decltype(a)>(args, row, first, cols, affine, dz);
    else if constexpr (as_real)
      copy_as_real(args.dy + at, cols, dz);
  });
  if (args.from_output)
    restore_inputs(args, row, first, cols, x);
  else if constexpr (as_real)
    copy_as_real(args.x + at, cols, x);
  if constexpr (as_real)
    return {dz, x};
  else
    return {args.activation == Activation::none ? args.dy + at : dz, args.from_output ? x : args.x + at};
}

template <class T>
void layer_norm_gradient_sums(const LayerNormBackward<T>& args, Index row, Index first, Index cols, Sum mean,
                              GradientSums* out, Index ahead) {
  const T *dy = args.dy + row * args.cols + first, *x = args.x + row * args.cols + first;
  const Wide<T> minus_mean = Wide<T>{} - broadcast_wide<T>(mean);
  GradientLanes<T> sums;
  const auto add = [&](const auto* dy_at, const auto* x_at, Index at, Index count) {
    with_flag(args.weight != nullptr, [&](auto has_weight) {
      const Real<T>* weight = has_weight.value ? args.weight + first + at : nullptr;
      add_gradients<has_weight.value, T>(dy_at, x_at, weight, count, minus_mean, sums, ahead);
    });
  };
  if (!args.stages()) {
    add(dy, x, 0, cols);
  } else {
    alignas(64) Real<T> dz[block_cols], restored[block_cols];
    const Affine<Real<T>> affine = standardize<Real<T>>(mean, args.rstd[row]);
    for (Index at = 0; at < cols; at += block_cols) {
      const Index count = cols - at < block_cols ? cols - at : block_cols;
      const Staged<Real<T>> staged = stage<Real<T>>(args, row, first + at, count, affine, dz, restored);
      add(staged.dy, staged.x, at, count);
    }
  }
  *out = {sums.g.total(), sums.gd.total()};
}

// Rows of the backward pass are taken in tiles that share the loads of weight and of the accumulators of dweight and
// dbias. Those take in one row after the other, so that no bit depends on the size of a tile.
// Two rows and their accumulators stay in the first-level cache. Where rows are too long for that, more of them pass
// over the accumulators at once, if there are registers for their sums.
constexpr int short_gradient_rows = 2, gradient_rows = vector_bytes == 64 ? 4 : 2;
static_assert(gradient_rows <= staged_rows);
constexpr Index long_gradient_cols = 2048;

// Some columns of the rows. D: the type of dy and x, which is Real<T> where they have been staged.
template <class T, class D>
struct GradientTile {
  const D* dy[gradient_rows];
  const D* x[gradient_rows];
  T* dx[gradient_rows];
  const T* dsum[gradient_rows];  // or null
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
  // Adds dy and dy·x̂ to the columns' sums, and with row_sums g·(x − mean) with g = dy·w to the row's, and g itself
  // where a mean has been subtracted. The product of dy and x − mean serves both; additions and multiplications have
  // execution units of their own, and are as many.
  template <bool has_weight, bool row_sums, bool centered, class D, class N>
  NORMKIT_INLINE void add(const D* dy_at, const D* x_at, N n, Wide<float> w, Wide<float>& dw, Wide<float>& db,
                          Wide<float>& g_sum, Wide<float>& gd_sum) const {
    const Vec<double> dy = widen(dy_at, n).hi, product = dy * (widen(x_at, n).hi + minus_mean);
    db.hi = db.hi + dy;
    dw.hi = fma(product, rstd, dw.hi);
    if constexpr (row_sums) {
      if constexpr (centered) g_sum.hi = has_weight ? fma(dy, w.hi, g_sum.hi) : g_sum.hi + dy;
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
  template <bool has_weight, bool row_sums, bool centered, class N>
  NORMKIT_INLINE void add(const double* dy_at, const double* x_at, N n, Wide<double> w, Wide<double>& dw,
                          Wide<double>& db, Wide<double>& g_sum, Wide<double>& gd_sum) const {
    const Wide<double> dy = widen(dy_at, n), x = widen(x_at, n);
    const Wide<double> x_hat = {fma(x.hi - center, rstd, shift), Vec<double>{}};
    db = db + dy;
    dw = multiply_add(dy, x_hat, dw);
    if constexpr (row_sums) {
      const Wide<double> g = has_weight ? dy * w : dy;
      if constexpr (centered) g_sum = g_sum + g;
      gd_sum = multiply_add(g, x - mean, gd_sum);
    }
  }
};

// For the rows [begin, begin + rows) of a tile: adds Σ dy·x̂ and Σ dy to the accumulators of the columns [first, first +
// cols), and with row_sums finds each row's mean of g and of g·x̂.
template <bool has_weight, bool row_sums, bool centered, int rows, class T, class D>
NORMKIT_CALL void tile_sums(GradientTile<T, D>& tile, int begin, const Real<T>* weight, Index first, Index cols,
                            double* dweight, double* dbias, Index ahead) {
  WideLanes<T, row_lanes> g_sums[rows], gd_sums[rows];
  double* dweight_lo = dweight + (accumulator_planes<T> - 1) * cols;
  double* dbias_lo = dbias + (accumulator_planes<T> - 1) * cols;
  // Copies, for all that the compiler knows the accumulators may lie in the tile.
  const D* dy_rows[rows];
  const D* x_rows[rows];
  RowTerms<Real<T>> terms[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    dy_rows[r] = tile.dy[begin + r];
    x_rows[r] = tile.x[begin + r];
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
      terms[r].template add<has_weight, row_sums, centered>(dy_rows[r] + i, x_rows[r] + i, n, w, dw, db,
                                                            g_sums[r].part[k], gd_sums[r].part[k]);
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
template <bool has_weight, bool stream, bool adds, class T, class D>
NORMKIT_CALL void gradients_of_row(const GradientTile<T, D>& tile, int r, const Real<T>* weight, Index first,
                                   Index cols, Index ahead) {
  const RowGradient<Real<T>> row = tile.row[r];
  const D *dy = tile.dy[r], *x = tile.x[r];
  T* dx = tile.dx[r];
  const T* dsum = tile.dsum[r];
  const Vec<T> center = broadcast(row.center), rstd = broadcast(row.rstd), shift = broadcast(row.shift),
               minus_mean_g = broadcast(-row.mean_g), minus_mean_gx = broadcast(-row.mean_gx);
  each_vector_of<stream>(dx, cols, [&](Index i, auto n) {
    fetch_beside_stream<stream>(dy + ahead, i);
    fetch_beside_stream<stream>(x + ahead, i);
    const Vec<T> dy_i = load(dy + i, n), x_hat = fma(load(x + i, n) - center, rstd, shift);
    Vec<T> g = dy_i + minus_mean_g;
    if constexpr (has_weight) g = fma(dy_i, load(weight + first + i, n), minus_mean_g);
    const Vec<T> centred = fma(x_hat, minus_mean_gx, g);
    store<stream>(dx + i, adds ? fma(centred, rstd, load(dsum + i, n)) : centred * rstd, n);
  });
}

// The same where only some elements count in the statistics; with plain stores. The others' gradient is g·rstd.
template <bool has_weight, class T, class D>
NORMKIT_CALL void chosen_gradients_of_row(const GradientTile<T, D>& tile, int r, const Real<T>* weight, Index first,
                                          Index cols) {
  const RowGradient<Real<T>> row = tile.row[r];
  const Where where = tile.where[r];
  const D *dy = tile.dy[r], *x = tile.x[r];
  T* dx = tile.dx[r];
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

template <bool row_sums, class T, class D>
NORMKIT_INLINE void whole_tile(const LayerNormBackward<T>& args, GradientTile<T, D>& tile, Index first, Index cols,
                               double* dweight, double* dbias, Index ahead) {
  const Real<T>* weight = args.weight;
  const auto add_sums = [&](auto has_weight, auto centered) {
    int r = 0;
    const auto add_rows = [&](auto rows) {
      for (; r + rows.value <= tile.rows; r += rows.value)
        tile_sums<has_weight.value, row_sums, centered.value, rows.value>(tile, r, weight, first, cols, dweight, dbias,
                                                                          ahead);
    };
    if constexpr (gradient_rows > short_gradient_rows) add_rows(Constant<gradient_rows>{});
    add_rows(Constant<short_gradient_rows>{});
    add_rows(Constant<1>{});
  };
  with_flag(weight != nullptr, [&](auto has_weight) {
    // Sums over columns alone take neither weight nor mean.
    if constexpr (row_sums)
      with_flag(args.centered, [&](auto centered) { add_sums(has_weight, centered); });
    else
      add_sums(Constant<false>{}, Constant<true>{});
    for (int r = 0; r < tile.rows; ++r)
      if (tile.where[r].at)
        chosen_gradients_of_row<has_weight.value>(tile, r, weight, first, cols);
      else
        with_flag(args.reach == Reach::past, [&](auto stream) {
          with_flag(tile.dsum[r] != nullptr, [&](auto adds) {
            gradients_of_row<has_weight.value, stream.value, adds.value>(tile, r, weight, first, cols, ahead);
          });
        });
  });
}

// Passes on the rows [begin, end) whose rstd is in range, tile by tile; prepare(tile, r) completes the row that was
// added.
template <bool row_sums, class D, class T, class P>
NORMKIT_INLINE Index each_tile_of(const LayerNormBackward<T>& args, Real<T>* staged, Index begin, Index end,
                                  Index first, Index cols, double* dweight, double* dbias, P&& prepare) {
  // What is read next: the rows of the next tile, or further columns of these.
  const int most_rows = cols > long_gradient_cols ? gradient_rows : short_gradient_rows;
  const Index ahead = row_sums ? most_rows * args.cols : cols;
  Index left_alone = 0;
  GradientTile<T, D> tile;
  for (Index r = begin; r < end; ++r) {
    if (is_out_of_range<T>(args.rstd[r])) {
      ++left_alone;
    } else {
      const Index at = r * args.cols + first;
      tile.dx[tile.rows] = args.dx + at;
      tile.dsum[tile.rows] = args.dsum ? args.dsum + at : nullptr;
      tile.mean[tile.rows] = {args.mean[r], 0.0};
      tile.rstd[tile.rows] = args.rstd[r];
      tile.where[tile.rows] = from(args.where, r, 0, first);
      if (row_sums) tile.count[tile.rows] = static_cast<double>(count_chosen({1, 0, args.cols}, tile.where[tile.rows]));
      prepare(tile, r);
      Staged<D> own;
      if constexpr (is_same_type<D, T>) own = {args.dy + at, args.x + at};
      if constexpr (is_same_type<D, Real<T>>)
        if (staged) {
          const RowGradient<Real<T>>& row = tile.row[tile.rows];
          Real<T>* dz = staged + tile.rows * cols;
          own = stage<D>(args, r, first, cols, {row.center, row.rstd, row.shift}, dz, dz + staged_rows * cols);
        }
      tile.dy[tile.rows] = own.dy;
      tile.x[tile.rows] = own.x;
      ++tile.rows;
    }
    if (tile.rows == most_rows || (r + 1 == end && tile.rows > 0)) {
      whole_tile<row_sums>(args, tile, first, cols, dweight, dbias, ahead);
      for (int k = 0; args.dropped && k < tile.rows; ++k)
        drop_gradients(args.dropout, args.dx, args.dropped, tile.dx[k] - args.dx, cols);
      tile.rows = 0;
    }
  }
  return left_alone;
}
// staged: null where nothing is
template <bool row_sums, class T, class... Rest>
NORMKIT_INLINE Index each_tile(const LayerNormBackward<T>& args, Real<T>* staged, Rest&&... rest) {
  if constexpr (!is_same_type<T, Real<T>>)
    if (staged) return each_tile_of<row_sums, Real<T>>(args, staged, rest...);
  return each_tile_of<row_sums, T>(args, staged, rest...);
}

template <class T>
Index layer_norm_backward_rows(const LayerNormBackward<T>& args, Index begin, Index end, double* dweight,
                               double* dbias) {
  return each_tile<true>(args, args.staged, begin, end, 0, args.cols, dweight, dbias, [&](auto& tile, Index r) {
    const Sum mean = args.centered && !args.from_output
                         ? refined_mean(args.x + r * args.cols, args.cols, from(args.where, r, 0, 0), args.mean[r])
                         : Sum{0.0, 0.0};
    tile.mean[tile.rows] = mean;
    tile.row[tile.rows] = row_gradient<Real<T>>(mean, args.rstd[r], 0.0, 0.0);
  });
}

template <class T>
void layer_norm_backward_columns(const LayerNormBackward<T>& args, Index begin, Index end, Index first, Index cols,
                                 const RowGradient<Real<T>>* gradients, double* dweight, double* dbias) {
  alignas(64) Real<T> staged[2 * staged_rows * block_cols];
  each_tile<false>(args, args.stages() ? staged : nullptr, begin, end, first, cols, dweight, dbias,
                   [&](auto& tile, Index r) { tile.row[tile.rows] = gradients[r]; });
}

}  // namespace
