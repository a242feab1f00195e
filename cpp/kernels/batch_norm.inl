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

// Whether relu passes a gradient at z, and at relu(z).
template <class T, class N>
NORMKIT_INLINE void put_active(Vec<T> z, BitWriter& writer, N n) {
  Index count = lanes<T>;
  if constexpr (is_part<N>) count = n.n;
  writer.put(~lane_bits<T>(z <= Vec<T>{}) & ((std::uint32_t{1} << count) - 1), count);
}

template <class T>
void keep_active(const T* y, Index count, ActiveBits active) {
  BitWriter writer(active);
  each_vector<T>(count, [&](Index i, auto n) { put_active<T>(load(y + i, n), writer, n); });
  writer.finish();
}

// z + residual, activated; the bits go to `writer`.
template <bool adds, bool keeps, class T, class A, class N>
NORMKIT_INLINE Vec<T> fused(A a, Vec<T> z, const T* residual, BitWriter* writer, N n) {
  if constexpr (adds) z = z + load(residual, n);
  if constexpr (keeps) put_active<T>(z, *writer, n);
  return a.template value<T>(z);
}
// body(activation, Constant<adds>, Constant<keeps>); bits are kept of relu alone.
template <class T, class F>
NORMKIT_INLINE void with_fusion(const Fusion<T>& fusion, F&& body) {
  if (fusion.slope != 1.0) return body(LeakyRelu{fusion.slope}, Constant<false>{}, Constant<false>{});
  with_flag(fusion.residual != nullptr, [&](auto adds) {
    if (fusion.activation == Activation::none)
      body(Identity{}, adds, Constant<false>{});
    else if (fusion.active.at)
      body(Relu{}, adds, Constant<true>{});
    else
      body(Relu{}, adds, Constant<false>{});
  });
}

// x comes from a cache, the residual from memory, 1 KB before it is wanted.
template <class T>
constexpr Index residual_ahead = 1024 / static_cast<Index>(sizeof(T));

template <class T>
void affine(const T* x, T* y, Runs runs, Index channels, AffineColumns<Real<T>> affine, Fusion<T> fusion,
            Stores stores) {
  with_fusion(fusion, [&](auto a, auto adds, auto keeps) {
    each_written_run(y, runs, channels, stores.reach, [&](auto streams, auto fetches, Index run, Index c, T* to) {
      const Vec<T> center = broadcast(affine.center[c]), scale = broadcast(affine.scale[c]),
                   shift = broadcast(affine.shift[c]);
      BitWriter writer(from(fusion.active, run));
      each_vector_of<streams.value>(to, runs.inner, [&](Index i, auto n) {
        fetch_beside_stream<fetches.value>(x + run + stores.ahead, i);
        if constexpr (adds.value) fetch_beside_stream<fetches.value>(fusion.residual + run + residual_ahead<T>, i);
        const Vec<T> z = fma(load(x + run + i, n) - center, scale, shift);
        store<streams.value>(to + i, fused<adds.value, keeps.value, T>(a, z, fusion.residual + run + i, &writer, n), n);
      });
      if constexpr (keeps.value) writer.finish();
    });
  });
}

template <class T>
void active_gradients(const T* dy, T* dz, Runs runs, Index channels, ActiveBits active) {
  each_run(runs, channels, [&](Index run, Index) {
    const ActiveOf passes{from(active, run)};
    each_vector<T>(runs.inner, [&](Index i, auto n) {
      const Vec<T> dy_i = load(dy + run + i, n);
      store(dz + run + i, passes.gradient(dy_i, dy_i, i), n);
    });
  });
}

