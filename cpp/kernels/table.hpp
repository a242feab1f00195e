// The contract between the plans (cpp/norm) and the kernels: plain structs and a table of function pointers.
// Kernels check nothing, allocate nothing and know no threads; a plan calls them on a block of the work.
#pragma once

#include <cstddef>
#include <cstdint>

namespace normkit {

using Index = std::int64_t;

// Numbers of 16 bits are stored, never computed with: kernels widen them to float as they load, and round once as they
// store.
struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

// What elements of type T are computed in; parameters and coefficients are of this type.
template <class T>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};
template <class T>
using Real = typename RealOf<T>::type;
template <class T>
inline constexpr bool is_double = sizeof(Real<T>) == sizeof(double);

// The elements of one row or channel: `outer` runs of `inner` consecutive elements, `stride` apart. The runs of the
// next channel begin `inner` elements further on: where a kernel takes several channels it goes run by run through all
// of them, in the order of memory.
struct Runs {
  Index outer, stride, inner;
};
inline constexpr Index most_channels = 32;  // that a kernel takes at once
// Past the caches whole lines have to be written: the runs of several channels, when they are shorter than this
// (bytes), are put together first, as far as there is room.
inline constexpr Index long_run = 1024, most_staged = 16384;

// Which elements count in the statistics: bytes, 0 for those that do not; null where all do. They are `outer`,
// `channel` and `inner` apart where the elements are Runs::stride, Runs::inner and 1 apart, or in a block or an array
// of rows a row, nothing and a column. inner is 0 or 1.
struct Where {
  const std::uint8_t* at = nullptr;
  Index outer = 0, channel = 0, inner = 0;
};

// A bit for each element of an array in the order of memory: whether relu passes its gradient. Four bytes more than
// these take may be read. null where there are none.
struct ActiveBits {
  std::uint8_t* at = nullptr;
  Index first = 0;  // element
};

// How a gradient passes the activation behind a normalization: relu by its bits; leaky relu, where the slope is not 1,
// by its result, which a kernel is then given for x: both are turned into what they are before the activation.
struct Passage {
  ActiveBits active = {};
  double slope = 1.0;
};

// Unevaluated sum hi + lo. For float data lo is 0: a double holds all that is needed.
struct Sum {
  double hi, lo;
};

// Mean and Σ(x − mean)² of a block of elements, `count` of which count; of none they are 0.
struct BlockMoments {
  Sum mean, m2;
  double count;
};

// Σ dy·weight and Σ dy·weight·(x − mean) of a block of elements.
struct GradientSums {
  Sum g, gd;
};

// y = (x − center)·scale + shift
template <class T>
struct Affine {
  T center, scale, shift;
};

// dx = ((dy − dy_center) + (x − center)·scale)·dy_scale; dy at its mean cancels exactly.
template <class T>
struct GradientAffine {
  T center, scale, dy_center, dy_scale;
};

// Coefficients of one column or channel each.
template <class T>
struct AffineColumns {
  const T *center, *scale, *shift;
};
// weight: null, or a factor of dy before anything else.
template <class T>
struct GradientAffineColumns {
  const T *center, *scale, *dy_center, *dy_scale, *weight = nullptr;
};

// One value per column, in planes of length cols; the low planes are neither read nor written for float data. count:
// null where all rows count.
struct ColumnMoments {
  double *mean, *mean_lo, *m2, *m2_lo, *count;
};
struct ColumnMean {
  const double *mean, *mean_lo;
};
struct ColumnGradientSums {
  double *g, *g_lo, *gd, *gd_lo;
};

// What an operation makes of its result before it stores it.
enum class Activation { none, relu, gelu, silu };

// The same for a channel or column: y = activation(z + residual), of which `active` keeps where the gradient passes.
// Activations are none or relu, or leaky relu where its slope below 0 is not 1, without residual and bits.
template <class T>
struct Fusion {
  const T* residual = nullptr;
  Activation activation = Activation::none;
  ActiveBits active = {};
  double slope = 1.0;
};

// `rows` rows of `cols` elements, consecutive rows `stride` elements apart.
struct Block {
  Index rows, stride, cols;
};

// Where a result goes: to a cache nearby; to the last-level cache, which takes one row at a time the fastest; or past
// the caches.
enum class Reach { near, far, past };

// How a loop writes its result. Past the caches it also fetches the memory that lies `ahead` elements on, which the
// same thread reads next: memory is the slower for reading and writing in turns.
struct Stores {
  Reach reach;
  Index ahead;
};

// An element is kept, times scale, where its random word is below the threshold.
struct Dropout {
  static constexpr std::uint64_t keeps_all = std::uint64_t{1} << 32;
  std::uint64_t seed = 0, threshold = keeps_all;
  double scale = 1.0;
};

