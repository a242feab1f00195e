// The bits of every operation, to be compared among instruction sets and machines: for each case a line with a hash
// (FNV-1a, 64 bits) of all bytes of its results, and the name of the case. Inputs are integers, scaled by powers of
// two, which is exact: they have the same bits everywhere. Results depend neither on the instruction set (but for the
// baseline) nor on the number of threads; golden.txt has what they are. check.sh builds this, runs it and compares.
//
// golden ISA THREADS; without arguments: the instruction sets that this machine has.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/halves.hpp"
#include "norm/dispatch.hpp"
#include "norm/norm.hpp"

namespace {

using namespace normkit;

// splitmix64 (Steele, Lea & Flood 2014)
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

 private:
  std::uint64_t state_;
};

template <class T>
constexpr int digits = std::numeric_limits<T>::digits;

// n·2^exponent; n has no more digits than T.
template <class T>
T scaled_by(std::int64_t n, int exponent) {
  return std::ldexp(static_cast<T>(n), exponent);
}

// Nearly normal: the sum of four uniform integers, of standard deviation 1.15 in units of 2^unit<T>.
template <class T>
constexpr int unit = digits<T> - 2;
template <class T>
std::int64_t bell(Random& random) {
  std::int64_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += static_cast<std::int64_t>(random.next()) >> (65 - digits<T>);
  return sum;
}
template <class T>
T normal(Random& random) {
  return scaled_by<T>(bell<T>(random), -unit<T>);
}

// The same around a mean, with `drop` digits less; mean < 2^(drop + 2).
template <class T>
T around(Random& random, std::int64_t mean, int drop) {
  return scaled_by<T>((bell<T>(random) >> drop) + (mean << (unit<T> - drop)), drop - unit<T>);
}

// What is tried. Beyond the first four, one row or channel of three is special, and its neighbours are normal.
enum class Data { normal, mean_128_sigma, mean_1e6_sigma, mixed_scales, constant, large, tiny, subnormal };
constexpr Data hostile[] = {Data::mean_128_sigma, Data::mean_1e6_sigma, Data::mixed_scales, Data::constant,
                            Data::large,          Data::tiny,           Data::subnormal};
const char* name_of(Data data) {
  static const char* const names[] = {"normal",   "mean 128 sigma", "mean 1e6 sigma", "mixed scales",
                                      "constant", "large",          "tiny",           "subnormal"};
  return names[static_cast<int>(data)];
}

// item: the row or channel.
template <class T>
T element(Random& random, Data data, Index item) {
  constexpr bool is_float = sizeof(T) == sizeof(float);
  const int far = is_float ? 100 : 500;  // beyond SafeRange: squares leave the range of T
  if (data == Data::mean_128_sigma) return around<T>(random, 147, 7);
  if (data == Data::mean_1e6_sigma) return around<T>(random, 1 << 20, 19);
  if (data == Data::mixed_scales) {
    const int exponent = static_cast<int>(random.next() % 41) - 20;
    return scaled_by<T>(bell<T>(random), exponent - unit<T>);
  }
  if (item % 3 == 1) {
    if (data == Data::constant) return scaled_by<T>(10113573 + item, -13);
    if (data == Data::large) return scaled_by<T>(bell<T>(random), far - unit<T>);
    if (data == Data::tiny) return scaled_by<T>(bell<T>(random), -far - unit<T>);
    if (data == Data::subnormal) return scaled_by<T>(bell<T>(random) >> 6, is_float ? -149 : -1074);
  }
  return normal<T>(random);
}

// A number of 16 bits is the nearest to the float. What float16 has no room for is left out.
template <class T>
std::vector<T> stored(const std::vector<Real<T>>& values) {
  if constexpr (std::is_same_v<T, Real<T>>) {
    return values;
  } else {
    std::vector<T> narrow;
    for (const Real<T> value : values) narrow.push_back(nearest<T>(value));
    return narrow;
  }
}
template <class T>
bool has_room_for(Data data) {
  const bool is_small = data == Data::normal || data == Data::mean_128_sigma || data == Data::constant;
  return is_small || !std::is_same_v<T, Float16>;
}