// dx = ((g − dy_center) + (x − center)·scale)·dy_scale with g = dy or dy·weight.
template <bool weighted, class T, class P>
NORMKIT_INLINE Vec<T> gradient_of(P passage, Vec<T> given_dy, Vec<T> given_x, Index i,
                                  const GradientAffine<Vec<T>>& affine, Vec<T> weight) {
  const Vec<T> dy = passage.gradient(given_dy, given_x, i), x = passage.input(given_x);
  const Vec<T> g = weighted ? fma(dy, weight, -affine.dy_center) : dy - affine.dy_center;
  return fma(x - affine.center, affine.scale, g) * affine.dy_scale;
}
// Elements that do not count in the statistics keep g as it is; with plain stores, whatever the size.
template <bool weighted, class T, class P>
NORMKIT_INLINE Vec<T> chosen_gradient(P passage, Vec<T> given_dy, Vec<T> x, Index i,
                                      const GradientAffine<Vec<T>>& affine, Vec<T> weight, Mask<T> chosen) {
  const Vec<T> all = gradient_of<weighted, T>(passage, given_dy, x, i, affine, weight),
               dy = passage.gradient(given_dy, x, i), g = weighted ? dy * weight : dy;
  return chosen ? all : g * affine.dy_scale;
}

template <class T>
NORMKIT_INLINE GradientAffine<Vec<T>> channel_of(const GradientAffineColumns<Real<T>>& affine, Index c) {
  return {broadcast(affine.center[c]), broadcast(affine.scale[c]), broadcast(affine.dy_center[c]),
          broadcast(affine.dy_scale[c])};
}
template <class T, class N>
NORMKIT_INLINE GradientAffine<Vec<T>> columns_of(const GradientAffineColumns<Real<T>>& affine, Index i, N n) {
  return {load(affine.center + i, n), load(affine.scale + i, n), load(affine.dy_center + i, n),
          load(affine.dy_scale + i, n)};
}

