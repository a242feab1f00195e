// Batch norm of float data: from the statistics of channels to the coefficients of their elements, several channels at
// once. The formulas are those of channel_affine and channel_gradient in cpp/norm/channels.hpp, which every other case
// uses.

namespace {

// Whether all lanes are within [least, most]; no NaN is.
NORMKIT_INLINE Mask<double> within(Vec<double> v, double least, double most) { return (v >= least) & (v <= most); }
NORMKIT_INLINE Vec<double> size_of(Vec<double> v) { return v < 0.0 ? -v : v; }

NORMKIT_INLINE Mask<double> coefficients_fit(Vec<double> v) {
  const Vec<double> size = size_of(v);
  return (size == 0.0) | within(size, SafeRange<float>::coefficient_min, SafeRange<float>::coefficient_max);
}

template <class N>
NORMKIT_INLINE bool all(Mask<double> mask, N n) {
  if constexpr (is_part<N>) return !any(~mask & first_lanes<double>(n.n));
  return !any(~mask);
}

template <class N>
NORMKIT_INLINE Vec<double> load_or(const float* p, double value, Index i, N n) {
  return p ? to_double(load_half(p + i, n)) : broadcast(value);
}

bool channel_affines(const ChannelAffines& args, Index begin, Index end) {
  using Safe = SafeRange<float>;
  const bool covered = covers_lost_squares<float>(args.eps);
  bool fit = true;
  each_vector<double>(end - begin, [&](Index k, auto n) {
    const Index i = begin + k;
    const Vec<double> mean = load(args.mean + i, n), var = load(args.var + i, n),
                      rstd = 1.0 / square_root(var + args.eps);
    const HalfFloats center = to_float(mean);
    const Vec<double> off = mean - to_double(center), scale = load_or(args.weight, 1.0, i, n) * rstd;
    store(args.rstd + i, rstd, n);
    store_half(args.center + i, center, n);
    store_half(args.scale + i, to_float(scale), n);
    store_half(args.shift + i, to_float(load_or(args.bias, 0.0, i, n) - off * scale), n);
    Mask<double> good = within(rstd, Safe::rstd_min, Safe::rstd_max) & (size_of(mean) <= Safe::mean_max);
    good &= coefficients_fit(scale);
    if (!covered) good &= var >= lost_squares<float>;
    fit &= all(good, n);
  });
  return fit;
}

bool channel_gradients(const ChannelGradients& args, Index begin, Index end) {
  using Safe = SafeRange<float>;
  bool fit = true;
  each_vector<double>(end - begin, [&](Index k, auto n) {
    const Index i = begin + k;
    const Vec<double> mean = load(args.mean + i, n), rstd = load(args.rstd + i, n), g = load(args.g + i, n),
                      gd = load(args.gd + i, n);
    const HalfFloats center = to_float(mean);
    const Vec<double> off = mean - to_double(center), scale = -(gd / args.count) * rstd * rstd,
                      dy_center = g / args.count + scale * off, dy_scale = load_or(args.weight, 1.0, i, n) * rstd;
    store_half(args.dweight + i, to_float(gd * rstd), n);
    store_half(args.dbias + i, to_float(g), n);
    store_half(args.center + i, center, n);
    store_half(args.scale + i, to_float(scale), n);
    store_half(args.dy_center + i, to_float(dy_center), n);
    store_half(args.dy_scale + i, to_float(dy_scale), n);
    fit &= all(within(rstd, Safe::rstd_min, Safe::rstd_max) & coefficients_fit(scale) & coefficients_fit(dy_center) &
                   coefficients_fit(dy_scale),
               n);
  });
  return fit;
}

}  // namespace
