// Mean and Σ(x − mean)² of a block, both in twice the precision of the data: a mean that is exact enough at any mean/σ,
// and a variance whose error never shows beside the roundings of x̂.

namespace {

struct RowRange {
  Index begin, end;
};

template <class T>
NORMKIT_INLINE Sum sum_runs(const T* x, Runs runs, Where where) {
  WideLanes<T, sum_lanes> sums;
  each_chosen_run(runs, where, [&](Index run, auto which) { add_run(x + run, runs.inner, which, sums); });
  return sums.total();
}

template <class T>
NORMKIT_INLINE Sum squares_about(const T* x, Runs runs, Where where, Sum mean) {
  WideLanes<T, sum_lanes> squares;
  each_chosen_run(runs, where, [&](Index run, auto which) {
    add_squares(x + run, runs.inner, which, broadcast_wide<T>(mean), squares);
  });
  return squares.total();
}

template <class T>
NORMKIT_INLINE Sum two_pass_mean(const T* x, Runs runs, Where where) {
  return divide<T>(sum_runs(x, runs, where), static_cast<double>(count_chosen(runs, where)));
}

// Two passes: for double data, whose squares are no cheaper than a second pass, and where not all elements count.
// Values that are not centred have mean 0, and take one.
template <bool centered = true, class T>
NORMKIT_INLINE BlockMoments two_pass_moments(const T* x, Runs runs, Where where) {
  const double count = static_cast<double>(count_chosen(runs, where));
  if (count == 0.0) return {{0.0, 0.0}, {0.0, 0.0}, 0.0};
  const Sum mean = centered ? divide<T>(sum_runs(x, runs, where), count) : Sum{0.0, 0.0};
  return {mean, squares_about(x, runs, where, mean), count};
}

// Σ(x − mean)² = Σx² − (Σx)²/n loses the digits that (Σx)²/n has more than the difference. `chain` additions in a row
// leave an error of chain·2^-53 of Σx²; where the ratio of the two terms makes more than 2^-29 of it (mean/σ = 128 for
// 1024 additions), the squares are summed again, centred.
NORMKIT_INLINE double most_cancellation(Index chain) {
  return chain <= 1024 ? 0x1p14 : 0x1p24 / static_cast<double>(chain);
}

// V: double or a vector of doubles. Returns Σ(x − mean)²; `cancels` where it has to be computed again.
template <class V, class M>
NORMKIT_INLINE V centred_squares(V sum, V mean, V squares, Index chain, M& cancels) {
  const V m2 = fma(-sum, mean, squares);
  cancels = sum * mean > m2 * most_cancellation(chain);
  return m2;
}

template <class T>
NORMKIT_INLINE BlockMoments block_moments(const T* x, Runs runs, const Powers& powers) {
  const double count = static_cast<double>(runs.outer * runs.inner);
  const double sum = powers.sums.total().hi, mean = sum / count;
  bool cancels;
  const double m2 =
      centred_squares(sum, mean, powers.squares.total().hi, runs.outer * runs.inner / pair_lanes, cancels);
  if (!cancels) return {{mean, 0.0}, {m2, 0.0}, count};
  return {{mean, 0.0}, squares_about(x, runs, {}, {mean, 0.0}), count};
}

// Up to `most` channels; the lanes of one alone stay in registers from run to run.
template <Index most, class T>
NORMKIT_INLINE void run_moments(const T* x, Runs runs, Index channels, BlockMoments* out, Index ahead) {
  Powers powers[most];
  each_run(runs, channels, [&](Index run, Index c) { add_powers(x + run, runs.inner, powers[c], ahead); });
  for (Index c = 0; c < channels; ++c) out[c] = block_moments(x + c * runs.inner, runs, powers[c]);
}

template <class T>
NORMKIT_INLINE void one_pass_moments(const T* x, Runs runs, Index channels, BlockMoments* out, Index ahead) {
  if (channels == 1)
    run_moments<1>(x, runs, 1, out, ahead);
  else
    run_moments<most_channels>(x, runs, channels, out, ahead);
}

template <class T>
void moments(const T* x, Runs runs, Index channels, Where where, BlockMoments* out, Index ahead) {
  if constexpr (!is_double<T>)
    if (!where.at) return one_pass_moments(x, runs, channels, out, ahead);
  for (Index c = 0; c < channels; ++c) out[c] = two_pass_moments(x + c * runs.inner, runs, from(where, 0, c, 0));
}

// Σx² of a run, as moments about 0.
template <class T>
void moments_about_zero(const T* x, Index count, Where where, BlockMoments* out, Index ahead) {
  if constexpr (!is_double<T>)
    if (!where.at) {
      Powers powers;
      add_powers<false>(x, count, powers, ahead);
      *out = {{0.0, 0.0}, {powers.squares.total().hi, 0.0}, static_cast<double>(count)};
      return;
    }
  *out = two_pass_moments<false>(x, {1, 0, count}, where);
}

// The columns of a block in strips of `width` whose sums stay in registers over some rows. body(rows, first column,
// columns, ahead), rows being a part of the block; ahead: how far the same row of the next strip lies.
template <Index width, class F>
NORMKIT_INLINE void each_strip(Block block, F&& body) {
  constexpr Index most_rows = 32;
  for (Index r = 0; r < block.rows; r += most_rows) {
    const Index left = block.rows - r, rows = left < most_rows ? left : most_rows;
    Index first = 0;
    const auto strip = [&](Index cols) {
      const Index next = first + cols < block.cols ? cols : rows * block.stride - first;
      body(RowRange{r, r + rows}, first, cols, next);
    };
    for (; first + width <= block.cols; first += width) strip(width);
    if (first < block.cols) strip(block.cols - first);
  }
}

// Wide columns of a strip for two sums and what they need besides.
constexpr int sum_wides = vector_bytes == 64 ? 8 : 4;
constexpr Index sum_cols = sum_wides * wide_lanes;

template <class T>
struct WideStrip {
  Wide<T> part[sum_wides] = {};
  WideStrip() = default;
  NORMKIT_INLINE WideStrip(const double* hi, const double* lo, Index cols) {
    each_in_group<wide_lanes, sum_wides>(0, cols,
                                         [&](Index i, int k, auto n) { part[k] = load_planes<T>(hi + i, lo + i, n); });
  }
  NORMKIT_INLINE void store_to(double* hi, double* lo, Index cols) const {
    each_in_group<wide_lanes, sum_wides>(0, cols,
                                         [&](Index i, int k, auto n) { store_planes<T>(hi + i, lo + i, part[k], n); });
  }
};

// Whether the k-th wide vector of a strip is the first of its line: then that line of the next strip is fetched, for
// the processor does not see where it is.
template <class T>
NORMKIT_INLINE constexpr bool starts_line(int k) {
  return k * wide_lanes * static_cast<Index>(sizeof(T)) % 64 == 0;
}

template <class T, class F>
NORMKIT_INLINE void each_wide_column(const T* x, Block block, RowRange rows, Index first, Index cols, Index ahead,
                                     F&& body) {
  for (Index r = rows.begin; r < rows.end; ++r) {
    const T* row = x + r * block.stride + first;
    each_in_group<wide_lanes, sum_wides>(0, cols, [&](Index i, int k, auto n) {
      if (starts_line<T>(k)) fetch(row + ahead + i);
      body(widen(row + i, n), k, n);
    });
  }
}

// body(v, the lanes that count, k, n) for the rows of a block in which elements count.
template <class T, class F>
NORMKIT_INLINE void each_chosen_column(const T* x, Block block, Where where, RowRange rows, Index first, Index cols,
                                       F&& body) {
  for (Index r = rows.begin; r < rows.end; ++r) {
    const T* row = x + r * block.stride + first;
    const Where chosen = from(where, r, 0, first);
    if (where.inner == 0 && *chosen.at == 0) continue;
    each_in_group<wide_lanes, sum_wides>(
        0, cols, [&](Index i, int k, auto n) { body(widen(row + i, n), chosen_lanes<double>(chosen, i, n), k, n); });
  }
}

template <class T>
NORMKIT_INLINE void clear(double* hi, double* lo, Index cols) {
  each_vector<double>(cols, [&](Index i, auto n) { store_planes<T>(hi + i, lo + i, Wide<T>{}, n); });
}

// Σ(x − mean)² of every column, mean being known.
template <class T>
NORMKIT_INLINE void column_squares(const T* x, Block block, ColumnMoments out) {
  clear<T>(out.m2, out.m2_lo, block.cols);
  each_strip<sum_cols>(block, [&](RowRange rows, Index first, Index cols, Index ahead) {
    const WideStrip<T> mean(out.mean + first, out.mean_lo + first, cols);
    WideStrip<T> squares(out.m2 + first, out.m2_lo + first, cols);
    each_wide_column(x, block, rows, first, cols, ahead, [&](Wide<T> v, int k, auto) {
      const Wide<T> d = v - mean.part[k];
      squares.part[k] = multiply_add(d, d, squares.part[k]);
    });
    squares.store_to(out.m2 + first, out.m2_lo + first, cols);
  });
}

template <class T>
NORMKIT_INLINE void column_statistics(const T* x, Block block, ColumnMoments out) {
  clear<T>(out.mean, out.mean_lo, block.cols);
  clear<T>(out.m2, out.m2_lo, block.cols);
  each_strip<sum_cols>(block, [&](RowRange rows, Index first, Index cols, Index ahead) {
    WideStrip<T> sums(out.mean + first, out.mean_lo + first, cols), squares(out.m2 + first, out.m2_lo + first, cols);
    each_wide_column(x, block, rows, first, cols, ahead, [&](Wide<T> v, int k, auto) {
      sums.part[k] = accumulate(sums.part[k], v);
      squares.part[k] = multiply_add(v, v, squares.part[k]);
    });
    sums.store_to(out.mean + first, out.mean_lo + first, cols);
    squares.store_to(out.m2 + first, out.m2_lo + first, cols);
  });
  each_vector<double>(block.cols, [&](Index i, auto n) {
    const Vec<double> sum = load(out.mean + i, n), mean = sum / static_cast<double>(block.rows);
    Mask<double> cancels;
    Vec<double> m2 = centred_squares(sum, mean, load(out.m2 + i, n), block.rows, cancels);
    if (any(cancels)) {
      Vec<double> squares = {};
      for (Index r = 0; r < block.rows; ++r) {
        const Vec<double> d = widen(x + r * block.stride + i, n).hi - mean;
        squares = fma(d, d, squares);
      }
      m2 = cancels ? squares : m2;
    }
    store(out.mean + i, mean, n);
    store(out.m2 + i, m2, n);
  });
}

// Where not all elements count: numbers and sums, then the squares about the means.
template <class T>
NORMKIT_INLINE void chosen_column_statistics(const T* x, Block block, Where where, ColumnMoments out) {
  clear<float>(out.count, nullptr, block.cols);
  clear<T>(out.mean, out.mean_lo, block.cols);
  clear<T>(out.m2, out.m2_lo, block.cols);
  each_strip<sum_cols>(block, [&](RowRange rows, Index first, Index cols, Index) {
    WideStrip<float> counts(out.count + first, nullptr, cols);
    WideStrip<T> sums(out.mean + first, out.mean_lo + first, cols);
    each_chosen_column(x, block, where, rows, first, cols, [&](Wide<T> v, Mask<double> mask, int k, auto) {
      counts.part[k].hi = counts.part[k].hi + keep(broadcast(1.0), mask);
      sums.part[k] = sums.part[k] + keep(v, mask);
    });
    counts.store_to(out.count + first, nullptr, cols);
    sums.store_to(out.mean + first, out.mean_lo + first, cols);
  });
  each_vector<double>(block.cols, [&](Index i, auto n) {
    const Vec<double> count = load(out.count + i, n);
    const Wide<T> sum = load_planes<T>(out.mean + i, out.mean_lo + i, n);
    store_planes<T>(out.mean + i, out.mean_lo + i, divide(sum, at_least_one(count)), n);
  });
  each_strip<sum_cols>(block, [&](RowRange rows, Index first, Index cols, Index) {
    const WideStrip<T> mean(out.mean + first, out.mean_lo + first, cols);
    WideStrip<T> squares(out.m2 + first, out.m2_lo + first, cols);
    each_chosen_column(x, block, where, rows, first, cols, [&](Wide<T> v, Mask<double> mask, int k, auto) {
      const Wide<T> d = keep(v - mean.part[k], mask);
      squares.part[k] = multiply_add(d, d, squares.part[k]);
    });
    squares.store_to(out.m2 + first, out.m2_lo + first, cols);
  });
}

NORMKIT_INLINE void column_statistics(const double* x, Block block, ColumnMoments out) {
  clear<double>(out.mean, out.mean_lo, block.cols);
  each_strip<sum_cols>(block, [&](RowRange rows, Index first, Index cols, Index ahead) {
    WideStrip<double> sums(out.mean + first, out.mean_lo + first, cols);
    each_wide_column(x, block, rows, first, cols, ahead,
                     [&](Wide<double> v, int k, auto) { sums.part[k] = sums.part[k] + v; });
    sums.store_to(out.mean + first, out.mean_lo + first, cols);
  });
  each_vector<double>(block.cols, [&](Index i, auto n) {
    const Wide<double> sum = load_planes<double>(out.mean + i, out.mean_lo + i, n);
    store_planes<double>(out.mean + i, out.mean_lo + i, divide(sum, broadcast(static_cast<double>(block.rows))), n);
  });
  column_squares(x, block, out);
}

template <class T>
void column_moments(const T* x, Block block, Where where, ColumnMoments out) {
  if (where.at)
    chosen_column_statistics(x, block, where, out);
  else
    column_statistics(x, block, out);
}

// delta·n/total, n being whole. For float data the factor's own rounding does not show.
NORMKIT_INLINE Wide<float> times_share(Wide<float> delta, Vec<double> n, Vec<double> total) {
  return {delta.hi * (n / total)};
}
NORMKIT_INLINE Wide<double> times_share(Wide<double> delta, Vec<double> n, Vec<double> total) {
  return divide(delta * whole<double>(n), total);
}

// Chan, Golub & LeVeque (1983): the moments of `more` further rows join those of `count`.
template <class T>
void merge_columns(ColumnMoments moments, double rows, ColumnMoments others, double more_rows, Index cols) {
  each_vector<double>(cols, [&](Index i, auto n) {
    Vec<double> count = broadcast(rows), more = broadcast(more_rows);
    if (moments.count) {
      count = load(moments.count + i, n);
      more = load(others.count + i, n);
      store(moments.count + i, count + more, n);
    }
    const Wide<T> mean = load_planes<T>(moments.mean + i, moments.mean_lo + i, n),
                  m2 = load_planes<T>(moments.m2 + i, moments.m2_lo + i, n),
                  delta = load_planes<T>(others.mean + i, others.mean_lo + i, n) - mean,
                  step = times_share(delta, more, at_least_one(count + more));
    store_planes<T>(moments.mean + i, moments.mean_lo + i, mean + step, n);
    const Wide<T> within = m2 + load_planes<T>(others.m2 + i, others.m2_lo + i, n);
    store_planes<T>(moments.m2 + i, moments.m2_lo + i, multiply_add(delta * step, whole<T>(count), within), n);
  });
}

}  // namespace
