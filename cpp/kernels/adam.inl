// Adam's step in one pass. Every operation is rounded as NumPy would, one after the other, so that it has the bits of
// the formula in NumPy on every instruction set.

namespace {

// The larger one; NaN if either is.
template <class V>
NORMKIT_INLINE V largest_of(V a, V b) {
  return ((a >= b) | (a != a)) ? a : b;
}

template <class T>
void adam(const AdamStep<T>& args) {
  const Vec<T> momentum_share = broadcast(args.momentum_share), velocity_share = broadcast(args.velocity_share),
               epsilon = broadcast(args.epsilon), rate = broadcast(args.rate);
  each_vector<T>(args.count, [&](Index i, auto n) {
    const Vec<T> grad = load(args.grad + i, n), old_momentum = load(args.momentum + i, n),
                 old_velocity = load(args.velocity + i, n);
    const Vec<T> momentum = old_momentum + (grad - old_momentum) * momentum_share;
    Vec<T> velocity = old_velocity + (grad * grad - old_velocity) * velocity_share;
    store(args.momentum + i, momentum, n);
    store(args.velocity + i, velocity, n);
    if (args.largest) {
      velocity = largest_of(load(args.largest + i, n), velocity);
      store(args.largest + i, velocity, n);
    }
    store(args.value + i, load(args.value + i, n) - momentum / (square_root(velocity) + epsilon) * rate, n);
  });
}

}  // namespace