// What vanishes beside it decides which path is taken.
template <class T>
double eps_of(Data data) {
  if (data == Data::tiny) return !is_double<T> ? 0x1p-140 : 0x1p-900;
  return 0x1p-17;
}

class Hash {
 public:
  template <class V>
  void add(const std::vector<V>& values) {
    if constexpr (!std::is_integral_v<V>)
      for (const V& value : values)
        if (to_double(value) != to_double(value)) has_nan_ = true;
    const auto* bytes = reinterpret_cast<const unsigned char*>(values.data());
    for (std::size_t i = 0; i < values.size() * sizeof(V); ++i) hash_ = (hash_ ^ bytes[i]) * 0x100000001B3u;
  }
  std::uint64_t value() const { return hash_; }
  bool has_nan() const { return has_nan_; }

 private:
  std::uint64_t hash_ = 0xCBF29CE484222325u;
  bool has_nan_ = false;
};

template <class... Vectors>
void print(const char* operation, const std::string& name, const Vectors&... results) {
  Hash hash;
  (hash.add(results), ...);
  // Which NaN an operation gives is the processor's choice: a case that has one would compare nothing.
  if (hash.has_nan()) throw std::runtime_error(std::string(operation) + " " + name + ": a result is NaN");
  std::printf("%016llx %s %s\n", static_cast<unsigned long long>(hash.value()), operation, name.c_str());
}

template <class T>
std::string name_of(const std::vector<Index>& shape, Data data, bool parameters) {
  std::string name = std::is_same_v<T, BFloat16> ? "bfloat16 " : sizeof(T) == 2 ? "float16 " : "float32 ";
  if (is_double<T>) name = "float64 ";
  for (const Index& n : shape) name += std::to_string(n) + (&n == &shape.back() ? " " : "x");
  return name + name_of(data) + (parameters ? "" : ", no weight and bias");
}

template <class T>
std::vector<T> normals(Random& random, Index count) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = normal<T>(random);
  return values;
}
template <class V>
std::vector<V> room(Index count) {
  return std::vector<V>(static_cast<std::size_t>(count));
}
template <class T>
const T* data_or_null(const std::vector<T>& values, bool given) {
  return given ? values.data() : nullptr;
}

struct LayerNormShape {
  Index rows, cols;
};

template <class T>
void try_layer_norm(LayerNormShape shape, Data data, bool parameters, int threads) {
  const auto [rows, cols] = shape;
  const std::string name = name_of<T>({rows, cols}, data, parameters);
  Random random(static_cast<std::uint64_t>(rows * 1000003 + cols));
  using R = Real<T>;
  auto wide = room<R>(rows * cols);
  for (Index i = 0; i < rows * cols; ++i) wide[static_cast<std::size_t>(i)] = element<R>(random, data, i / cols);
  const auto x = stored<T>(wide), dy = stored<T>(normals<R>(random, rows * cols));
  const auto weight = normals<R>(random, cols), bias = normals<R>(random, cols);

  auto y = room<T>(rows * cols), dx = y;
  auto dweight = room<R>(cols), dbias = dweight;
  auto mean = room<double>(rows), rstd = mean;
  layer_norm<T>({x.data(), y.data(), data_or_null(weight, parameters), data_or_null(bias, parameters), mean.data(),
                 rstd.data(), cols, eps_of<T>(data), Reach::past},
                rows, threads);
  print("layer_norm", name, y, mean, rstd);
  layer_norm_backward<T>({dy.data(), x.data(), dx.data(), data_or_null(weight, parameters), nullptr, mean.data(),
                          rstd.data(), cols, Reach::past},
                         rows, dweight.data(), dbias.data(), threads);
  print("layer_norm_backward", name, dx, dweight, dbias);
}