// sum = residual + dropout(x), which is then normalized in place of x; null where there is no residual.
template <class T>
struct Residual {
  const T *x = nullptr, *residual = nullptr;
  T* sum = nullptr;
  Dropout dropout;
};

// x, y: (rows, cols); weight, bias: (cols) or null; mean, rstd: (rows). Values that are not centered have mean 0: then
// it is RMS norm.
template <class T>
struct LayerNormForward {
  const T* x;
  T* y;
  const Real<T>*weight, *bias;
  double *mean, *rstd;
  Index cols;
  double eps;
  Reach reach;
  Where where;
  bool centered = true;
  Activation activation = Activation::none;
  Residual<T> residual = {};  // its sum is x
};

// dy, x, dx: (rows, cols); weight, bias: (cols) or null; mean, rstd: (rows). from_output: x is the y of the forward
// pass, without activation, mean is 0, and x − mean is recovered from them. Bias is wanted for that or by an
// activation; and so is `staged`, memory of the calling thread for staged_rows rows of dy before an activation, and
// then as many of x.
template <class T>
struct LayerNormBackward {
  const T *dy, *x;
  T* dx;
  const Real<T>*weight, *bias;
  const double *mean, *rstd;
  Index cols;
  Reach reach;
  Where where;
  bool centered = true;
  Activation activation = Activation::none;
  const T* dsum = nullptr;  // added to dx, or null
  T* dropped = nullptr;     // dropout's gradient of that, or null
  Dropout dropout = {};
  Real<T>* staged = nullptr;
  bool from_output = false;

  bool stages() const { return from_output || activation != Activation::none; }
};
inline constexpr Index staged_rows = 4;
// Columns that layer_norm_backward_columns takes at most.
inline constexpr Index block_cols = 1024;

// One row's part in its gradient: x̂ = (x − center)·rstd + shift, dx = ((g − mean_g) − x̂·mean_gx)·rstd.
template <class T>
struct RowGradient {
  T center, rstd, shift, mean_g, mean_gx;
};

// Planes of doubles that a column accumulator takes: a double for float data, a pair for double data.
template <class T>
inline constexpr int accumulator_planes = is_double<T> ? 2 : 1;

template <class T>
struct Kernels {
  // ahead, here and below: where memory lies that the same thread reads next, in elements from here; 0: unknown.
  // channels, here and below: out, the mean and the coefficients have one value for each.
  void (*moments)(const T* x, Runs runs, Index channels, Where where, BlockMoments* out, Index ahead);
  void (*moments_about_zero)(const T* x, Index count, Where where, BlockMoments* out, Index ahead);
  void (*column_moments)(const T* x, Block block, Where where, ColumnMoments out);
  // The moments of `more` further rows join those of `count` rows; where not all rows count, each column has its own
  // numbers of them.
  void (*merge_columns)(ColumnMoments moments, double count, ColumnMoments others, double more, Index cols);

  // Mean, rstd and y of the rows [begin, end). A row whose statistics leave the range of T, or that has none, is left
  // alone and its rstd set to `out_of_range`; returns how many those are.
  Index (*layer_norm_rows)(const LayerNormForward<T>& args, Index begin, Index end);
  // sum of `count` elements from `at` on, and dx of as many from dsum
  void (*add_residual)(const Residual<T>& args, Index at, Index count);
  void (*drop_gradients)(const Dropout& dropout, const T* dsum, T* dx, Index at, Index count);
  // y = activation(((x − center)·scale + shift)·weight + bias) over the columns [first, first + n) of a row
  void (*normalize)(const LayerNormForward<T>& args, Index row, Index first, Index n, Affine<Real<T>> affine,
                    Stores stores);

  // dx of the rows [begin, end); adds Σ dy·x̂ and Σ dy to dweight and dbias, accumulators of cols columns.
  // Rows whose rstd is out of range are left out altogether; returns how many those are.
  Index (*layer_norm_backward_rows)(const LayerNormBackward<T>& args, Index begin, Index end, double* dweight,
                                    double* dbias);
  // The sums of the columns [first, first + cols) of a row.
  void (*layer_norm_gradient_sums)(const LayerNormBackward<T>& args, Index row, Index first, Index cols, Sum mean,
                                   GradientSums* out, Index ahead);
  // dx of the columns [first, first + cols) of these rows, and their part in dweight and dbias, the row sums being
  // known; gradients: those of all rows.
  void (*layer_norm_backward_columns)(const LayerNormBackward<T>& args, Index begin, Index end, Index first, Index cols,
                                      const RowGradient<Real<T>>* gradients, double* dweight, double* dbias);

  void (*affine)(const T* x, T* y, Runs runs, Index channels, AffineColumns<Real<T>> affine, Fusion<T> fusion,
                 Stores stores);
  void (*column_affine)(const T* x, T* y, Block block, AffineColumns<Real<T>> affine, Fusion<T> fusion, Reach reach);

