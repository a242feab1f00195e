"""Any iterable as data: batches or samples, once or again and again, and batches that are passed on as they come."""

from __future__ import annotations

import numpy as np
import pytest

from normkit.data import MiniBatches, Stream

X, Y = np.arange(60.0).reshape(20, 3), np.arange(20)


def pairs(size=6):
    for i in range(0, 20, size):
        yield X[i : i + size], Y[i : i + size]


def check(batches, size, count=20):
    parts = [(x.copy(), y.copy()) for x, y in batches]
    assert [len(y) for _, y in parts[:-1]] == [size] * (len(parts) - 1)
    rows = np.concatenate([y for _, y in parts])
    assert sorted(rows) == list(range(count))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in parts]), X[rows])


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"shuffle_buffer": 5}, {"prefetch": 0}])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Stream(pairs),
        lambda: Stream(lambda: pairs(1)),
        lambda: Stream(lambda: pairs(100)),
        lambda: Stream([*pairs()]),
        lambda: Stream([[x, y] for x, y in pairs()]),
        lambda: Stream(zip(X, Y, strict=True), samples=True),
        lambda: Stream(lambda: zip(X.tolist(), Y.tolist(), strict=True), samples=True),
        lambda: Stream([*zip(X, Y, strict=True)], samples=True),
    ],
)
def test_batches_are_cut_anew(make, options):
    check(MiniBatches(make(), batch_size=7, seed=0, **options), 7)


def test_again_and_again():
    for stream in (Stream(pairs), Stream([*pairs()])):
        batches = MiniBatches(stream, batch_size=7)
        for _ in range(3):
            check(batches, 7)


def test_an_iterator_is_for_one_epoch():
    for data in (Stream(pairs()), pairs()):
        batches = MiniBatches(data, batch_size=6)
        assert len(list(batches)) == 4
        with pytest.raises(ValueError, match="the iterator is used up after one epoch; give a function"):
            list(batches)


def test_samples_are_gathered_in_blocks_of_bounded_memory():
    row = np.zeros(1 << 15)  # 256 KiB
    blocks = [len(block.rows) for block in Stream([row] * 10, samples=True).blocks()]
    assert blocks == [4, 4, 2]


def test_looking_at_the_first_item_loses_none():
    for stream in (Stream(pairs()), Stream(zip(X, Y, strict=True), samples=True)):
        assert [a.shape for a in stream.empty] == [(0, 3), (0,)]
        assert stream.empty[0].dtype == np.float64
        check(MiniBatches(stream, batch_size=7), 7)


def test_nothing_at_all():
    assert list(MiniBatches(Stream([]), shuffle=False)) == []
    with pytest.raises(ValueError, match="the iterable has no items"):
        _ = Stream([]).empty
    assert list(MiniBatches(Stream([]))) == []


def test_a_function_of_the_rows():
    stream = Stream(pairs).map(lambda x, y: (x / 2, y)).map(lambda y: y + 1, 1)
    rows = [(x, y) for x, y in MiniBatches(stream, batch_size=7)]
    for x, y in rows:
        np.testing.assert_array_equal(x * 2, X[y - 1])


def test_the_length_may_be_told():
    batches = MiniBatches(Stream(pairs, length=20), batch_size=7)
    assert (len(batches), batches.num_samples) == (3, 20)
    unknown = MiniBatches(Stream(pairs), batch_size=7)
    assert unknown.num_samples is None
    with pytest.raises(TypeError, match="the number of batches is not known before they end"):
        len(unknown)


def test_whole_numbers_among_others():
    parts = list(MiniBatches(Stream([np.zeros((2, 2)), np.ones((2, 2), int)]), shuffle=False))
    assert parts[0][0].dtype == np.float64
    with pytest.raises(ValueError, match=r"item 1 \(from 0\): is of type float64, the first item int64"):
        list(MiniBatches(Stream([np.ones((2, 2), int), np.zeros((2, 2))]), shuffle=False))


def test_batches_of_an_iterable_come_as_they_are():
    batches = MiniBatches(pairs(), batch_size=3)
    assert [len(y) for _, y in batches] == [6, 6, 6, 2]
    inner = MiniBatches(X, Y, batch_size=7, seed=0)
    outer = MiniBatches(inner, batch_size=3, seed=5)
    assert len(outer) == 3
    assert [len(y) for _, y in outer] == [7, 7, 6]
    assert outer.num_samples is None


def test_streams_are_alone():
    for data in (Stream(pairs), pairs(), MiniBatches(X)):
        with pytest.raises(ValueError, match="must be alone; let its items be tuples, such as"):
            MiniBatches(data, Y)
    with pytest.raises(TypeError, match="Stream: expected an iterable or a function, got int"):
        Stream(3)
    with pytest.raises(ValueError, match="last='spread' needs the number of rows before the first batch"):
        MiniBatches(Stream(pairs), last="spread")
