// Plans of layer norm and RMS norm. x, y, dy, dx: (rows, cols).
//
// Short rows (up to 64 KB) are the kernel's: statistics and result of a row while it is in cache, rows shared among the
// threads. Long rows are cut into chunks that fit the first-level cache; their statistics are merged in chunk order, so
// that a single row of a million elements uses every thread and still has one result.
#include <cmath>

#include "kernels/coefficients.hpp"
#include "norm/dispatch.hpp"
#include "norm/machine.hpp"
#include "norm/merge.hpp"
#include "norm/norm.hpp"
#include "norm/rows.hpp"
#include "norm/scratch.hpp"
#include "norm/sweeps.hpp"

namespace normkit {
namespace {

template <class T>
constexpr Index chunk_cols = piece_elements<T>;
// Up to this length a row is the kernel's; a longer one leaves the second-level cache too little room beside its
// neighbour.
template <class T>
constexpr Index longest_short_row = 4 * chunk_cols<T>;
// Backward, a tile of rows of x and dy up to this length stays in a second-level cache, and so do the accumulators.
constexpr Index fused_backward_cols = 16384;

template <class T>
Index chunks_of(Index cols) {
  return (cols + chunk_cols<T> - 1) / chunk_cols<T>;
}
template <class T>
Index chunk_length(Index cols, Index chunk) {
  return std::min(chunk_cols<T>, cols - chunk * chunk_cols<T>);
}

template <class T>
void short_rows(const LayerNormForward<T>& args, Index rows, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(rows);
    Index left_alone = kernel.layer_norm_rows(args, mine.begin, mine.end);
    for (Index r = mine.begin; left_alone > 0 && r < mine.end; ++r)
      if (args.rstd[r] == out_of_range) {
        careful_row(args, r);
        --left_alone;
      }
  });
}

// The statistics of some chunks of the rows; parts: (rows, chunks).
template <class T>
void chunk_moments(const T* x, Index cols, Where where, Share pieces, BlockMoments* parts) {
  const Kernels<T>& kernel = kernels<T>();
  const Index chunks = chunks_of<T>(cols);
  for (Index piece = pieces.begin; piece < pieces.end; ++piece) {
    const Index row = piece / chunks, chunk = piece % chunks;
    kernel.moments(x + row * cols + chunk * chunk_cols<T>, {1, 0, chunk_length<T>(cols, chunk)}, 1,
                   from(where, row, 0, chunk * chunk_cols<T>), parts + piece, 0);
  }
}

template <class T>
Moments<T> merge_chunks(Index cols, const BlockMoments* parts) {
  return merge<T>([&](auto&& visit) {
    for (Index chunk = 0; chunk < chunks_of<T>(cols); ++chunk) visit(parts[chunk]);
  });
}

