"""Batch norm of a batch that is spread over ranks, against the kernel on the whole batch."""

from __future__ import annotations

import json

import pytest

CODE = """
import json, sys
import numpy as np
import normkit as nk
from normkit.distributed import sync_batch_norm, sync_batch_norm_backward
from normkit.distributed.communicator import world

comm = world()
CASES = {
    # shape, axis, mean in units of sigma, edges of the parts of three ranks
    "columns": ((50, 24), 1, 3.0, (0, 20, 21, 50)),
    "an empty part": ((33, 8), 1, 0.0, (0, 16, 16, 33)),
    "one sample each": ((3, 5), 1, 1.0, (0, 1, 2, 3)),
    "images": ((12, 4, 7, 5), 1, 100.0, (0, 5, 9, 12)),
    "channels last": ((12, 6, 6, 10), -1, 0.5, (0, 0, 4, 12)),
    "far from zero": ((64, 6), 1, 1e5, (0, 30, 31, 64)),
}
for name, (shape, axis, mean, edges) in CASES.items():
    for dtype in (np.float32, np.float64):
        rng = np.random.default_rng(len(name))
        x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
        x += dtype(mean)
        weight, bias = (rng.normal(size=shape[axis]).astype(dtype) for _ in range(2))
        mine = slice(edges[comm.rank], edges[comm.rank + 1])
        whole_stats, stats = nk.RunningStats.torch(shape[axis]), nk.RunningStats.torch(shape[axis])
        y, moments = nk.batch_norm(x, weight, bias, axis=axis, stats=whole_stats, return_moments=True)
        expected = nk.batch_norm_backward(dy, x, moments, weight, axis=axis)
        part, found = sync_batch_norm(x[mine], weight, bias, axis=axis, stats=stats)
        gradients = sync_batch_norm_backward(dy[mine], x[mine], found, weight, axis=axis)
        assert part.shape == y[mine].shape and part.dtype == dtype
        assert gradients.dx.shape == part.shape and gradients.dx.dtype == dtype
        sums = comm.objects((gradients.dweight, gradients.dbias))
        eps = np.finfo(dtype).eps
        # The kernel's own variances of float32 data are right to 2**-29 (docs/design.md). What the rounding of the float64 mean does to float64 data; nothing to float32.
        far = 1.0 + (mean if dtype == np.float64 else 0.0)
        terms = np.abs(dy).sum(axis=tuple(i for i in range(dy.ndim) if i != axis % dy.ndim))
        errors = {
            "mean": np.abs(found.mean - moments.mean).max() / (1 + mean) / 2**-52,
            "var": np.abs(found.var / np.maximum(moments.var, 1e-300) - 1).max() / (2**-29 if dtype == np.float32 else 2**-52 * far),
            "y": np.abs(part - y[mine]).max(initial=0) / eps / far,
            "dx": np.abs(gradients.dx - expected.dx[mine]).max(initial=0) / eps / far,
            "dweight": (np.abs(sum(s[0] for s in sums) - expected.dweight) / terms).max() / eps / far,
            "dbias": (np.abs(sum(s[1] for s in sums) - expected.dbias) / terms).max() / eps / far,
            "stats": max(np.abs(stats.mean / whole_stats.mean - 1).max(), np.abs(stats.var / whole_stats.var - 1).max()) / 2**-23,
        }
        assert found.samples == moments.samples
        worst = {key: max(every) for key in errors for every in [comm.objects(float(errors[key]))]}
        if comm.rank == 0:
            print(json.dumps([f"{name} {dtype.__name__}", worst]))
if comm.rank == 0:
    print("end")
comm.objects(None)
empty, nothing = sync_batch_norm(np.empty((0, 4), np.float32))
assert empty.shape == (0, 4) and nothing.samples == 0
assert sync_batch_norm_backward(empty, empty, nothing).dweight.tolist() == [0] * 4
"""


def test_moments_results_and_gradients_are_those_of_the_whole_batch(printed):
    lines = printed(3, CODE)
    assert lines.pop() == "end"
    assert len(lines) == 12
    for line in lines:
        case, worst = json.loads(line)
        for what, error in worst.items():
            # x̂ is at most about 4, weight about 2, rstd here about 1: some units of rounding each.
            assert error <= (64 if what in ("y", "dx") else 8), f"{case}: {what} {error}"


@pytest.mark.parametrize("ranks", [2, 4])
def test_every_rank_has_the_same_bits_of_the_moments(printed, ranks):
    code = """
    import numpy as np
    from normkit.distributed import sync_batch_norm
    from normkit.distributed.communicator import world

    comm = world()
    x = np.random.default_rng(comm.rank).normal(5, 1, (10 + comm.rank, 3)).astype(np.float32)
    moments = sync_batch_norm(x)[1]
    every = comm.objects((moments.mean.tobytes(), moments.rstd.tobytes(), moments.var.tobytes()))
    if comm.rank == 0:
        print(len(set(every)))
    """
    assert printed(ranks, code) == ["1"]


def test_moments_of_a_single_process_are_refused(printed):
    code = """
    import numpy as np
    from normkit import Moments
    from normkit.distributed import sync_batch_norm_backward
    from normkit.distributed.communicator import world
    x = np.ones((2, 3))
    try:
        sync_batch_norm_backward(x, x, Moments(x[0], x[0]))
    except TypeError as error:
        if world().rank == 0:
            print(error)
    """
    text = "sync_batch_norm_backward: moments must be the BatchMoments of sync_batch_norm, got Moments"
    assert printed(2, code) == [text]