template <class T>
void try_batch_norm(ChannelShape shape, Data data, bool parameters, int threads) {
  const Index size = shape.size(), channels = shape.channels;
  const std::string name = name_of<T>({shape.outer, channels, shape.inner}, data, parameters);
  Random random(static_cast<std::uint64_t>((shape.outer * 1000003 + channels) * 1000003 + shape.inner));
  using R = Real<T>;
  auto wide = room<R>(size);
  for (Index i = 0; i < size; ++i)
    wide[static_cast<std::size_t>(i)] = element<R>(random, data, i / shape.inner % channels);
  const auto x = stored<T>(wide), dy = stored<T>(normals<R>(random, size));
  const auto weight = normals<R>(random, channels), bias = normals<R>(random, channels);
  auto running_mean = normals<double>(random, channels), running_var = normals<double>(random, channels);
  for (double& var : running_var) var = std::fabs(var) + 0x1p-8;

  auto y = room<T>(size), dx = y;
  auto dweight = room<R>(channels), dbias = dweight;
  auto mean = room<double>(channels), rstd = mean, var = mean, running_rstd = mean;
  BatchNormForward<T> forward{x.data(),
                              y.data(),
                              data_or_null(weight, parameters),
                              data_or_null(bias, parameters),
                              mean.data(),
                              rstd.data(),
                              var.data(),
                              shape,
                              eps_of<T>(data),
                              Reach::past};
  batch_norm_training(forward, threads);
  print("batch_norm_training", name, y, mean, rstd, var);
  BatchNormBackward<T> backward{dy.data(),   x.data(),    dx.data(),      data_or_null(weight, parameters),
                                mean.data(), rstd.data(), dweight.data(), dbias.data(),
                                shape,       Reach::past};
  batch_norm_backward(backward, true, threads);
  print("batch_norm_backward training", name, dx, dweight, dbias);

  forward.mean = running_mean.data();
  forward.rstd = running_rstd.data();
  forward.var = running_var.data();
  batch_norm_inference(forward, threads);
  print("batch_norm_inference", name, y, running_rstd);
  backward.mean = running_mean.data();
  backward.rstd = running_rstd.data();
  batch_norm_backward(backward, false, threads);
  print("batch_norm_backward inference", name, dx, dweight, dbias);
}

// A mask that takes half of the elements, shared over the axes whose flag is false.
struct Shared {
  bool outer, channel, inner;
};
constexpr Shared shared_masks[] = {{true, false, false}, {false, true, true}, {true, false, true}, {true, true, true}};
class Mask {
 public:
  Mask(Random& random, const ChannelShape& shape, Shared own)
      : own_(own), inner_(own.inner ? shape.inner : 1), channels_(own.channel ? shape.channels : 1) {
    bytes_.resize(static_cast<std::size_t>((own.outer ? shape.outer : 1) * channels_ * inner_));
    for (std::uint8_t& byte : bytes_) byte = random.next() % 2;
  }
  // Strides are 0 along axes of one element too.
  Where where() const {
    return {bytes_.data(), own_.outer ? channels_ * inner_ : 0, channels_ > 1 ? inner_ : 0, inner_ > 1 ? 1 : 0};
  }
  std::string name() const {
    return std::string(" where") + (own_.outer ? " outer" : "") + (own_.channel ? " channel" : "") +
           (own_.inner ? " inner" : "");
  }

 private:
  Shared own_;
  Index inner_, channels_;
  std::vector<std::uint8_t> bytes_;
};