template <class T>
void long_rows(const LayerNormForward<T>& args, Index rows, int threads) {
  const Kernels<T>& kernel = kernels<T>();
  const Index cols = args.cols, chunks = chunks_of<T>(cols);
  const int parameters = (args.weight ? 1 : 0) + (args.bias ? 1 : 0);  // read by the second sweep, beside x
  const Index row_bytes = cols * static_cast<Index>(sizeof(T) + parameters * sizeof(Real<T>));
  const Scratch<BlockMoments> parts(rows * chunks);
  const Scratch<Affine<Real<T>>> affine(rows);
  const Scratch<bool> done(rows);
  const auto ahead = [&](Index row, Index chunk, Next next) {
    return next.item < 0 ? 0 : (next.item - row) * cols + (next.piece - chunk) * chunk_cols<T>;
  };
  const auto statistics = [&](Share some, Index chunk, Next next) {
    for (Index row = some.begin; row < some.end; ++row) {
      const Index first = chunk * chunk_cols<T>, count = chunk_length<T>(cols, chunk),
                  further = ahead(some.begin, chunk, next);
      const Where where = from(args.where, row, 0, first);
      if (args.residual.sum) kernel.add_residual(args.residual, row * cols + first, count);
      BlockMoments* part = parts.data() + row * chunks + chunk;
      if (args.centered)
        kernel.moments(args.x + row * cols + first, {1, 0, count}, 1, where, part, further);
      else
        kernel.moments_about_zero(args.x + row * cols + first, count, where, part, further);
    }
  };
  const auto finish = [&](Index row) {
    const Moments<T> moments = merge_chunks<T>(cols, parts.data() + row * chunks);
    args.mean[row] = moments.mean.hi;
    args.rstd[row] = moments.rstd(args.eps);
    affine[row] = standardize<Real<T>>(moments.mean, args.rstd[row]);
    done[row] = args.rstd[row] == out_of_range;
    if (done[row]) careful_row(args, row);
  };
  const auto apply = [&](Share some, Index chunk, Next next) {
    const Index first = chunk * chunk_cols<T>;
    for (Index row = some.begin; row < some.end; ++row)
      if (!done[row])
        kernel.normalize(args, row, first, chunk_length<T>(cols, chunk), affine[row],
                         {args.reach, ahead(some.begin, chunk, next)});
  };
  // Two rows share the reading of weight and bias where a cache does not hold these from row to row.
  const Index together = row_bytes > caches().second_level ? 2 : 1;
  parallel(threads,
           [&](const Team& team) { two_sweeps(team, rows, together, chunks, row_bytes, statistics, finish, apply); });
}

// The accumulators of dweight and dbias of some columns, rounded.
template <class T>
void round_sums(const double* dw, const double* db, Index cols, Share columns, Real<T>* dweight, Real<T>* dbias) {
  const auto value = [cols](const double* plane, Index j) {
    return rounded<Real<T>>(widened<T>(Sum{plane[j], is_double<T> ? plane[cols + j] : 0.0}));
  };
  for (Index j = columns.begin; j < columns.end; ++j) {
    dweight[j] = value(dw, j);
    dbias[j] = value(db, j);
  }
}

// Rows in chunks whose number depends on the shape alone; each chunk has accumulators of its own for dweight and dbias.
template <class T>
void backward_by_rows(const LayerNormBackward<T>& args, Index rows, Real<T>* dweight, Real<T>* dbias, int threads) {
  // Enough chunks for many threads, and few enough that their accumulators cost little beside the rows.
  constexpr Index least_bytes = 64 << 10, usual_chunks = 16, bytes_beyond = 1 << 20, rows_beyond = 64,
                  most_chunks = 256;
  const Kernels<T>& kernel = kernels<T>();
  const Index cols = args.cols, bytes = rows * cols * static_cast<Index>(sizeof(T));
  const Index wanted = std::clamp(
      std::min(bytes / least_bytes, std::max(usual_chunks, std::min(bytes / bytes_beyond, rows / rows_beyond))),
      Index{1}, most_chunks);
  const Index rows_each = ((rows + wanted - 1) / wanted + 7) / 8 * 8;  // whole tiles of every kernel
  const Index chunks = (rows + rows_each - 1) / rows_each, width = accumulator_planes<T> * cols;
  const Scratch<double> partials(chunks * 2 * width);
  constexpr Index both = 2 * staged_rows;
  const Scratch<Real<T>> staged(args.stages() ? threads * both * cols : 0);
  parallel(threads, [&](const Team& team) {
    const Share mine = team.share(chunks);
    LayerNormBackward<T> own = args;
    if (args.stages()) own.staged = staged.data() + team.rank * both * cols;
    for (Index chunk = mine.begin; chunk < mine.end; ++chunk) {
      double *dw = partials.data() + chunk * 2 * width, *db = dw + width;
      std::fill(dw, dw + 2 * width, 0.0);
      const Index begin = chunk * rows_each, end = std::min(rows, begin + rows_each);
      Index left_alone = kernel.layer_norm_backward_rows(own, begin, end, dw, db);
      for (Index r = begin; left_alone > 0 && r < end; ++r)
        if (is_out_of_range<T>(args.rstd[r])) {
          careful_columns(args, r, careful_row_gradient(args, r), 0, cols, dw, db);
          --left_alone;
        }
    }
    team.barrier();
    const Share columns = team.share(cols);
    const auto sums = [&](Index chunk) {
      double* dw = partials.data() + chunk * 2 * width + columns.begin;
      const Index lo = (accumulator_planes<T> - 1) * cols;
      return ColumnGradientSums{dw, dw + lo, dw + width, dw + width + lo};
    };
    for (Index chunk = 1; chunk < chunks; ++chunk)
      kernel.add_columns(sums(0), sums(chunk), columns.end - columns.begin);
    round_sums<T>(partials.data(), partials.data() + width, cols, columns, dweight, dbias);
  });
}

