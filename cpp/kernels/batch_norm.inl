// Batch norm on a channel's runs, or on columns (one channel each) of a block of rows.

namespace {

// body(Constant<stream>)
template <class F>
NORMKIT_INLINE void with_stores(Reach reach, F&& body) {
  with_flag(reach == Reach::past, body);
}

// body(Constant<streams>, Constant<fetches>, offset, channel, to) for every run of some channels; `to` is where it
// writes: y, or memory from where the runs of all channels, which are neighbours, go to y together.
template <class T, class F>
NORMKIT_INLINE void each_written_run(T* y, Runs runs, Index channels, Reach reach, F&& body) {
  const bool is_short = runs.inner * static_cast<Index>(sizeof(T)) < long_run;
  if (reach != Reach::past || !is_short) {
    with_stores(reach, [&](auto streams) {
      each_run(runs, channels, [&](Index run, Index c) { body(streams, streams, run, c, y + run); });
    });
    return;
  }
  constexpr Index line = 64 / static_cast<Index>(sizeof(T));
  alignas(64) T stage[most_staged / static_cast<Index>(sizeof(T)) + line];
  for (Index o = 0; o < runs.outer; ++o) {
    T* to = y + o * runs.stride;
    T* staged = stage + past_a_line(to);
    for (Index c = 0; c < channels; ++c)
      body(Constant<false>{}, Constant<true>{}, o * runs.stride + c * runs.inner, c, staged + c * runs.inner);
    each_vector_of<true>(to, channels * runs.inner,
                         [&](Index i, auto n) { store<true>(to + i, load(staged + i, n), n); });
  }
}

template <class T>
void affine(const T* x, T* y, Runs runs, Index channels, AffineColumns<Real<T>> affine, Stores stores) {
  each_written_run(y, runs, channels, stores.reach, [&](auto streams, auto fetches, Index run, Index c, T* to) {
    const Vec<T> center = broadcast(affine.center[c]), scale = broadcast(affine.scale[c]),
                 shift = broadcast(affine.shift[c]);
    each_vector_of<streams.value>(to, runs.inner, [&](Index i, auto n) {
      fetch_beside_stream<fetches.value>(x + run + stores.ahead, i);
      store<streams.value>(to + i, fma(load(x + run + i, n) - center, scale, shift), n);
    });
  });
}

// Elements that do not count in the statistics keep dy as it is; with plain stores, whatever the size.
template <class T>
NORMKIT_INLINE Vec<T> chosen_gradient(Vec<T> dy, Vec<T> x, GradientAffine<Vec<T>> affine, Mask<T> chosen) {
  const Vec<T> g = fma(x - affine.center, affine.scale, dy - affine.dy_center);
  return (chosen ? g : dy) * affine.dy_scale;
}

template <class T>
NORMKIT_INLINE void chosen_gradient_affine(const T* dy, const T* x, T* dx, Runs runs, Index channels,
                                           GradientAffineColumns<Real<T>> affine, Where where) {
  for (Index o = 0; o < runs.outer; ++o)
    for (Index c = 0; c < channels; ++c) {
      const Index run = o * runs.stride + c * runs.inner;
      const Where own_where = from(where, o, c, 0);
      const GradientAffine<Vec<T>> own{broadcast(affine.center[c]), broadcast(affine.scale[c]),
                                       broadcast(affine.dy_center[c]), broadcast(affine.dy_scale[c])};
      each_vector<T>(runs.inner, [&](Index i, auto n) {
        const Mask<T> chosen = chosen_lanes<T>(own_where, i, n);
        store(dx + run + i, chosen_gradient<T>(load(dy + run + i, n), load(x + run + i, n), own, chosen), n);
      });
    }
}

template <class T>
void gradient_affine(const T* dy, const T* x, T* dx, Runs runs, Index channels, GradientAffineColumns<Real<T>> affine,
                     Where where, Stores stores) {
  if (where.at) return chosen_gradient_affine(dy, x, dx, runs, channels, affine, where);
  each_written_run(dx, runs, channels, stores.reach, [&](auto streams, auto fetches, Index run, Index c, T* to) {
    const Vec<T> center = broadcast(affine.center[c]), scale = broadcast(affine.scale[c]),
                 dy_center = broadcast(affine.dy_center[c]), dy_scale = broadcast(affine.dy_scale[c]);
    each_vector_of<streams.value>(to, runs.inner, [&](Index i, auto n) {
      fetch_beside_stream<fetches.value>(dy + run + stores.ahead, i);
      fetch_beside_stream<fetches.value>(x + run + stores.ahead, i);
      const Vec<T> g = load(dy + run + i, n) - dy_center;
      store<streams.value>(to + i, fma(load(x + run + i, n) - center, scale, g) * dy_scale, n);
    });
  });
}

// body(Constant<rows>, offset) for the rows of a block, several at a time. They share the loads of coefficients, and
// are all read before any is written: the processor takes a row that is read for one that was just written if the two
// are a multiple of 4096 bytes apart, and waits. Rows that far apart also share their places in the first-level cache,
// which has room for two of each array.
template <int together, class F>
NORMKIT_INLINE void each_rows_of(Block block, F&& body) {
  Index r = 0;
  for (; r + together <= block.rows; r += together) body(Constant<together>{}, r * block.stride);
  for (; r < block.rows; ++r) body(Constant<1>{}, r * block.stride);
}
template <bool stream, class T, class F>
NORMKIT_INLINE void each_rows(Block block, Reach reach, F&& body) {
  if (stream || reach == Reach::far)
    each_rows_of<1>(block, body);
  else if (block.stride * static_cast<Index>(sizeof(T)) % 4096 == 0)
    each_rows_of<2>(block, body);
  else
    each_rows_of<4>(block, body);
}

template <class T>
void column_affine(const T* x, T* y, Block block, AffineColumns<Real<T>> affine, Reach reach) {
  with_stores(reach, [&](auto streams) {
    each_rows<streams.value, T>(block, reach, [&](auto rows, Index offset) {
      const T* from = x + offset;
      T* to = y + offset;
      each_vector<T>(block.cols, [&](Index i, auto n) {
        const Vec<T> center = load(affine.center + i, n), scale = load(affine.scale + i, n),
                     shift = load(affine.shift + i, n);
        Vec<T> v[rows.value];
#pragma GCC unroll 4
        for (int r = 0; r < rows.value; ++r) v[r] = fma(load(from + r * block.stride + i, n) - center, scale, shift);
#pragma GCC unroll 4
        for (int r = 0; r < rows.value; ++r) store<streams.value>(to + r * block.stride + i, v[r], n);
      });
    });
  });
}

template <class T>
NORMKIT_INLINE void chosen_column_gradient_affine(const T* dy, const T* x, T* dx, Block block,
                                                  GradientAffineColumns<Real<T>> affine, Where where) {
  for (Index r = 0; r < block.rows; ++r) {
    const Index row = r * block.stride;
    const Where own = from(where, r, 0, 0);
    each_vector<T>(block.cols, [&](Index i, auto n) {
      const GradientAffine<Vec<T>> columns{load(affine.center + i, n), load(affine.scale + i, n),
                                           load(affine.dy_center + i, n), load(affine.dy_scale + i, n)};
      store(dx + row + i,
            chosen_gradient<T>(load(dy + row + i, n), load(x + row + i, n), columns, chosen_lanes<T>(own, i, n)), n);
    });
  }
}

template <class T>
void column_gradient_affine(const T* dy, const T* x, T* dx, Block block, GradientAffineColumns<Real<T>> affine,
                            Where where, Reach reach) {
  if (where.at) return chosen_column_gradient_affine(dy, x, dx, block, affine, where);
  with_stores(reach, [&](auto streams) {
    each_rows<streams.value, T>(block, reach, [&](auto rows, Index offset) {
      const T *dy_rows = dy + offset, *x_rows = x + offset;
      T* to = dx + offset;
      each_vector<T>(block.cols, [&](Index i, auto n) {
        const Vec<T> center = load(affine.center + i, n), scale = load(affine.scale + i, n),
                     dy_center = load(affine.dy_center + i, n), dy_scale = load(affine.dy_scale + i, n);
        Vec<T> v[rows.value];
#pragma GCC unroll 4
        for (int r = 0; r < rows.value; ++r) {
          const Vec<T> g = load(dy_rows + r * block.stride + i, n) - dy_center;
          v[r] = fma(load(x_rows + r * block.stride + i, n) - center, scale, g) * dy_scale;
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows.value; ++r) store<streams.value>(to + r * block.stride + i, v[r], n);
      });
    });
  });
}

template <class T>
void column_gradient_sums(const T* dy, const T* x, Block block, ColumnMean mean, ColumnGradientSums out) {
  clear<T>(out.g, out.g_lo, block.cols);
  clear<T>(out.gd, out.gd_lo, block.cols);
  each_strip<sum_cols>(block, [&](RowRange rows, Index first, Index cols, Index ahead) {
    WideStrip<T> minus_mean(mean.mean + first, mean.mean_lo + first, cols);
#pragma GCC unroll 8
    for (int k = 0; k < sum_wides; ++k) minus_mean.part[k] = Wide<T>{} - minus_mean.part[k];
    WideStrip<T> g(out.g + first, out.g_lo + first, cols), gd(out.gd + first, out.gd_lo + first, cols);
    for (Index r = rows.begin; r < rows.end; ++r) {
      const Index row = r * block.stride + first;
      each_in_group<wide_lanes, sum_wides>(row, cols, [&](Index i, int k, auto n) {
        if (starts_line<T>(k)) {
          fetch(dy + ahead + i);
          fetch(x + ahead + i);
        }
        const Wide<T> dy_wide = widen(dy + i, n);
        g.part[k] = accumulate(g.part[k], dy_wide);
        gd.part[k] = multiply_add(dy_wide, accumulate(minus_mean.part[k], widen(x + i, n)), gd.part[k]);
      });
    }
    g.store_to(out.g + first, out.g_lo + first, cols);
    gd.store_to(out.gd + first, out.gd_lo + first, cols);
  });
}

template <class T>
void add_columns(ColumnGradientSums sums, ColumnGradientSums others, Index cols) {
  each_vector<double>(cols, [&](Index i, auto n) {
    const Wide<T> g = load_planes<T>(sums.g + i, sums.g_lo + i, n) + load_planes<T>(others.g + i, others.g_lo + i, n),
                  gd = load_planes<T>(sums.gd + i, sums.gd_lo + i, n) +
                       load_planes<T>(others.gd + i, others.gd_lo + i, n);
    store_planes<T>(sums.g + i, sums.g_lo + i, g, n);
    store_planes<T>(sums.gd + i, sums.gd_lo + i, gd, n);
  });
}

}  // namespace
