// Mean and Σ(x − mean)² of a block, both in twice the precision of the data: a mean that is exact enough at any mean/σ,
// and a variance whose error never shows beside the roundings of x̂.

namespace {

template <class T>
NORMKIT_INLINE Sum sum_runs(const T* x, Runs runs) {
  WideLanes<T, sum_lanes> sums;
  for (Index o = 0; o < runs.outer; ++o) add_run(x + o * runs.stride, runs.inner, sums);
  return sums.total();
}

template <class T>
BlockMoments moments(const T* x, Runs runs) {
  const Sum mean = divide<T>(sum_runs(x, runs), static_cast<double>(runs.outer * runs.inner));
  WideLanes<T, sum_lanes> squares;
  for (Index o = 0; o < runs.outer; ++o) add_squares(x + o * runs.stride, runs.inner, broadcast_wide<T>(mean), squares);
  return {mean, squares.total()};
}

// The columns of a block in strips whose accumulators stay in registers over all rows: body(first, count).
constexpr int strip_vectors = 4;
template <class T>
constexpr Index strip_cols = strip_vectors * lanes<T>;
template <class T>
constexpr int strip_wides = strip_vectors * wides_per_vector<T>;

template <class T, class F>
NORMKIT_INLINE void each_strip(Index cols, F&& body) {
  Index first = 0;
  for (; first + strip_cols<T> <= cols; first += strip_cols<T>) body(first, strip_cols<T>);
  if (first < cols) body(first, cols - first);
}

template <class T>
void column_moments(const T* x, Block block, ColumnMoments out) {
  each_strip<T>(block.cols, [&](Index strip, Index cols) {
    Wide<T> mean[strip_wides<T>] = {}, squares[strip_wides<T>] = {};
    for (Index r = 0; r < block.rows; ++r) {
      const T* row = x + r * block.stride + strip;
      each_in_group<wide_lanes, strip_wides<T>>(0, cols,
                                                [&](Index i, int k, auto n) { mean[k] = mean[k] + widen(row + i, n); });
    }
#pragma GCC unroll 16
    for (int k = 0; k < strip_wides<T>; ++k) mean[k] = divide(mean[k], static_cast<double>(block.rows));
    for (Index r = 0; r < block.rows; ++r) {
      const T* row = x + r * block.stride + strip;
      each_in_group<wide_lanes, strip_wides<T>>(0, cols, [&](Index i, int k, auto n) {
        const Wide<T> d = widen(row + i, n) - mean[k];
        squares[k] = multiply_add(d, d, squares[k]);
      });
    }
    each_in_group<wide_lanes, strip_wides<T>>(0, cols, [&](Index i, int k, auto n) {
      store_planes<T>(out.mean + strip + i, out.mean_lo + strip + i, mean[k], n);
      store_planes<T>(out.m2 + strip + i, out.m2_lo + strip + i, squares[k], n);
    });
  });
}

}  // namespace
