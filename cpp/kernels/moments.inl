// Mean and sum of squares of a block: the mean from a wide sum, which is exact enough at any mean/σ, then the squares
// of x − center for a center in T next to the mean. Σ(x − center)² − n(mean − center)² is what they are about the
// mean itself (Chan, Golub & LeVeque 1983).

namespace {

template <class T>
NORMKIT_INLINE Sum sum_runs(const T* x, Runs runs) {
  WideLanes<T, sum_lanes> sums;
  for (Index o = 0; o < runs.outer; ++o) add_run(x + o * runs.stride, runs.inner, sums);
  return sums.total();
}

template <class T>
BlockMoments moments(const T* x, Runs runs) {
  const double count = static_cast<double>(runs.outer * runs.inner);
  const Sum mean = divide<T>(sum_runs(x, runs), count);
  const T center = static_cast<T>(mean.hi);
  SquareLanes<T> lanes_of_squares;
  for (Index o = 0; o < runs.outer; ++o) lanes_of_squares.add_run(x + o * runs.stride, runs.inner, center);
  const Sum squares = lanes_of_squares.total();
  const double c = (mean.hi - static_cast<double>(center)) + mean.lo;
  const double m2 = (squares.hi - count * (c * c)) + squares.lo;
  return {mean, m2 < 0.0 ? 0.0 : m2};
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

// Σ(x − center)² of one strip, in T for 16 rows at a time, then folded into wide sums.
template <class T>
NORMKIT_INLINE void strip_squares(const T* x, Block block, const T* center, Wide<T>* squares) {
  Vec<T> m[strip_vectors] = {};
  each_in_group<lanes<T>, strip_vectors>(0, block.cols, [&](Index i, int k, auto n) { m[k] = load(center + i, n); });
  for (Index first = 0; first < block.rows; first += 16) {
    const Index end = first + 16 < block.rows ? first + 16 : block.rows;
    Vec<T> part[strip_vectors] = {};
    for (Index r = first; r < end; ++r) {
      const T* row = x + r * block.stride;
      each_in_group<lanes<T>, strip_vectors>(0, block.cols, [&](Index i, int k, auto n) {
        const Vec<T> d = load(row + i, n) - m[k];
        part[k] = fma(d, d, part[k]);
      });
    }
#pragma GCC unroll 16
    for (int k = 0; k < strip_vectors; ++k) {
      constexpr int parts = wides_per_vector<T>;
      squares[k * parts] = squares[k * parts] + widen_part<0>(part[k]);
      if constexpr (parts == 2) squares[k * 2 + 1] = squares[k * 2 + 1] + widen_part<1>(part[k]);
    }
  }
}

template <class T>
void column_moments(const T* x, Block block, ColumnMoments out) {
  const double count = static_cast<double>(block.rows);
  each_strip<T>(block.cols, [&](Index strip, Index cols) {
    Wide<T> sums[strip_wides<T>] = {}, squares[strip_wides<T>] = {};
    T center[strip_cols<T>];
    for (Index r = 0; r < block.rows; ++r) {
      const T* row = x + r * block.stride + strip;
      each_in_group<wide_lanes, strip_wides<T>>(0, cols,
                                                [&](Index i, int k, auto n) { sums[k] = sums[k] + widen(row + i, n); });
    }
    for (int k = 0; k < strip_wides<T>; ++k) {
      sums[k] = divide(sums[k], count);
      for (Index i = 0; i < wide_lanes; ++i) center[k * wide_lanes + i] = static_cast<T>(sums[k].hi[i]);
    }
    strip_squares<T>(x + strip, {block.rows, block.stride, cols}, center, squares);
    each_in_group<wide_lanes, strip_wides<T>>(0, cols, [&](Index i, int k, auto n) {
      const Vec<double> m = widen(center + i, n).hi;
      const Wide<T> mean = sums[k];
      Vec<double> c = mean.hi - m, m2 = squares[k].hi;
      if constexpr (sizeof(T) == sizeof(double)) c += mean.lo;
      m2 -= broadcast(count) * (c * c);
      if constexpr (sizeof(T) == sizeof(double)) m2 += squares[k].lo;
      m2 = m2 < Vec<double>{} ? Vec<double>{} : m2;
      store_planes<T>(out.mean + strip + i, out.mean_lo + strip + i, mean, n);
      store(out.m2 + strip + i, m2, n);
    });
  });
}

}  // namespace
