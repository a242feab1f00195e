// Batch norm on a channel's runs, or on columns (one channel each) of a block of rows.

namespace {

template <class T>
void affine(const T* x, T* y, Runs runs, Affine<T> affine) {
  const Vec<T> center = broadcast(affine.center), scale = broadcast(affine.scale), shift = broadcast(affine.shift);
  for (Index o = 0; o < runs.outer; ++o) {
    const T* x_run = x + o * runs.stride;
    T* y_run = y + o * runs.stride;
    each_vector<T>(runs.inner,
                   [&](Index i, auto n) { store(y_run + i, fma(load(x_run + i, n) - center, scale, shift), n); });
  }
}

template <class T>
void gradient_affine(const T* dy, const T* x, T* dx, Runs runs, GradientAffine<T> affine) {
  const Vec<T> center = broadcast(affine.center), scale = broadcast(affine.scale),
               dy_center = broadcast(affine.dy_center), dy_scale = broadcast(affine.dy_scale);
  for (Index o = 0; o < runs.outer; ++o) {
    const Index run = o * runs.stride;
    each_vector<T>(runs.inner, [&](Index i, auto n) {
      const Vec<T> g = load(dy + run + i, n) - dy_center;
      store(dx + run + i, fma(load(x + run + i, n) - center, scale, g) * dy_scale, n);
    });
  }
}

template <class T>
struct StripOf {
  Vec<T> part[strip_vectors] = {};
  NORMKIT_INLINE StripOf(const T* p, Index cols) {
    each_in_group<lanes<T>, strip_vectors>(0, cols, [&](Index i, int k, auto n) { part[k] = load(p + i, n); });
  }
};

template <class T>
void column_affine(const T* x, T* y, Block block, AffineColumns<T> affine) {
  each_strip<T>(block.cols, [&](Index strip, Index cols) {
    const StripOf<T> center(affine.center + strip, cols), scale(affine.scale + strip, cols),
        shift(affine.shift + strip, cols);
    for (Index r = 0; r < block.rows; ++r) {
      const Index row = r * block.stride + strip;
      each_in_group<lanes<T>, strip_vectors>(0, cols, [&](Index i, int k, auto n) {
        store(y + row + i, fma(load(x + row + i, n) - center.part[k], scale.part[k], shift.part[k]), n);
      });
    }
  });
}

template <class T>
void column_gradient_affine(const T* dy, const T* x, T* dx, Block block, GradientAffineColumns<T> affine) {
  each_strip<T>(block.cols, [&](Index strip, Index cols) {
    const StripOf<T> center(affine.center + strip, cols), scale(affine.scale + strip, cols),
        dy_center(affine.dy_center + strip, cols), dy_scale(affine.dy_scale + strip, cols);
    for (Index r = 0; r < block.rows; ++r) {
      const Index row = r * block.stride + strip;
      each_in_group<lanes<T>, strip_vectors>(0, cols, [&](Index i, int k, auto n) {
        const Vec<T> g = load(dy + row + i, n) - dy_center.part[k];
        store(dx + row + i, fma(load(x + row + i, n) - center.part[k], scale.part[k], g) * dy_scale.part[k], n);
      });
    }
  });
}

// Two wide vectors of columns at a time: two sums, the mean and the operands of each fill the registers.
template <class T>
void column_gradient_sums(const T* dy, const T* x, Block block, ColumnMean mean, ColumnGradientSums out) {
  constexpr int wides = 2;
  for (Index strip = 0; strip < block.cols; strip += wides * wide_lanes) {
    const Index left = block.cols - strip, cols = left < wides * wide_lanes ? left : wides * wide_lanes;
    Wide<T> g[wides] = {}, gd[wides] = {}, center[wides] = {};
    each_in_group<wide_lanes, wides>(0, cols, [&](Index i, int k, auto n) {
      center[k] = load_planes<T>(mean.mean + strip + i, mean.mean_lo + strip + i, n);
    });
    for (Index r = 0; r < block.rows; ++r) {
      const Index row = r * block.stride + strip;
      each_in_group<wide_lanes, wides>(0, cols, [&](Index i, int k, auto n) {
        const Wide<T> dy_wide = widen(dy + row + i, n);
        g[k] = g[k] + dy_wide;
        gd[k] = multiply_add(dy_wide, widen(x + row + i, n) - center[k], gd[k]);
      });
    }
    each_in_group<wide_lanes, wides>(0, cols, [&](Index i, int k, auto n) {
      store_planes<T>(out.g + strip + i, out.g_lo + strip + i, g[k], n);
      store_planes<T>(out.gd + strip + i, out.gd_lo + strip + i, gd[k], n);
    });
  }
}

}  // namespace
