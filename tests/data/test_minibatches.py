"""MiniBatches: every sample once, in the sizes the rule for the last batch says, the same for the same seed."""

import numpy as np
import pytest

from normkit.data import MiniBatches

RULES = ("keep", "drop", "merge", "spread")


@pytest.mark.parametrize(
    ("n", "batch_size", "last", "sizes"),
    [
        (100, 32, "keep", [32, 32, 32, 4]),
        (100, 32, "drop", [32, 32, 32]),
        (100, 32, "merge", [32, 32, 36]),
        (100, 32, "spread", [25, 25, 25, 25]),
        (97, 32, "spread", [24, 24, 24, 25]),
        (96, 32, "keep", [32, 32, 32]),
        (96, 32, "drop", [32, 32, 32]),
        (96, 32, "merge", [32, 32, 32]),
        (96, 32, "spread", [32, 32, 32]),
        (33, 32, "keep", [32, 1]),
        (33, 32, "drop", [32]),
        (33, 32, "merge", [33]),
        (33, 32, "spread", [16, 17]),
        (5, 32, "keep", [5]),
        (5, 32, "drop", [5]),
        (5, 32, "merge", [5]),
        (5, 32, "spread", [5]),
        (3, 1, "keep", [1, 1, 1]),
        (3, 1, "spread", [1, 1, 1]),
        (0, 4, "keep", []),
        (0, 4, "drop", []),
        (0, 4, "merge", []),
        (0, 4, "spread", []),
    ],
)
def test_sizes(n, batch_size, last, sizes):
    batches = MiniBatches(np.arange(n), batch_size=batch_size, last=last, seed=0)
    assert batches.sizes == sizes
    assert len(batches) == len(sizes)
    assert [len(part) for (part,) in batches] == sizes


@pytest.mark.parametrize("last", RULES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_sample_once_and_rows_stay_together(last, shuffle):
    rng = np.random.default_rng(0)
    for n in range(1, 40):
        for batch_size in (1, 2, 3, 7, 16, 39, 64):
            x, y = rng.normal(size=(n, 3)), np.arange(n)
            parts = list(MiniBatches(x, y, batch_size=batch_size, last=last, shuffle=shuffle, seed=1))
            seen = np.concatenate([yb for _, yb in parts])
            for xb, yb in parts:
                np.testing.assert_array_equal(xb, x[yb])
            assert len(set(seen)) == len(seen)
            if last != "drop" or n <= batch_size:
                assert sorted(seen) == list(range(n))
            else:
                assert len(seen) == n - n % batch_size
            if last == "spread":
                assert np.ptp([len(yb) for _, yb in parts]) <= 1


def test_drop_leaves_out_other_samples_in_each_epoch():
    batches = MiniBatches(np.arange(10), batch_size=4, last="drop", seed=0)
    seen = {int(v) for _ in range(20) for (part,) in batches for v in part}
    assert seen == set(range(10))


def test_seed_decides_the_order_and_epochs_differ():
    def epochs(seed):
        batches = MiniBatches(np.arange(50), batch_size=8, seed=seed)
        return [np.concatenate([part for (part,) in batches]).tolist() for _ in range(3)]

    first, second, third = epochs(3)
    assert epochs(3) == [first, second, third]
    assert first != second != third
    assert epochs(4)[0] != first


def test_a_generator_is_used_as_it_is():
    one, two = np.random.default_rng(9), np.random.default_rng(9)
    (a,) = next(iter(MiniBatches(np.arange(20), batch_size=20, seed=one)))
    np.testing.assert_array_equal(a, two.permutation(20))
    assert one.bit_generator.state == two.bit_generator.state


def test_without_shuffling_batches_are_views():
    x = np.arange(12.0).reshape(6, 2)
    for (part,) in MiniBatches(x, batch_size=4, shuffle=False):
        assert np.shares_memory(part, x)


def test_memory_mapped_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20.0).reshape(10, 2))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    parts = [part for (part,) in MiniBatches(x, batch_size=4, seed=0)]
    assert sorted(np.concatenate(parts)[:, 0]) == list(range(0, 20, 2))


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ((), {}, "one or more arrays"),
        ((np.float64(3),), {}, "at least one axis"),
        ((np.arange(3), np.arange(4)), {}, r"same length, got \[3, 4\]"),
        ((np.arange(3),), {"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ((np.arange(3),), {"batch_size": 2.0}, "batch_size must be a positive integer, got 2.0"),
        ((np.arange(3),), {"last": "pad"}, "last must be one of keep, drop, merge, spread, got 'pad'"),
    ],
)
def test_errors(arrays, options, message):
    with pytest.raises(ValueError, match=message):
        MiniBatches(*arrays, **options)
