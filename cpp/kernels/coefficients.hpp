// From the statistics of a row or channel to the coefficients of the loops over its elements. Scalar, in double;
// shared by the kernels and the plans, each of which compiles its own internal copy (hence the anonymous namespace).
#pragma once

#include "table.hpp"

namespace {

using namespace normkit;

// The mask from the given run, channel and element on.
inline Where from(Where where, Index outer, Index channel, Index inner) {
  if (where.at) where.at += outer * where.outer + channel * where.channel + inner * where.inner;
  return where;
}

// The same for the bits of an array, and for what is fused with an operation on it.
inline ActiveBits from(ActiveBits bits, Index elements) { return {bits.at, bits.first + elements}; }
inline Passage from(Passage passage, Index elements) { return {from(passage.active, elements), passage.slope}; }
template <class T>
inline Fusion<T> from(const Fusion<T>& fusion, Index elements) {
  return {fusion.residual ? fusion.residual + elements : nullptr, fusion.activation, from(fusion.active, elements),
          fusion.slope};
}

// Squares below the normal numbers of T are lost, which matters when neither the variance is larger than this nor eps
// is much larger.
template <class T>
constexpr double lost_squares = is_double<T> ? 0x1p-900 : 0x1p-90;
template <class T>
inline bool covers_lost_squares(double eps) {
  return eps >= 0x1p60 * lost_squares<T>;
}

// rstd = 1 / sqrt(var + eps), or out_of_range where T has no room for x − mean, its square or x̂.
// A row of floats with NaN or Inf is in range: its result is NaN whichever way it is computed. A row of doubles may
// have a mean that is not finite because its sum overflowed.
template <class T>
inline double in_range(double rstd, double var, double eps, double mean) {
  const bool finite = mean - mean == 0.0;
  if (!finite && !is_double<T>) return rstd;
  const double size = mean < 0.0 ? -mean : mean;
  using Safe = SafeRange<Real<T>>;
  const bool fits = rstd >= Safe::rstd_min && rstd <= Safe::rstd_max && size <= Safe::mean_max;
  return fits && (var >= lost_squares<T> || covers_lost_squares<T>(eps)) ? rstd : out_of_range;
}

template <class T>
inline bool is_out_of_range(double rstd) {
  return rstd < SafeRange<Real<T>>::rstd_min || rstd > SafeRange<Real<T>>::rstd_max;
}

// x̂ = (x − center)·rstd + shift; shift = −(mean − center)·rstd restores what rounding the mean to T lost.
template <class T>
inline Affine<T> standardize(Sum mean, double rstd) {
  const T center = static_cast<T>(mean.hi);
  const double c = (mean.hi - static_cast<double>(center)) + mean.lo;
  return {center, static_cast<T>(rstd), static_cast<T>(-c * rstd)};
}

inline bool is_rounding(double rest, double mean) {
  const double most = 0x1p-51 * (mean < 0.0 ? -mean : mean);
  return rest <= most && rest >= -most;
}

// The mean of x to twice double precision, given that `mean` is the mean that the forward pass rounded to double.
// A mean that is further off than rounding explains was not computed from this x, and stands as it is.
inline Sum refine_mean(double mean, Sum exact) {
  const double rest = (exact.hi - mean) + exact.lo;
  return {mean, is_rounding(rest, mean) ? rest : 0.0};
}

template <class T>
inline void set_means(RowGradient<T>& row, double mean_g, double mean_gx) {
  row.mean_g = static_cast<T>(mean_g);
  row.mean_gx = static_cast<T>(mean_gx);
}

// With x̂ = (x − mean)·rstd: dx = rstd·(g − mean(g) − x̂·mean(g·x̂)).
template <class T>
inline RowGradient<T> row_gradient(Sum mean, double rstd, double mean_g, double mean_gx) {
  const Affine<T> x_hat = standardize<T>(mean, rstd);
  RowGradient<T> row{x_hat.center, x_hat.scale, x_hat.shift, T(0), T(0)};
  set_means(row, mean_g, mean_gx);
  return row;
}

}  // namespace