template <class T>
void try_masks(const ChannelShape& shape, Data data, int threads) {
  const auto [outer, channels, inner] = shape;
  Random random(static_cast<std::uint64_t>((outer * 1000003 + channels) * 1000003 + inner));
  using R = Real<T>;
  const Index size = shape.size();
  auto wide = room<R>(size);
  for (Index i = 0; i < size; ++i) wide[static_cast<std::size_t>(i)] = element<R>(random, data, i / inner % channels);
  const auto x = stored<T>(wide), dy = stored<T>(normals<R>(random, size));
  const auto weight = normals<R>(random, std::max(channels, inner)), bias = weight;
  for (const Shared& own : shared_masks) {
    const Mask mask(random, shape, own);
    const std::string name = name_of<T>({outer, channels, inner}, data, true) + mask.name();
    auto y = room<T>(size), dx = y;
    auto dweight = room<R>(channels), dbias = dweight;
    auto mean = room<double>(channels), rstd = mean, var = mean, samples = mean;
    batch_norm_training<T>({x.data(), y.data(), weight.data(), bias.data(), mean.data(), rstd.data(), var.data(), shape,
                            eps_of<T>(data), Reach::past, mask.where(), samples.data()},
                           threads);
    print("batch_norm_training", name, y, mean, rstd, var, samples);
    batch_norm_backward<T>({dy.data(), x.data(), dx.data(), weight.data(), mean.data(), rstd.data(), dweight.data(),
                            dbias.data(), shape, Reach::past, mask.where()},
                           true, threads);
    print("batch_norm_backward training", name, dx, dweight, dbias);
    if (own.channel) continue;
    // The same elements as rows: (outer·channels, inner), where the mask of a row is that of its outer index.
    const ChannelShape rows{outer * channels, 1, inner};
    const Mask row_mask(random, rows, own);
    auto row_mean = room<double>(rows.outer), row_rstd = row_mean;
    auto row_dweight = room<R>(inner), row_dbias = row_dweight;
    layer_norm<T>({x.data(), y.data(), weight.data(), bias.data(), row_mean.data(), row_rstd.data(), inner,
                   eps_of<T>(data), Reach::past, row_mask.where()},
                  rows.outer, threads);
    print("layer_norm", name, y, row_mean, row_rstd);
    layer_norm_backward<T>({dy.data(), x.data(), dx.data(), weight.data(), nullptr, row_mean.data(), row_rstd.data(),
                            inner, Reach::past, row_mask.where()},
                           rows.outer, row_dweight.data(), row_dbias.data(), threads);
    print("layer_norm_backward", name, dx, row_dweight, row_dbias);
  }
}
constexpr ChannelShape masked_shapes[] = {{301, 24, 1}, {65, 130, 1}, {40, 7, 5},   {5, 7, 49},
                                          {3, 6, 1001}, {2, 5, 4225}, {3, 2, 8193}, {2, 1, 20011}};