// The means of all rows: what the forward pass gave, refined where a double is not enough.
template <class T>
void refine_means(const LayerNormBackward<T>& args, Index rows, const Team& team, BlockMoments* parts, Sum* means) {
  const Index chunks = chunks_of<T>(args.cols);
  const Share my_rows = team.share(rows);
  const bool refines = is_double<T> && args.centered && !args.from_output;
  if (refines) {
    chunk_moments(args.x, args.cols, args.where, team.share(rows * chunks), parts);
    team.barrier();
  }
  for (Index r = my_rows.begin; r < my_rows.end; ++r) {
    means[r] = {args.mean[r], 0.0};
    if (refines) means[r] = refine_mean(args.mean[r], merge_chunks<T>(args.cols, parts + r * chunks).mean);
  }
  team.barrier();
}

// Long rows: the sums of some rows first, then blocks of columns, each over these rows while they are still in the
// cache. The accumulators of a block take in the rows in order, so that the grouping shows in no bit.
template <class T>
void backward_by_columns(const LayerNormBackward<T>& args, Index rows, Real<T>* dweight, Real<T>* dbias, int threads) {
  constexpr Index planes = accumulator_planes<T>;
  const Kernels<T>& kernel = kernels<T>();
  const Index cols = args.cols, chunks = chunks_of<T>(cols), blocks = (cols + block_cols - 1) / block_cols;
  const Index row_bytes = 2 * cols * static_cast<Index>(sizeof(T));
  constexpr Index most_rows = 16;  // of a group; more gained nothing
  const Index group = std::clamp<Index>(caches().last_level / 2 / row_bytes, 1, std::min(rows, most_rows));
  const Scratch<GradientSums> parts(rows * chunks);
  const Scratch<BlockMoments> block_moments(is_double<T> ? rows * chunks : 0);
  const Scratch<RowGradient<Real<T>>> gradients(rows);
  const Scratch<Sum> means(rows);
  const Scratch<double> accumulators(2 * planes * blocks * block_cols);
  const Scratch<CarefulGradient<T>> careful(rows);

  const auto sums = [&](Index row, Index chunk) {
    const Index first = chunk * chunk_cols<T>;
    kernel.layer_norm_gradient_sums(args, row, first, chunk_length<T>(cols, chunk), means[row],
                                    parts.data() + row * chunks + chunk, chunk_cols<T>);
  };
  const auto finish = [&](Index row) {
    if (is_out_of_range<T>(args.rstd[row])) careful[row] = careful_row_gradient(args, row);
    Wider<T> g = 0.0, gd = 0.0;
    for (Index chunk = 0; chunk < chunks; ++chunk) {
      g += widened<T>(parts[row * chunks + chunk].g);
      gd += widened<T>(parts[row * chunks + chunk].gd);
    }
    const double rstd = args.rstd[row],
                 count = static_cast<double>(active_kernels().masks.count({1, 0, cols}, from(args.where, row, 0, 0)));
    const double mean_g = args.centered ? static_cast<double>(g) / count : 0.0;
    gradients[row] = row_gradient<Real<T>>(means[row], rstd, mean_g, static_cast<double>(gd) * rstd / count);
  };
  const auto block_gradients = [&](Index block, Share some) {
    const Index first = block * block_cols, count = std::min(block_cols, cols - first);
    double *dw = accumulators.data() + block * 2 * planes * block_cols, *db = dw + planes * count;
    if (some.begin == 0) std::fill(dw, dw + 2 * planes * count, 0.0);
    kernel.layer_norm_backward_columns(args, some.begin, some.end, first, count, gradients.data(), dw, db);
    for (Index r = some.begin; r < some.end; ++r)
      if (is_out_of_range<T>(args.rstd[r])) careful_columns(args, r, careful[r], first, count, dw, db);
    if (some.end == rows) round_sums<T>(dw, db, count, {0, count}, dweight + first, dbias + first);
  };
  parallel(threads, [&](const Team& team) {
    refine_means(args, rows, team, block_moments.data(), means.data());
    const Share mine = team.share(blocks);
    for (Index begin = 0; begin < rows; begin += group) {
      const Share some{begin, std::min(rows, begin + group)};
      const Share pieces = team.share((some.end - some.begin) * chunks), finished = team.share(some.end - some.begin);
      for (Index i = pieces.begin; i < pieces.end; ++i) sums(begin + i / chunks, i % chunks);
      team.barrier();
      for (Index i = finished.begin; i < finished.end; ++i) finish(begin + i);
      team.barrier();
      for (Index block = mine.begin; block < mine.end; ++block) block_gradients(block, some);
    }
  });
}

}  // namespace

