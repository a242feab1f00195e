// Softmax and cross-entropy of rows of logits with integer labels, and their gradient, in two passes over a row. All of
// it in double, every operation rounded by itself: the same bits on every instruction set.

namespace {

// e^x for x <= 0, to within an ulp of double; 0 where that is below the normal numbers. x = k ln 2 + r with whole k and
// |r| <= ln 2 / 2 (Cody & Waite, Software Manual for the Elementary Functions, 1980, chapter 6); e^r by its Taylor
// series, whose remainder after r^13/13! is below 4e-18.
NORMKIT_INLINE Vec<double> exp_of_negative(Vec<double> x) {
  constexpr double magic = 0x1.8p52;  // added to k it leaves k in the lowest bits
  constexpr double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;  // k ln2_high is exact
  constexpr double inverse_factorials[] = {
      1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
      1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       0.5,          1.0,         1.0};
  const Vec<double> shifted = x * broadcast(0x1.71547652b82fep0) + broadcast(magic);
  const Vec<double> k = shifted - broadcast(magic);
  const Vec<double> r = x - k * broadcast(ln2_high) - k * broadcast(ln2_low);
  Vec<double> sum = broadcast(inverse_factorials[0]);
#pragma GCC unroll 16
  for (int i = 1; i < 14; ++i) sum = sum * r + broadcast(inverse_factorials[i]);
  const Mask<double> exponent = (reinterpret_cast<Mask<double>>(shifted) + 1023) << 52;
  return x < broadcast(-708.0) ? Vec<double>{} : sum * reinterpret_cast<Vec<double>>(exponent);
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