// Layer norm with an activation, RMS norm, both from their results, and of sums with dropout.
template <class T>
void try_rows(LayerNormShape shape, Data data, int threads) {
  using R = Real<T>;
  const auto [rows, cols] = shape;
  const Index size = rows * cols;
  Random random(static_cast<std::uint64_t>(rows * 1000003 + cols));
  auto wide = room<R>(size);
  for (Index i = 0; i < size; ++i) wide[static_cast<std::size_t>(i)] = element<R>(random, data, i / cols);
  const auto x = stored<T>(wide), dy = stored<T>(normals<R>(random, size)), more = stored<T>(normals<R>(random, size));
  const auto weight = normals<R>(random, cols), bias = normals<R>(random, cols);
  auto y = room<T>(size), dx = y, sum = y, dropped = y;
  auto dweight = room<R>(cols), dbias = dweight;
  auto mean = room<double>(rows), rstd = mean;
  const auto backward = [&](const std::vector<T>& input) {
    return LayerNormBackward<T>{dy.data(),   input.data(), dx.data(), weight.data(), bias.data(),
                                mean.data(), rstd.data(),  cols,      Reach::past};
  };
  constexpr const char* activations[] = {"", " relu", " gelu", " silu"};
  for (const bool centered : {true, false}) {
    const std::string name = name_of<T>({rows, cols}, data, true), norm = centered ? "layer_norm" : "rms_norm";
    LayerNormForward<T> forward{x.data(), y.data(),        weight.data(), bias.data(), mean.data(), rstd.data(),
                                cols,     eps_of<T>(data), Reach::past,   {},          centered};
    for (int kind = 0; kind < 4; ++kind) {
      forward.activation = static_cast<Activation>(kind);
      layer_norm(forward, rows, threads);
      LayerNormBackward<T> from_x = backward(x);
      from_x.centered = centered;
      from_x.activation = forward.activation;
      layer_norm_backward(from_x, rows, dweight.data(), dbias.data(), threads);
      if (!centered || kind > 0) print((norm + activations[kind]).c_str(), name, y, mean, rstd, dx, dweight, dbias);
      if (kind > 0) continue;
      LayerNormBackward<T> from_y = backward(y);
      from_y.centered = centered;
      from_y.from_output = true;
      layer_norm_backward(from_y, rows, dweight.data(), dbias.data(), threads);
      print((norm + "_backward from output").c_str(), name, dx, dweight, dbias);
    }
    const Dropout dropout{0x123456789ABCDEF0u, 0xC0000000u, 4.0 / 3.0};
    forward.activation = Activation::relu;
    forward.x = sum.data();
    forward.residual = {x.data(), more.data(), sum.data(), dropout};
    layer_norm(forward, rows, threads);
    LayerNormBackward<T> of_sum = backward(sum);
    of_sum.centered = centered;
    of_sum.activation = Activation::relu;
    of_sum.dsum = more.data();
    of_sum.dropped = dropped.data();
    of_sum.dropout = dropout;
    layer_norm_backward(of_sum, rows, dweight.data(), dbias.data(), threads);
    print(("add_" + norm + " dropout relu").c_str(), name, y, sum, mean, rstd, dx, dropped, dweight, dbias);
  }
}
constexpr LayerNormShape family_row_shapes[] = {{5, 7}, {17, 64}, {9, 1001}, {4, 5003}, {3, 16399}, {300, 24}};

