// Softmax and cross-entropy of rows of logits with integer labels, and their gradient, in two passes over a row. All of
// it in double, every operation rounded by itself: the same bits on every instruction set.

namespace {

// The same as exp_of_not_positive without a fused operation, so that the baseline has the same bits too.
NORMKIT_INLINE Vec<double> exp_of_negative(Vec<double> x) {
  using C = ExpConstants<double>;
  const Vec<double> shifted = x * broadcast(C::inverse_ln2) + broadcast(C::magic);
  const Vec<double> k = shifted - broadcast(C::magic);
  const Vec<double> r = x - k * broadcast(C::ln2_high) - k * broadcast(C::ln2_low);
  Vec<double> sum = broadcast(C::series[0]);
#pragma GCC unroll 16
  for (int i = 1; i < 14; ++i) sum = sum * r + broadcast(C::series[i]);
  const Mask<double> exponent = (reinterpret_cast<Mask<double>>(shifted) + C::bias) << C::digits;
  return x < broadcast(C::least) ? Vec<double>{} : sum * reinterpret_cast<Vec<double>>(exponent);
}

template <class N>
NORMKIT_INLINE void store_wide(float* p, Vec<double> v, N n) {
  store_half(p, to_float(v), n);
}
template <class N>
NORMKIT_INLINE void store_wide(double* p, Vec<double> v, N n) {
  store(p, v, n);
}

template <class T>
void softmax_cross_entropy(const SoftmaxCrossEntropy<T>& args) {
  for (Index row = 0; row < args.rows; ++row) {
    const T* logits = args.logits + row * args.classes;
    T* p = args.probabilities + row * args.classes;
    T* gradient = args.gradient + row * args.classes;
    double largest = static_cast<double>(logits[0]);
    for (Index i = 1; i < args.classes; ++i)
      if (logits[i] > largest) largest = static_cast<double>(logits[i]);
    // As Wide<float> it is a sum of plain doubles, which serves both types.
    WideLanes<float, row_lanes> sums;
    each_wide<row_lanes>(args.classes, [&](Index i, int k, auto n) {
      const Vec<double> e = exp_of_negative(widen(logits + i, n).hi - broadcast(largest));
      sums.part[k].hi = sums.part[k].hi + keep(Wide<float>{e}, n).hi;
      store_wide(p + i, e, n);
    });
    const double total = sums.total().hi,
                 share = args.share * (args.weights ? static_cast<double>(args.weights[row]) : 1.0);
    const std::int64_t label = args.labels[row];
    each_wide<row_lanes>(args.classes, [&](Index i, int, auto n) {
      const Vec<double> probability = widen(p + i, n).hi / broadcast(total);
      store_wide(p + i, probability, n);
      store_wide(gradient + i, probability * broadcast(share), n);
    });
    gradient[label] = static_cast<T>((static_cast<double>(p[label]) - 1.0) * share);
    args.totals[row] = total;
    args.shifted[row] = static_cast<double>(logits[label]) - largest;
  }
}

}  // namespace