template <class T>
void layer_norm(LayerNormForward<T> args, Index rows, int threads) {
  const SameKernels throughout;
  const Index bytes = rows * args.cols * static_cast<Index>(sizeof(T)), arrays = args.residual.sum ? 4 : 2;
  args.reach =
      std::min(args.reach, limited(reach_of(arrays * bytes, 0, threads), args.cols * static_cast<Index>(sizeof(T))));
  if (args.cols == 0) {
    std::fill(args.mean, args.mean + rows, 0.0);
    std::fill(args.rstd, args.rstd + rows, 1.0 / std::sqrt(args.eps));
  } else if (args.cols <= longest_short_row<T>) {
    short_rows(args, rows, threads);
  } else {
    long_rows(args, rows, threads);
  }
}

template <class T>
void layer_norm_backward(LayerNormBackward<T> args, Index rows, Real<T>* dweight, Real<T>* dbias, int threads) {
  const SameKernels throughout;
  const Index bytes = rows * args.cols * static_cast<Index>(sizeof(T));
  if (args.dropped) args.reach = std::min(args.reach, Reach::far);  // dx is read again
  const Scratch<double> no_means(args.from_output ? rows : 0);
  if (args.from_output) {
    std::fill(no_means.data(), no_means.data() + rows, 0.0);
    args.mean = no_means.data();
  }
  args.reach =
      std::min(args.reach, limited(reach_of(3 * bytes, 0, threads), args.cols * static_cast<Index>(sizeof(T))));
  if (rows == 0 || args.cols == 0) {
    std::fill(dweight, dweight + args.cols, Real<T>(0));
    std::fill(dbias, dbias + args.cols, Real<T>(0));
  } else if (args.cols <= fused_backward_cols) {
    backward_by_rows(args, rows, dweight, dbias, threads);
  } else {
    backward_by_columns(args, rows, dweight, dbias, threads);
  }
}

template void layer_norm(LayerNormForward<float>, Index, int);
template void layer_norm(LayerNormForward<double>, Index, int);
template void layer_norm(LayerNormForward<BFloat16>, Index, int);
template void layer_norm(LayerNormForward<Float16>, Index, int);
template void layer_norm_backward(LayerNormBackward<float>, Index, float*, float*, int);
template void layer_norm_backward(LayerNormBackward<double>, Index, double*, double*, int);
template void layer_norm_backward(LayerNormBackward<BFloat16>, Index, float*, float*, int);
template void layer_norm_backward(LayerNormBackward<Float16>, Index, float*, float*, int);

}  // namespace normkit