// Batch norm with what can be fused with it, and group norm of the same array.
template <class T>
void try_channels(const ChannelShape& shape, Data data, int threads) {
  using R = Real<T>;
  const auto [outer, channels, inner] = shape;
  const Index size = shape.size();
  const std::string name = name_of<T>({outer, channels, inner}, data, true);
  Random random(static_cast<std::uint64_t>((outer * 1000003 + channels) * 1000003 + inner));
  auto wide = room<R>(size);
  for (Index i = 0; i < size; ++i) wide[static_cast<std::size_t>(i)] = element<R>(random, data, i / inner % channels);
  const auto x = stored<T>(wide), dy = stored<T>(normals<R>(random, size)), more = stored<T>(normals<R>(random, size));
  const auto weight = normals<R>(random, channels), bias = normals<R>(random, channels);
  auto y = room<T>(size), dx = y, dresidual = y;
  auto dweight = room<R>(channels), dbias = dweight;
  auto mean = room<double>(channels), rstd = mean, var = mean;
  const auto bits = [&] { return room<std::uint8_t>((size + 7) / 8 + 4); };
  BatchNormForward<T> forward{x.data(),    y.data(),   weight.data(), bias.data(),     mean.data(),
                              rstd.data(), var.data(), shape,         eps_of<T>(data), Reach::past};
  BatchNormBackward<T> backward{dy.data(),   x.data(),       dx.data(),    weight.data(), mean.data(),
                                rstd.data(), dweight.data(), dbias.data(), shape,         Reach::past};
  auto active = bits();
  forward.fusion = {more.data(), Activation::relu, {active.data(), 0}};
  backward.active = {active.data(), 0};
  backward.dresidual = dresidual.data();
  batch_norm_training(forward, threads);
  batch_norm_backward(backward, true, threads);
  print("batch_norm residual relu", name, y, active, mean, rstd, dx, dresidual, dweight, dbias);

  forward.fusion = {nullptr, Activation::none, {}, 0.125};
  backward.active = {};
  backward.dresidual = nullptr;
  backward.x = y.data();
  backward.from_output = true;
  backward.bias = bias.data();
  backward.slope = 0.125;
  batch_norm_training(forward, threads);
  batch_norm_backward(backward, true, threads);
  print("batch_norm leaky_relu from output", name, y, mean, rstd, dx, dweight, dbias);

  for (const Index groups : {Index{1}, channels % 2 == 0 ? channels / 2 : channels}) {
    const GroupShape grouped{outer, 1, channels, inner, groups};
    auto group_mean = room<double>(outer * groups), group_rstd = group_mean;
    active = bits();
    group_norm<T>({x.data(),
                   y.data(),
                   weight.data(),
                   bias.data(),
                   group_mean.data(),
                   group_rstd.data(),
                   grouped,
                   eps_of<T>(data),
                   Reach::past,
                   {},
                   {nullptr, Activation::relu, {active.data(), 0}}},
                  threads);
    group_norm_backward<T>({dy.data(),
                            x.data(),
                            dx.data(),
                            weight.data(),
                            group_mean.data(),
                            group_rstd.data(),
                            dweight.data(),
                            dbias.data(),
                            grouped,
                            Reach::past,
                            {},
                            {active.data(), 0}},
                           threads);
    print("group_norm relu", name + ", groups " + std::to_string(groups), y, active, group_mean, group_rstd, dx,
          dweight, dbias);
  }
  if (inner > 1 || outer % 2 != 0) return;
  // The channels last: (2, outer / 2, channels, 1)
  const GroupShape last{2, outer / 2, channels, 1, channels};
  auto group_mean = room<double>(2 * channels), group_rstd = group_mean;
  group_norm<T>({x.data(),
                 y.data(),
                 weight.data(),
                 bias.data(),
                 group_mean.data(),
                 group_rstd.data(),
                 last,
                 eps_of<T>(data),
                 Reach::past,
                 {}},
                threads);
  group_norm_backward<T>({dy.data(),
                          x.data(),
                          dx.data(),
                          weight.data(),
                          group_mean.data(),
                          group_rstd.data(),
                          dweight.data(),
                          dbias.data(),
                          last,
                          Reach::past,
                          {}},
                         threads);
  print("instance_norm channels last", name, y, group_mean, group_rstd, dx, dweight, dbias);
}
constexpr ChannelShape family_channel_shapes[] = {{33, 5, 1}, {302, 24, 1}, {66, 70, 1}, {40, 7, 5},
                                                  {5, 8, 49}, {4, 40, 196}, {3, 6, 1001}};

// Shapes as in tests/support/cases.py, around every boundary of the kernels and plans.
std::vector<LayerNormShape> layer_norm_shapes() {
  std::vector<LayerNormShape> shapes;
  for (const Index cols : {1,  2,  3,  4,  5,  7,   8,   9,   15,  16,  17,   23,   24,   31,  32,
                           33, 63, 64, 65, 96, 127, 129, 255, 257, 513, 1023, 1025, 2051, 4097})
    shapes.push_back({3, cols});
  for (const Index rows : {1, 2, 7, 8, 9, 16, 17}) shapes.push_back({rows, 13});
  for (const LayerNormShape shape : {LayerNormShape{9, 1001},
                                     {300, 24},
                                     {40, 168},
                                     {40, 2049},
                                     {1, 10007},
                                     // the longest short row of doubles and of floats, and those of other plans
                                     {2, 8193},
                                     {2, 16384},
                                     {5, 16399},
                                     {4, 65539},
                                     {1, 300007},
                                     {700, 768},
                                     {20011, 24}})
    shapes.push_back(shape);
  return shapes;
}
constexpr LayerNormShape hostile_layer_norm_shapes[] = {{5, 7}, {17, 64}, {9, 1001}, {4, 5003}, {3, 16399}};