  // The bits of what relu has made.
  void (*keep_active)(const T* y, Index count, ActiveBits active);
  // dz = dy where it is active, and 0 elsewhere
  void (*active_gradients)(const T* dy, T* dz, Runs runs, Index channels, ActiveBits active);
  void (*gradient_sums)(const T* dy, const T* x, Runs runs, Index channels, const Sum* mean, Passage passage,
                        GradientSums* out, Index ahead);
  void (*column_gradient_sums)(const T* dy, const T* x, Block block, ColumnMean mean, Passage passage,
                               ColumnGradientSums out);
  void (*add_columns)(ColumnGradientSums sums, ColumnGradientSums others, Index cols);
  // Elements that do not count did not move the mean and the variance: their dx is dy·dy_scale.
  void (*gradient_affine)(const T* dy, const T* x, T* dx, Runs runs, Index channels,
                          GradientAffineColumns<Real<T>> affine, Passage passage, Where where, Stores stores);
  void (*column_gradient_affine)(const T* dy, const T* x, T* dx, Block block, GradientAffineColumns<Real<T>> affine,
                                 Passage passage, Where where, Reach reach);
};

// Channels of float data, whose statistics and coefficients are found side by side: arrays of one value each.
// rstd = 1/sqrt(var + eps), and the coefficients of Affine.
struct ChannelAffines {
  const double *mean, *var;
  const float *weight, *bias;  // or null
  double eps;
  double* rstd;
  float *center, *scale, *shift;
};
// dweight, dbias, and the coefficients of GradientAffine; g, gd: Σ dy and Σ dy·(x − mean) over `count` elements.
struct ChannelGradients {
  const double *mean, *rstd, *g, *gd;
  const float* weight;  // or null
  double count;
  float *dweight, *dbias, *center, *scale, *dy_center, *dy_scale;
};

// One value, where a plan computes element by element: activation(z) and its derivative.
struct ActivationKernels {
  double (*value)(Activation activation, double z);
  double (*derivative)(Activation activation, double z);
};

struct ChannelKernels {
  // The channels [begin, end). False if some have to be looked at one by one, for float may have no room for them.
  bool (*affines)(const ChannelAffines& args, Index begin, Index end);
  bool (*gradients)(const ChannelGradients& args, Index begin, Index end);
};

struct MaskKernels {
  // How many elements of a channel's runs count, and how many in every column of a block.
  Index (*count)(Runs runs, Where where);
  void (*count_columns)(Block block, Where where, double* counts);
};

// A step of Adam on `count` weights; largest: of velocity so far, or null.
template <class T>
struct AdamStep {
  T* value;
  const T* grad;
  T *momentum, *velocity, *largest;
  Index count;
  T momentum_share, velocity_share, epsilon, rate;
};

// Softmax and cross-entropy of rows of logits; labels: a class per row; weights: a factor per row, or null; share: the
// factor of all of them. The loss of a row is log(total) - shifted, total being the sum of the exponentials of its
// logits less the largest, and shifted that of its label; gradient: of the sum of losses times their factors.
template <class T>
struct SoftmaxCrossEntropy {
  const T* logits;
  const std::int64_t* labels;
  const T* weights;
  T *gradient, *probabilities;
  double *totals, *shifted;
  Index rows, classes;
  double share;
};

struct LossKernels {
  void (*softmax_cross_entropy_f32)(const SoftmaxCrossEntropy<float>& args);
  void (*softmax_cross_entropy_f64)(const SoftmaxCrossEntropy<double>& args);
};

struct StepKernels {
  void (*adam_f32)(const AdamStep<float>& args);
  void (*adam_f64)(const AdamStep<double>& args);
};

struct KernelSet {
  const char* isa;
  Kernels<float> f32;
  Kernels<double> f64;
  Kernels<BFloat16> bf16;
  Kernels<Float16> f16;
  ChannelKernels channels;
  MaskKernels masks;
  StepKernels steps;
  LossKernels losses;
  ActivationKernels activations;
};

// Marks a row or channel that a kernel left alone.
inline constexpr double out_of_range = -1.0;

// rstd and |mean| within these bounds keep x − mean, its products and its squares inside the normal range of T; beyond
// them the plans compute in a wider type.
template <class T>
struct SafeRange;
template <>
struct SafeRange<float> {
  static constexpr double rstd_min = 0x1p-60, rstd_max = 0x1p60, mean_max = 0x1p120, coefficient_min = 0x1p-126,
                          coefficient_max = 0x1p100;
};
template <>
struct SafeRange<double> {
  static constexpr double rstd_min = 0x1p-400, rstd_max = 0x1p400, mean_max = 0x1p900, coefficient_min = 0x1p-1022,
                          coefficient_max = 0x1p900;
};

}  // namespace normkit
