// Batch norm on a channel's runs, or on columns (one channel each) of a block of rows.

namespace {

// body(Constant<stream>)
template <class F>
NORMKIT_INLINE void with_stores(bool stream, F&& body) {
  if (stream)
    body(Constant<true>{});
  else
    body(Constant<false>{});
}

template <class T>
void affine(const T* x, T* y, Runs runs, Affine<T> affine, bool stream) {
  const Vec<T> center = broadcast(affine.center), scale = broadcast(affine.scale), shift = broadcast(affine.shift);
  with_stores(stream, [&](auto streams) {
    for (Index o = 0; o < runs.outer; ++o) {
      const T* x_run = x + o * runs.stride;
      T* y_run = y + o * runs.stride;
      each_vector_of<streams.value>(y_run, runs.inner, [&](Index i, auto n) {
        store<streams.value>(y_run + i, fma(load(x_run + i, n) - center, scale, shift), n);
      });
    }
  });
}

template <class T>
void plane_affine(const T* x, T* y, Index planes, Index inner, AffineColumns<T> affine, bool stream) {
  with_stores(stream, [&](auto streams) {
    for (Index p = 0; p < planes; ++p) {
      const Vec<T> center = broadcast(affine.center[p]), scale = broadcast(affine.scale[p]),
                   shift = broadcast(affine.shift[p]);
      const T* from = x + p * inner;
      T* to = y + p * inner;
      each_vector_of<streams.value>(to, inner, [&](Index i, auto n) {
        store<streams.value>(to + i, fma(load(from + i, n) - center, scale, shift), n);
      });
    }
  });
}

template <class T>
void gradient_affine(const T* dy, const T* x, T* dx, Runs runs, GradientAffine<T> affine, bool stream) {
  const Vec<T> center = broadcast(affine.center), scale = broadcast(affine.scale),
               dy_center = broadcast(affine.dy_center), dy_scale = broadcast(affine.dy_scale);
  with_stores(stream, [&](auto streams) {
    for (Index o = 0; o < runs.outer; ++o) {
      const Index run = o * runs.stride;
      each_vector_of<streams.value>(dx + run, runs.inner, [&](Index i, auto n) {
        const Vec<T> g = load(dy + run + i, n) - dy_center;
        store<streams.value>(dx + run + i, fma(load(x + run + i, n) - center, scale, g) * dy_scale, n);
      });
    }
  });
}

// Coefficients of a strip of columns.
constexpr int strip_vectors = 4;
template <class T>
constexpr Index strip_cols = strip_vectors * lanes<T>;

template <class T>
struct StripOf {
  Vec<T> part[strip_vectors] = {};
  NORMKIT_INLINE StripOf(const T* p, Index cols) {
    each_in_group<lanes<T>, strip_vectors>(0, cols, [&](Index i, int k, auto n) { part[k] = load(p + i, n); });
  }
};

// body(i, k, n): the k-th vector of a strip is at offset i, for all rows.
template <class T, class F>
NORMKIT_INLINE void each_in_strip(Block block, RowRange rows, Index first, Index cols, F&& body) {
  for (Index r = rows.begin; r < rows.end; ++r)
    each_in_group<lanes<T>, strip_vectors>(r * block.stride + first, cols, body);
}

template <class T>
void column_affine(const T* x, T* y, Block block, AffineColumns<T> affine, bool stream) {
  with_stores(stream, [&](auto streams) {
    each_strip<strip_cols<T>, 8>(block, [&](RowRange rows, Index first, Index cols) {
      const StripOf<T> center(affine.center + first, cols), scale(affine.scale + first, cols),
          shift(affine.shift + first, cols);
      const Index ahead = (rows.end - rows.begin) * block.stride;
      each_in_strip<T>(block, rows, first, cols, [&](Index i, int k, auto n) {
        fetch(x + ahead + i);
        store<streams.value>(y + i, fma(load(x + i, n) - center.part[k], scale.part[k], shift.part[k]), n);
      });
    });
  });
}

template <class T>
void column_gradient_affine(const T* dy, const T* x, T* dx, Block block, GradientAffineColumns<T> affine, bool stream) {
  with_stores(stream, [&](auto streams) {
    each_strip<strip_cols<T>, 8>(block, [&](RowRange rows, Index first, Index cols) {
      const StripOf<T> center(affine.center + first, cols), scale(affine.scale + first, cols),
          dy_center(affine.dy_center + first, cols), dy_scale(affine.dy_scale + first, cols);
      const Index ahead = (rows.end - rows.begin) * block.stride;
      each_in_strip<T>(block, rows, first, cols, [&](Index i, int k, auto n) {
        fetch(dy + ahead + i);
        fetch(x + ahead + i);
        const Vec<T> g = load(dy + i, n) - dy_center.part[k];
        store<streams.value>(dx + i, fma(load(x + i, n) - center.part[k], scale.part[k], g) * dy_scale.part[k], n);
      });
    });
  });
}

template <class T>
void column_gradient_sums(const T* dy, const T* x, Block block, ColumnMean mean, ColumnGradientSums out) {
  clear<T>(out.g, out.g_lo, block.cols);
  clear<T>(out.gd, out.gd_lo, block.cols);
  each_strip<sum_cols>(block, [&](RowRange rows, Index first, Index cols) {
    WideStrip<T> minus_mean(mean.mean + first, mean.mean_lo + first, cols);
#pragma GCC unroll 8
    for (int k = 0; k < sum_wides; ++k) minus_mean.part[k] = Wide<T>{} - minus_mean.part[k];
    WideStrip<T> g(out.g + first, out.g_lo + first, cols), gd(out.gd + first, out.gd_lo + first, cols);
    const Index ahead = (rows.end - rows.begin) * block.stride;
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
                  gd = load_planes<T>(sums.gd + i, sums.gd_lo + i, n) + load_planes<T>(others.gd + i, others.gd_lo + i, n);
    store_planes<T>(sums.g + i, sums.g_lo + i, g, n);
    store_planes<T>(sums.gd + i, sums.gd_lo + i, gd, n);
  });
}

}  // namespace