template <class T>
void gradient_affine(const T* dy, const T* x, T* dx, Runs runs, Index channels, GradientAffineColumns<Real<T>> affine,
                     Passage passage, Where where, Stores stores) {
  with_passage(passage, [&](auto passes) {
    with_flag(affine.weight != nullptr, [&](auto weighted) {
      const auto weight_of = [&](Index c) { return weighted.value ? broadcast(affine.weight[c]) : Vec<T>{}; };
      if (where.at) {
        for (Index o = 0; o < runs.outer; ++o)
          for (Index c = 0; c < channels; ++c) {
            const Index run = o * runs.stride + c * runs.inner;
            const Where own_where = from(where, o, c, 0);
            const GradientAffine<Vec<T>> own = channel_of<T>(affine, c);
            const Vec<T> weight = weight_of(c);
            each_vector<T>(runs.inner, [&](Index i, auto n) {
              store(dx + run + i,
                    chosen_gradient<weighted.value, T>(passes, load(dy + run + i, n), load(x + run + i, n), run + i,
                                                       own, weight, chosen_lanes<T>(own_where, i, n)),
                    n);
            });
          }
        return;
      }
      each_written_run(dx, runs, channels, stores.reach, [&](auto streams, auto fetches, Index run, Index c, T* to) {
        const GradientAffine<Vec<T>> own = channel_of<T>(affine, c);
        const Vec<T> weight = weight_of(c);
        const auto passes_run = passes.from(run);
        each_vector_of<streams.value>(to, runs.inner, [&](Index i, auto n) {
          fetch_beside_stream<fetches.value>(dy + run + stores.ahead, i);
          fetch_beside_stream<fetches.value>(x + run + stores.ahead, i);
          store<streams.value>(
              to + i,
              gradient_of<weighted.value, T>(passes_run, load(dy + run + i, n), load(x + run + i, n), i, own, weight),
              n);
        });
      });
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
void column_affine(const T* x, T* y, Block block, AffineColumns<Real<T>> affine, Fusion<T> fusion, Reach reach) {
  with_fusion(fusion, [&](auto a, auto adds, auto keeps) {
    with_stores(reach, [&](auto streams) {
      each_rows<streams.value, T>(block, reach, [&](auto rows, Index offset) {
        const T *from_x = x + offset, *residual = fusion.residual + offset;
        T* to = y + offset;
        BitWriter writers[4] = {BitWriter(from(fusion.active, offset)),
                                BitWriter(from(fusion.active, offset + block.stride)),
                                BitWriter(from(fusion.active, offset + 2 * block.stride)),
                                BitWriter(from(fusion.active, offset + 3 * block.stride))};
        each_vector<T>(block.cols, [&](Index i, auto n) {
          const Vec<T> center = load(affine.center + i, n), scale = load(affine.scale + i, n),
                       shift = load(affine.shift + i, n);
          Vec<T> v[rows.value];
          each_constant<rows.value>([&](auto r) __attribute__((always_inline)) {
            const Index at = r * block.stride + i;
            const Vec<T> z = fma(load(from_x + at, n) - center, scale, shift);
            v[r] = fused<adds.value, keeps.value, T>(a, z, residual + at, &writers[r], n);
          });
#pragma GCC unroll 4
          for (int r = 0; r < rows.value; ++r) store<streams.value>(to + r * block.stride + i, v[r], n);
        });
        if constexpr (keeps.value) each_constant<rows.value>([&](auto r) { writers[r].finish(); });
      });
    });
  });
}

template <class T>
void column_gradient_affine(const T* dy, const T* x, T* dx, Block block, GradientAffineColumns<Real<T>> affine,
                            Passage passage, Where where, Reach reach) {
  with_passage(passage, [&](auto passes) {
    with_flag(affine.weight != nullptr, [&](auto weighted) {
      const auto weights_of = [&](Index i, auto n) {
        Vec<T> weight = {};
        if constexpr (weighted.value) weight = load(affine.weight + i, n);
        return weight;
      };
      if (where.at) {
        for (Index r = 0; r < block.rows; ++r) {
          const Index row = r * block.stride;
          const Where own = from(where, r, 0, 0);
          each_vector<T>(block.cols, [&](Index i, auto n) {
            store(dx + row + i,
                  chosen_gradient<weighted.value, T>(passes, load(dy + row + i, n), load(x + row + i, n), row + i,
                                                     columns_of<T>(affine, i, n), weights_of(i, n),
                                                     chosen_lanes<T>(own, i, n)),
                  n);
          });
        }
        return;
      }
      with_stores(reach, [&](auto streams) {
        each_rows<streams.value, T>(block, reach, [&](auto rows, Index offset) {
          const T *dy_rows = dy + offset, *x_rows = x + offset;
          T* to = dx + offset;
          each_vector<T>(block.cols, [&](Index i, auto n) {
            const GradientAffine<Vec<T>> columns = columns_of<T>(affine, i, n);
            const Vec<T> weight = weights_of(i, n);
            Vec<T> v[rows.value];
#pragma GCC unroll 4
            for (int r = 0; r < rows.value; ++r) {
              const Index at = r * block.stride + i;
              v[r] = gradient_of<weighted.value, T>(passes, load(dy_rows + at, n), load(x_rows + at, n), offset + at,
                                                    columns, weight);
            }
#pragma GCC unroll 4
            for (int r = 0; r < rows.value; ++r) store<streams.value>(to + r * block.stride + i, v[r], n);
          });
        });
      });
    });
  });
}

template <class P, class T>
NORMKIT_INLINE void column_gradient_sums(const T* dy, const T* x, Block block, ColumnMean mean, P passage,
                                         ColumnGradientSums out) {
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
        const Wide<T> x_i = widen(x + i, n), dy_i = passage.gradient(Wide<T>(widen(dy + i, n)), x_i, i);
        g.part[k] = accumulate(g.part[k], dy_i);
        gd.part[k] = multiply_add(dy_i, accumulate(minus_mean.part[k], passage.input(x_i)), gd.part[k]);
      });
    }
    g.store_to(out.g + first, out.g_lo + first, cols);
    gd.store_to(out.gd + first, out.gd_lo + first, cols);
  });
}

template <class T>
void column_gradient_sums(const T* dy, const T* x, Block block, ColumnMean mean, Passage passage,
                          ColumnGradientSums out) {
  with_passage(passage, [&](auto passes) { column_gradient_sums(dy, x, block, mean, passes, out); });
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
