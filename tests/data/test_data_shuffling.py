"""Shuffling data larger than memory: each sample once, by the seed alone, how far it moves; and going on after a stop."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from normkit.data import MiniBatches, NpyFile, Stream
from normkit.data.arrays import Arrays


@pytest.fixture
def numbered(tmp_path):
    """1000 rows whose first value is their number, as a file."""
    rows = np.arange(1000.0)[:, None] + np.array([0.0, 0.25, 0.5])
    np.save(tmp_path / "x.npy", rows)
    return NpyFile(tmp_path / "x.npy")


def order(batches):
    return np.concatenate([batch[0][:, 0] for batch in batches]).astype(int)


def arrays_of(batches):
    return [tuple(part.copy() for part in batch) for batch in batches]


def assert_same(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for part, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(part, other)


@pytest.mark.parametrize("last", ["keep", "drop", "merge", "spread"])
@pytest.mark.parametrize("buffer", [None, 1, 7, 64, 999, 1000, 5000])
@pytest.mark.parametrize("shuffle", [True, False])
def test_each_sample_once_in_the_sizes_of_the_rule(numbered, last, buffer, shuffle):
    batches = MiniBatches(
        numbered, batch_size=33, shuffle=shuffle, seed=1, last=last, shuffle_buffer=buffer, prefetch=0
    )
    parts = arrays_of(batches)
    assert [len(part) for (part,) in parts] == batches.sizes
    rows = np.concatenate([part for (part,) in parts])
    np.testing.assert_array_equal(rows, rows[:, :1] + np.array([0.0, 0.25, 0.5]))
    seen = rows[:, 0].astype(int)
    expected = 990 if last == "drop" else 1000
    assert len(seen) == len(set(seen)) == expected
    assert (seen.tolist() == list(range(expected))) is not shuffle


def test_a_function_of_seed_and_epoch_alone(numbered):
    def epochs(seed, count, **options):
        batches = MiniBatches(numbered, batch_size=32, seed=seed, shuffle_buffer=100, **options)
        return [order(batches).tolist() for _ in range(count)]

    first, second = epochs(3, 2)
    assert first != second
    assert epochs(3, 2, prefetch=0) == epochs(3, 2, prefetch=5) == [first, second]
    assert epochs(4, 1) != [first]
    batches = MiniBatches(numbered, batch_size=32, seed=3, shuffle_buffer=100)
    next(iter(batches))  # an epoch that is left early is over
    assert order(batches).tolist() == second


def test_without_a_seed_the_state_tells_which_was_drawn(numbered):
    one, two = (MiniBatches(numbered, batch_size=32) for _ in range(2))
    state = one.state_dict()
    assert state["seed"] != two.state_dict()["seed"]
    two.load_state_dict(state)
    np.testing.assert_array_equal(order(one), order(two))


def test_rows_of_a_block_stay_within_two_buffers_and_blocks_go_anywhere(numbered):
    buffer, block = 160, 10  # a sixteenth of the buffer
    starts = []
    for seed in range(20):
        seen = order(MiniBatches(numbered, batch_size=32, seed=seed, shuffle_buffer=buffer, prefetch=0))
        place = np.argsort(seen).reshape(-1, block)
        assert np.ptp(place, axis=1).max() < 2 * buffer
        pools = place // buffer
        assert (np.ptp(pools, axis=1) <= 1).all()  # a block may be in the pool that it fills and the next
        starts.append(place[0, 0])
    assert min(starts) < 200
    assert max(starts) > 800


def test_neighbours_are_torn_apart(numbered):
    seen = order(MiniBatches(numbered, batch_size=32, seed=0, shuffle_buffer=320, prefetch=0))
    assert (np.abs(np.diff(seen)) == 1).mean() < 0.02
    assert abs(np.corrcoef(seen, np.arange(1000))[0, 1]) < 0.2


def test_a_buffer_for_all_rows_gives_every_order_a_chance():
    rows = np.arange(3.0)[:, None]
    batches = MiniBatches(rows, batch_size=3, seed=0, shuffle_buffer=3)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(3000):
        seen = tuple(order(batches).tolist())
        counts[seen] = counts.get(seen, 0) + 1
    assert len(counts) == 6
    # chi-square with 5 degrees of freedom: above 20.5 once in a thousand seeds
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 20.5


def test_a_stream_moves_no_row_by_a_buffer():
    rows = np.arange(500.0)[:, None]
    stream = Stream(lambda: (rows[i : i + 30] for i in range(0, 500, 30)))
    batches = MiniBatches(stream, batch_size=32, seed=0, shuffle_buffer=64)
    seen = order(batches)
    assert sorted(seen) == list(range(500))
    moved = np.abs(np.argsort(seen) - np.arange(500))
    assert 32 < moved.max() < 64
    assert order(batches).tolist() != seen.tolist()


def sources(numbered):
    rows = np.arange(300.0)[:, None]
    return {
        "file": (numbered,),
        "file and array": (numbered, np.arange(1000)),
        "arrays": (np.arange(1000.0)[:, None], np.arange(1000)),
        "stream": (Stream(lambda: (rows[i : i + 30] for i in range(0, 300, 30))),),
    }


@pytest.mark.parametrize("kind", ["file", "file and array", "arrays", "stream"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False},
        {"shuffle_buffer": 100},
        {"shuffle_buffer": 100, "last": "merge"},
        {"shuffle_buffer": 100, "last": "drop", "prefetch": 0},
        {"shuffle_buffer": 100, "on_bad": "skip"},
    ],
)
def test_going_on_gives_what_an_uninterrupted_run_gives(numbered, kind, options):
    def batches(seed):
        return MiniBatches(*sources(numbered)[kind], batch_size=32, seed=seed, **options)

    whole = batches(7)
    epochs = [arrays_of(whole) for _ in range(3)]
    for stop in (1, 2, 5, len(epochs[1]) - 1, len(epochs[1])):
        interrupted = batches(7)
        for _ in interrupted:
            pass
        for taken, _ in enumerate(interrupted, 1):
            if taken == stop:
                state = json.loads(json.dumps(interrupted.state_dict()))
                break
        assert (state["epoch"], state["batch"]) == (1, stop)
        resumed = batches(99)
        resumed.load_state_dict(state)
        assert_same(arrays_of(resumed), epochs[1][stop:])
        assert_same(arrays_of(resumed), epochs[2])


@pytest.mark.parametrize("bits", ["PCG64", "MT19937", "Philox", "SFC64"])
@pytest.mark.parametrize("kind", ["file", "arrays"])
def test_going_on_with_a_generator(numbered, kind, bits):
    def batches(seed):
        rng = np.random.Generator(getattr(np.random, bits)(seed))
        return MiniBatches(*sources(numbered)[kind], batch_size=32, seed=rng, shuffle_buffer=None)

    whole = batches(7)
    epochs = [arrays_of(whole) for _ in range(3)]
    interrupted = batches(7)
    for _ in interrupted:
        pass
    for taken, _ in enumerate(interrupted, 1):
        if taken == 4:
            break
    state = json.loads(json.dumps(interrupted.state_dict()))
    resumed = batches(99)
    resumed.load_state_dict(state)
    assert_same(arrays_of(resumed), epochs[1][4:])
    assert_same(arrays_of(resumed), epochs[2])


def test_going_on_reads_only_what_is_needed(numbered, monkeypatch):
    batches = MiniBatches(numbered, batch_size=10, seed=0, shuffle_buffer=100, prefetch=0)
    state = batches.state_dict() | {"batch": 95}
    read = []
    original = NpyFile.read
    monkeypatch.setattr(NpyFile, "read", lambda self, a, b: read.append(b - a) or original(self, a, b))
    batches.load_state_dict(state)
    assert len(list(batches)) == 5
    assert sum(read) <= 100


def test_state_between_epochs_and_after_the_last_batch(numbered):
    batches = MiniBatches(numbered, batch_size=500, seed=0)
    assert {k: batches.state_dict()[k] for k in ("epoch", "batch")} == {"epoch": 0, "batch": 0}
    for _ in batches:
        pass
    assert {k: batches.state_dict()[k] for k in ("epoch", "batch")} == {"epoch": 1, "batch": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 16}, "the state is of batch_size=32, this has 16"),
        ({"shuffle_buffer": 10}, "the state is of shuffle_buffer=None, this has 10"),
        ({"last": "drop"}, "the state is of last=keep, this has drop"),
        ({"seed": np.random.default_rng(0)}, "the state is one of an integer seed, not of a generator"),
    ],
)
def test_a_state_of_another_run_is_refused(numbered, changes, message):
    state = MiniBatches(numbered, seed=0).state_dict()
    with pytest.raises(ValueError, match=message):
        MiniBatches(numbered, **{"seed": 0, **changes}).load_state_dict(state)


def test_a_state_that_cannot_be_is_refused_and_changes_nothing(numbered):
    batches = MiniBatches(numbered, seed=0)
    state = batches.state_dict()
    for wrong in ({"epoch": -1}, {"batch": 1.5}, {"seed": "a"}):
        with pytest.raises(ValueError, match="must be an integer, 0 or more"):
            batches.load_state_dict(state | wrong)
    with pytest.raises(KeyError):
        batches.load_state_dict({"epoch": 1})
    with pytest.raises(ValueError, match="of a generator, not of an integer seed"):
        batches.load_state_dict(MiniBatches(numbered, seed=np.random.default_rng(0)).state_dict())
    assert batches.state_dict() == state


def test_two_iterations_at_once_do_not_mix(numbered):
    batches = MiniBatches(numbered, batch_size=100, seed=0, shuffle_buffer=200)
    expected = MiniBatches(numbered, batch_size=100, seed=0, shuffle_buffer=200)
    one, two = arrays_of(expected), arrays_of(expected)
    both = list(zip(batches, batches, strict=True))
    assert_same([a for a, _ in both], one)
    assert_same([b for _, b in both], two)


def test_memory_maps_can_be_shuffled_by_blocks(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(1000.0)[:, None])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    a = order(MiniBatches(mapped, seed=0, shuffle_buffer=100))
    b = order(MiniBatches(NpyFile(tmp_path / "x.npy"), seed=0, shuffle_buffer=100))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_seeds_that_cannot_be(seed):
    with pytest.raises(ValueError, match="MiniBatches: seed must be an integer, 0 or more"):
        MiniBatches(np.arange(3), seed=seed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle_buffer": 0}, "shuffle_buffer must be a positive integer, got 0"),
        ({"prefetch": -1}, "prefetch must be an integer, 0 or more, got -1"),
        ({"on_bad": "ignore"}, "on_bad must be one of error, skip, got 'ignore'"),
        ({"on_bad": "skip", "last": "spread"}, "last='spread' needs the number of rows before"),
    ],
)
def test_parameters_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        MiniBatches(np.arange(3), **options)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_stop_of_any_run(data):
    """Whatever the sizes: each row once, sizes by the rule, and the rest after a stop is that of the whole."""
    n, size = data.draw(st.integers(0, 70)), data.draw(st.integers(1, 80))
    kind = data.draw(st.sampled_from(["source", "arrays", "stream"]))
    rules = ["keep", "drop", "merge"] + ["spread"] * (kind != "stream")
    options = {
        "batch_size": size,
        "shuffle": data.draw(st.booleans()),
        "shuffle_buffer": data.draw(st.none() | st.integers(1, 80)),
        "prefetch": data.draw(st.integers(0, 2)),
        "last": data.draw(st.sampled_from(rules)),
        "seed": 5,
    }
    if options["last"] != "spread":
        options["on_bad"] = data.draw(st.sampled_from(["error", "skip"]))
    rows = np.arange(n)
    step = data.draw(st.integers(1, 20))

    def batches():
        if kind == "stream":
            return MiniBatches(Stream(lambda: (rows[i : i + step] for i in range(0, n, step))), **options)
        return MiniBatches(rows if kind == "arrays" else Arrays(rows).part(0, n), **options)

    whole = [b.tolist() for (b,) in batches()]
    assert [len(b) for b in whole] == MiniBatches(rows, batch_size=size, last=options["last"]).sizes
    seen = [row for b in whole for row in b]
    assert len(set(seen)) == len(seen)
    assert options["last"] == "drop" or sorted(seen) == list(range(n))
    stop = data.draw(st.integers(0, len(whole)))
    resumed = batches()
    resumed.load_state_dict(resumed.state_dict() | {"batch": stop})
    assert [b.tolist() for (b,) in resumed] == whole[stop:]
