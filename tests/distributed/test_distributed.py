"""Data-parallel training as far as one process shows it; tests/mpi has the jobs of several ranks."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest

import normkit as nk
from normkit import metrics
from normkit.cli import main
from normkit.distributed import Communicator, DataParallel, MPICommunicator, launched_ranks
from normkit.distributed.chunks import Chunks
from normkit.layers import BatchNormalization, Dense, Dropout, Input
from normkit.models import Sequential, find_learning_rate
from subprocesses import output_of
from trainer_support import assert_same_weights, blobs, classifier, network
from trainer_support import data as images

SUPPORT = Path(__file__).resolve().parents[1] / "support"


class Crew:
    """Ranks that are threads, with the collectives that `Chunks` uses."""

    def __init__(self, size):
        self.size, self.barrier, self.board = size, Barrier(size), [None] * size

    def run(self, work):
        results = [None] * self.size

        def rank(number):
            results[number] = work(_Thread(self, number))

        threads = [Thread(target=rank, args=(number,)) for number in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return results


class _Thread(Communicator):
    def __init__(self, crew, rank):
        self.crew, self.rank, self.size = crew, rank, crew.size

    def objects(self, item):
        self.crew.board[self.rank] = item
        self.crew.barrier.wait(60)
        items = list(self.crew.board)
        self.crew.barrier.wait(60)
        return items

    def gather(self, rows, counts):
        parts = self.objects(rows)
        assert [len(part) for part in parts] == list(counts)
        return np.concatenate(parts)

    def exchange(self, columns, counts, edges):
        return np.concatenate(self.objects(columns))[:, edges[self.rank] : edges[self.rank + 1]]

    def allreduce(self, values):
        values[...] = sum(self.objects(values.copy()))

    def maximum(self, values):
        values[...] = np.max(self.objects(values.copy()), axis=0)

    def broadcast(self, item):
        return self.objects(item)[0]


@pytest.mark.parametrize("columns", [1, 2, 7, 1000])
def test_sums_in_the_order_of_the_parts_have_the_same_bits_at_any_number_of_ranks(columns, rng):
    table = (rng.normal(size=(8, columns)) * 10.0 ** rng.integers(-8, 8, (8, 1))).astype(np.float32)
    expected = table[0].copy()
    for row in table[1:]:
        expected += row
    for size in range(1, 12):

        def work(comm):
            chunks = Chunks(comm, 8, ordered=True)
            return chunks.sum(table[chunks.local.start : chunks.local.stop].copy())

        for result in Crew(size).run(work):
            np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("rows", "count"), [(0, 4), (3, 8), (8, 8), (83, 7), (2, 1)])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_every_row_is_in_one_part_and_parts_differ_by_one_row_at_most(rows, count, size):
    ranks = Crew(size).run(lambda comm: Chunks(comm, count, ordered=True))
    assert [k for chunks in ranks for k in chunks.local] == list(range(count))
    slices = [part for chunks in ranks for part in chunks.slices(rows)]
    assert [row for part in slices for row in range(rows)[part]] == list(range(rows))
    lengths = [part.stop - part.start for part in slices]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("chunks", [1, 2, 8, 40])
def test_the_parts_of_a_batch_train_like_the_batch(dtype, chunks):
    x, y = blobs(83)
    histories = []
    for distribution in (None, DataParallel(deterministic=True, chunks=chunks)):
        model = classifier(dtype=dtype)
        model.compile(
            nk.optimizers.SGD(0.1, momentum=0.9),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            distribution=distribution,
        )
        fitted = model.fit(
            x, y, batch_size=20, epochs=3, validation_split=0.2, class_weight={0: 2.0}, verbose=0
        )
        histories.append(fitted.history | {"evaluated": model.evaluate(x, y, verbose=0)})
    assert list(histories[0]) == list(histories[1])
    for name, values in histories[0].items():
        rtol = 1e-5 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(histories[1][name], values, rtol=rtol, err_msg=name)


def test_every_kind_of_layer_and_a_loss_that_is_not_fused():
    x, y = images()
    target = np.eye(3)[y]
    results = []
    for distribution in (None, DataParallel(deterministic=True, chunks=3)):
        model = network(dtype="float64")
        model.layers[3].rate = 0.0  # each part has draws of its own
        model.compile("sgd", "mse", metrics=["mae"], distribution=distribution)
        results.append(model.fit(x, target, epochs=2, shuffle=False, verbose=0).history)
    for name, values in results[0].items():
        np.testing.assert_allclose(results[1][name], values, rtol=1e-11)


def test_frozen_layers_and_the_batch_norm_that_comes_first():
    x, y = blobs()
    results = []
    for distribution in (None, DataParallel(deterministic=True)):
        model = Sequential(
            [
                Input((6,)),
                BatchNormalization(),
                Dense(5),
                BatchNormalization(trainable=False),
                Dense(3, "softmax"),
            ],
            seed=0,
            dtype="float64",
        )
        model.compile("sgd", "sparse_categorical_crossentropy", distribution=distribution)
        model.fit(x, y, epochs=2, verbose=0)
        assert model.layers[2].stats.count == 0
        results.append(model.get_weights())
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-11, atol=1e-13)


def test_noise_goes_by_the_part_and_not_by_the_rank():
    x = np.ones((16, 50), np.float32)
    seen = []

    class Seeing(Dropout):
        def forward(self, x, training):
            y = super().forward(x, training)
            seen.append(y)
            return y

    model = Sequential([Input((50,)), Seeing(0.5), Dense(2, activation="softmax")], seed=0)
    model.compile(
        "sgd", "sparse_categorical_crossentropy", distribution=DataParallel(deterministic=True, chunks=4)
    )
    for _ in range(2):
        model.train_on_batch(x, np.zeros(16, int))
    assert [len(part) for part in seen] == [4] * 8
    assert len({part.tobytes() for part in seen}) == 8
    assert 0.3 < np.mean([part == 0 for part in seen]) < 0.7


@pytest.mark.parametrize("name", metrics.registry.names)
def test_metrics_of_parts_merge_to_those_of_the_whole(name, rng):
    sparse, binary = "sparse" in name.lower(), name.lower() in ("auc",)
    p = rng.uniform(0.05, 1.0, (40, 3))
    p /= p.sum(axis=1, keepdims=True)
    labels = rng.integers(0, 3, 40)
    y = labels if sparse else np.eye(3)[labels]
    weight = rng.uniform(0.5, 2.0, 40)
    if binary:
        y, p = y[:, :1], p[:, :1]
    if type(metrics.get(name)).__name__ == "Mean":
        y, p = p[:, 0], weight
        whole, parts = metrics.get(name), [metrics.get(name) for _ in range(3)]
        whole.update_state(y, p)
        for part, rows in zip(parts, (slice(0, 7), slice(7, 30), slice(30, 40)), strict=True):
            part.update_state(y[rows], p[rows])
    else:
        whole, parts = metrics.get(name), [metrics.get(name) for _ in range(4)]
        whole.update_state(y, p, weight)
        for part, rows in zip(parts, (slice(0, 7), slice(7, 30), slice(30, 40)), strict=False):
            part.update_state(y[rows], p[rows], weight[rows])
    merged = metrics.get(name)
    merged.check_merging()
    merged.merge_state([part.get_state() for part in parts])
    np.testing.assert_allclose(merged.result(), whole.result(), rtol=1e-12)


def test_a_metric_that_cannot_be_merged_is_refused_before_training():
    class Last(metrics.Metric):
        def reset_state(self):
            self.value = 0.0

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.value = float(y_pred[-1, 0])

        def result(self):
            return self.value

    model = classifier()
    model.compile(
        "sgd",
        "sparse_categorical_crossentropy",
        metrics=[Last()],
        distribution=DataParallel(deterministic=True),
    )
    with pytest.raises(
        ValueError,
        match=r"last: its state on several ranks cannot be merged; name the attributes that are sums over samples in "
        r"Last\.state_names, or write merge_state",
    ):
        model.fit(*blobs(), verbose=0)


def test_statistics_of_each_batch_are_refused():
    for options in ({"ghost_size": 4}, {"renorm": nk.RenormSchedule()}):
        model = Sequential([Input((6,)), BatchNormalization(**options), Dense(3, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", distribution=DataParallel(deterministic=True))
        with pytest.raises(
            ValueError, match="its ghost_size or renorm needs the statistics of each batch; compile"
        ):
            model.fit(*blobs(), verbose=0)


def test_arguments_of_data_parallel():
    with pytest.raises(
        ValueError, match=r"chunks is for deterministic=True; without it each rank has one part"
    ):
        DataParallel(chunks=3)
    with pytest.raises(ValueError, match=r"DataParallel: chunks must be a positive integer, got 0"):
        DataParallel(deterministic=True, chunks=0)
    assert DataParallel().chunks is None  # a process alone has nothing to share


def test_one_process_without_determinism_has_the_bits_of_none():
    x, y = blobs()
    models = [classifier(), classifier()]
    models[1].compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], distribution=DataParallel()
    )
    for model in models:
        model.fit(x, y, verbose=0)
    assert_same_weights(*(model.get_weights() for model in models))


def test_copies_share_the_communicator_and_pickles_do_not_exist():
    shared = DataParallel(deterministic=True)
    assert copy.deepcopy(shared) is shared
    with pytest.raises(TypeError, match="a communicator cannot be pickled; save the model with its `save`"):
        pickle.dumps(shared)
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy", distribution=shared)
    x, y = blobs()
    assert find_learning_rate(model, x, y, steps=40).losses.size > 1


@pytest.mark.parametrize("name", ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"])
def test_the_launcher_tells_the_number_of_ranks(monkeypatch, name):
    for other in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        monkeypatch.delenv(other, raising=False)
    assert launched_ranks() == 1
    for text, size in (("4", 4), ("", 1), ("many", 1), ("0", 1)):
        monkeypatch.setenv(name, text)
        assert launched_ranks() == size


def test_without_mpi4py_the_error_says_how_to_install_it(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    monkeypatch.setenv("PMI_SIZE", "2")
    text = "a job of 2 processes is joined by mpi4py, which is not installed: pip install 'normkit[mpi]'"
    with pytest.raises(ModuleNotFoundError) as caught:
        DataParallel()
    assert str(caught.value) == text
    assert main(["train"]) == 2
    assert capsys.readouterr() == ("", f"normkit: {text}\n")
    monkeypatch.delenv("PMI_SIZE")
    with pytest.raises(
        ModuleNotFoundError, match="several processes are joined by mpi4py, which is not installed"
    ):
        MPICommunicator(object())
    assert list(tmp_path.iterdir()) == []


def test_mpi4py_is_not_imported_by_a_process_alone():
    code = """
    import sys
    from trainer_support import blobs, classifier
    from normkit.cli import main
    from normkit.distributed import DataParallel
    model = classifier()
    model.compile("sgd", "sparse_categorical_crossentropy", distribution=DataParallel(deterministic=True))
    model.fit(*blobs(), verbose=0)
    main(["info"])
    print("mpi4py" in sys.modules)
    """
    code = f"import sys; sys.path.insert(0, '{SUPPORT}')\n" + "\n".join(
        line[4:] for line in code.splitlines()
    )
    assert output_of(code).splitlines()[-1] == "False"
