// What comes before a norm of rows: sum = residual + dropout(x), and after its gradient: dx = dropout(dsum).
//
// Which elements dropout keeps is a function of the seed and their position alone: Philox 4x32-10 (Salmon, Moraes, Dror
// & Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011) of the block of 64 elements that they are in. 16
// counters give 4 words each: word w of counter c is that of the element 16·w + c, so that words lie as elements do
// whatever the width of a register.

namespace {

constexpr Index dropout_block = 64, dropout_counters = 16;

// The words of a block.
NORMKIT_INLINE void philox(std::uint64_t seed, std::uint64_t block, std::uint32_t* words) {
  typedef std::uint32_t Lower __attribute__((vector_size(double_bytes / 2)));
  constexpr int width = double_bytes / 8;
  for (int first = 0; first < dropout_counters; first += width) {
    Counters a = {}, c = {}, d = {};
    for (int i = 0; i < width; ++i) a[i] = block * dropout_counters + static_cast<std::uint64_t>(first + i);
    Counters b = a >> 32;
    std::uint32_t key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Counters first_product = multiply_words(a, 0xD2511F53), second_product = multiply_words(c, 0xCD9E8D57);
      a = (second_product >> 32) ^ b ^ (Counters{} + key0);
      b = second_product;
      c = (first_product >> 32) ^ d ^ (Counters{} + key1);
      d = first_product;
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    const Counters results[] = {a, b, c, d};
    for (int w = 0; w < 4; ++w) {
      const Lower lower = __builtin_convertvector(results[w], Lower);
      __builtin_memcpy(words + w * dropout_counters + first, &lower, sizeof lower);
    }
  }
}

// body(i, factor of each lane, n) over the elements [at, at + count): scale where dropout keeps them, else 0.
template <class T, class F>
NORMKIT_INLINE void each_dropped(const Dropout& dropout, Index at, Index count, F&& body) {
  const std::uint32_t threshold = static_cast<std::uint32_t>(dropout.threshold);  // who keeps all does not come here
  const Real<T> scale = static_cast<Real<T>>(dropout.scale);
  for (Index i = 0; i < count;) {
    const Index within = (at + i) % dropout_block,
                some = count - i < dropout_block - within ? count - i : dropout_block - within;
    std::uint32_t words[dropout_block];
    philox(dropout.seed, static_cast<std::uint64_t>((at + i) / dropout_block), words);
    Real<T> factors[dropout_block];
    for (Index k = 0; k < dropout_block; ++k) factors[k] = words[k] < threshold ? scale : Real<T>(0);
    each_vector<T>(some, [&](Index k, auto n) { body(i + k, load(factors + within + k, n), n); });
    i += some;
  }
}

template <class T>
void add_residual(const Residual<T>& args, Index at, Index count) {
  const T *x = args.x + at, *residual = args.residual + at;
  T* sum = args.sum + at;
  if (args.dropout.threshold == Dropout::keeps_all)
    each_vector<T>(count, [&](Index i, auto n) { store(sum + i, load(x + i, n) + load(residual + i, n), n); });
  else
    each_dropped<T>(args.dropout, at, count, [&](Index i, Vec<T> factor, auto n) {
      const Vec<T> r = load(residual + i, n);
      store(sum + i, factor == Vec<T>{} ? r : fma(load(x + i, n), factor, r), n);
    });
}

template <class T>
void drop_gradients(const Dropout& dropout, const T* dsum, T* dx, Index at, Index count) {
  each_dropped<T>(dropout, at, count, [&](Index i, Vec<T> factor, auto n) {
    const Vec<T> d = load(dsum + at + i, n);
    store(dx + at + i, factor == Vec<T>{} ? Vec<T>{} : d * factor, n);
  });
}

}  // namespace