// (outer, channels, inner). NC and NHWC have inner 1; from 32 on (NCHW) the plan is another.
std::vector<ChannelShape> batch_norm_shapes() {
  std::vector<ChannelShape> shapes;
  for (const Index rows : {1, 2, 3, 15, 16, 17, 33}) shapes.push_back({rows, 5, 1});
  for (const Index channels : {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 257})
    shapes.push_back({20, channels, 1});
  for (const ChannelShape shape : {ChannelShape{200, 3, 1},
                                   {501, 24, 1},
                                   {1000, 40, 1},
                                   {333, 168, 1},
                                   {700, 1024, 1},
                                   {4099, 129, 1},
                                   {20003, 3, 1},
                                   {4, 3, 5},
                                   {9, 257, 2},
                                   {64, 10, 9},
                                   {2, 3, 31},
                                   {2, 3, 32},
                                   {2, 3, 33},
                                   {3, 4, 49},
                                   {3, 5, 64},
                                   {16, 64, 49},
                                   {8, 40, 196},
                                   {3, 33, 784},
                                   {2, 3, 4225},
                                   {1, 2, 4700},
                                   {1, 1, 8193},
                                   {4, 6, 20467},
                                   {3, 2, 100003}})
    shapes.push_back(shape);
  return shapes;
}
constexpr ChannelShape hostile_batch_norm_shapes[] = {{33, 5, 1}, {301, 24, 1}, {65, 70, 1},  {40, 7, 5},
                                                      {5, 7, 49}, {4, 40, 196}, {3, 6, 1001}, {2, 5, 4225}};

template <class T>
void try_all(int threads) {
  for (const LayerNormShape shape : layer_norm_shapes()) try_layer_norm<T>(shape, Data::normal, true, threads);
  for (const LayerNormShape shape : hostile_layer_norm_shapes) {
    try_layer_norm<T>(shape, Data::normal, false, threads);
    for (const Data data : hostile)
      if (has_room_for<T>(data)) try_layer_norm<T>(shape, data, true, threads);
  }
  for (const ChannelShape shape : masked_shapes) {
    try_masks<T>(shape, Data::normal, threads);
    for (const Data data : hostile)
      if (has_room_for<T>(data) && shape.inner < 1024) try_masks<T>(shape, data, threads);
  }
  for (const ChannelShape shape : batch_norm_shapes()) try_batch_norm<T>(shape, Data::normal, true, threads);
  for (const ChannelShape shape : hostile_batch_norm_shapes) {
    try_batch_norm<T>(shape, Data::normal, false, threads);
    for (const Data data : hostile)
      if (has_room_for<T>(data)) try_batch_norm<T>(shape, data, true, threads);
  }
  for (const LayerNormShape shape : family_row_shapes)
    for (const Data data : {Data::normal, Data::mean_128_sigma, Data::constant}) try_rows<T>(shape, data, threads);
  for (const ChannelShape& shape : family_channel_shapes)
    for (const Data data : {Data::normal, Data::mean_128_sigma, Data::constant}) try_channels<T>(shape, data, threads);
}

}  // namespace

int main(int count, char** arguments) try {
  if (count == 1) {
    for (const std::string& isa : available_isas()) std::puts(isa.c_str());
    return 0;
  }
  const int threads = count == 3 ? std::atoi(arguments[2]) : 0;
  if (threads < 1) {
    std::fputs("usage: golden [ISA THREADS]\n", stderr);
    return 2;
  }
  use_isa(arguments[1]);
  try_all<float>(threads);
  try_all<double>(threads);
  try_all<BFloat16>(threads);
  try_all<Float16>(threads);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "golden: %s\n", error.what());
  return 2;
}
