"""The text of the accuracy page."""

WITHIN = """In how many cases each library stays within the bounds of normkit's [contract](design.md#the-numerics-contract), which
is what normkit promises and no other library does; and in how many a result is NaN or infinite though the exact one is not. Most
of the data here are chosen to be hard."""

UNITS = """## How to read it

Errors are in the units of [the contract](design.md#the-numerics-contract), element by element:

| result | unit | bound |
|---|---|---:|
| y | the ulp of max(\\|x̂·weight\\|, \\|bias\\|, \\|weight\\|/256) | 4 |
| dx | ε·rstd·(\\|g\\| + \\|mean g\\| + \\|x̂·mean(g·x̂)\\|), with g = dy·weight | 4 |
| dweight, dbias | ε·Σ\\|terms\\| | 2 |

ε is the spacing of floats at 1: 1.2e-7 in float32, 2.2e-16 in float64, 7.8e-3 in bfloat16, 9.8e-4 in float16. In 16 bits normkit's
results are the exact ones rounded once: half a unit of y, or a whole one where x̂·weight and bias add up to a larger power of two. A gradient's bound has the smallest number of the dtype
added, so that it is never 0. **Large figures**: 1/ε units are the size of the result itself, 8e6 in float32 and 5e15 in float64;
there no digit is right. Where the exact result is 0, as dweight is for constant data, the unit is the smallest number and any error
is enormous. Inf or NaN: a result is that, though the exact one is finite; the 99.9th
percentile is Inf if more than a thousandth of the elements are. A dash: the library does not compute it."""

CONTRACT = """Each bound with the largest error over every length, kind of data and reported input on this page. The figures of
normkit hold for AVX2, AVX-512 and NEON, which give the same bits; the baseline has bits of its own."""

EXCEPTIONS = """**Where it does not hold, and what does.** dweight of float64 data whose deviations are subnormal numbers, below
2.2e-308. It is Σdy·(x − mean)·rstd. Elsewhere a second double holds what rounding loses of the mean and of the products; here that
would lie below the smallest number, 4.9e-324, so each term loses up to half of it to the product and half of it times \\|dy\\| to the
mean, and rstd multiplies both. The bound that holds is **2 ε·Σ\\|terms\\| + Σ rstd·(\\|dy\\| + 1)/2 smallest numbers**, to which
`tests/numerics/test_accuracy_table.py` holds it. float32 data are computed in double, where nothing of this is lost."""

DATA = """Each cell is the largest error / the largest 99.9th percentile of a case, over lengths n from 2 to 1e6; the worst of normkit's
first. What the libraries do:

* **torch**: `torch.nn.functional` and autograd; NHWC is a channels-last tensor.
* **keras**: its layers on the torch backend. Its layer norm is torch's in float32; its batch norm takes the variance as
  mean(x²) − mean(x)². In float64 its layers compute in float32: Keras promotes float64 with float32 to float32.
* **jax**: `jax.nn.standardize` with its default, `algorithm="fast"`, which is mean(x²) − mean(x)² too (`"stable"` is its other),
  times weight plus bias, and `jax.vjp`, compiled.
* **onnxruntime**: LayerNormalization and BatchNormalization in training mode on the CPU; it has no gradients and no NHWC, and of
  16 bits the layer norm of float16 alone.
* **16 bits**: parameters are of the same type; keras is measured in float32 and float64 alone.

mean/σ: normal data of deviation 1. Constant: 1234.567. Subnormal: up to 1000 smallest numbers, so that eps is all of the variance. Huge: normal
data times that number. Mixed scales: normal data times ten to the power of −6 to 6 (float16: −3 to 3)."""

LENGTH = """The same over all operations, for mean/σ of 0 and 1 alone, where every formula works: what the number n of values in a
mean does. Of dweight and dbias of a layer norm the terms are not n but the rows: 4096/n, at least 2, and for n = 2 also up to 1e6."""

REPRODUCERS = """As their users reported them, in float32 where no other is named; the largest error, the worst of normkit's first.
Mean/σ of 1e7 is beyond the contract. What was reported without an error to measure, such as empty batches, the drift of stacked
norms and the strides of running statistics, is in `tests/numerics/test_reproducers.py`."""
