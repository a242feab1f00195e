"""Torch's names, shapes and conventions, and safetensors, without torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interchange_support import assert_same_weights, every_layer, samples, trained
from normkit import RunningStats, layers
from normkit.interchange import from_torch, load_safetensors, save_safetensors, to_torch
from normkit.models import Sequential, load_model, safetensors


def network(**norm: Any) -> list[Any]:
    return [
        layers.Dense(6, "relu"),
        layers.BatchNormalization(**norm),
        layers.Dropout(0.1),
        layers.LayerNormalization(),
        layers.Dense(3, use_bias=False),
    ]


@pytest.fixture(name="model")
def model_fixture() -> Sequential:
    return trained(network(), (4,))


def as_file(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    safetensors.dump(file, arrays, {})
    return file.getvalue()


def fresh(**norm: Any) -> Sequential:
    return Sequential([layers.Input((4,)), *network(**norm)], seed=5)


class Tensor:
    """What a torch tensor that needs a gradient does: NumPy cannot read it before it is detached and on the CPU."""

    def __init__(self, array: np.ndarray, place: int = 0) -> None:
        self._array, self._place = array, place

    def detach(self) -> Tensor:
        return Tensor(self._array, 1)

    def cpu(self) -> Tensor:
        return Tensor(self._array, self._place + 1)

    def numpy(self) -> np.ndarray:
        assert self._place == 2
        return self._array

    def __array__(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


def test_names_and_shapes_are_those_of_an_nn_sequential(model: Sequential) -> None:
    state = to_torch(model)
    assert {name: array.shape for name, array in state.items()} == {
        "0.weight": (6, 4),
        "0.bias": (6,),
        "2.weight": (6,),  # the relu of the Dense is part 1
        "2.bias": (6,),
        "2.running_mean": (6,),
        "2.running_var": (6,),
        "2.num_batches_tracked": (),
        "4.weight": (6,),
        "4.bias": (6,),
        "5.weight": (3, 6),
    }
    dense, norm, _, layer_norm, last = model.layers
    np.testing.assert_array_equal(state["0.weight"], dense.kernel.value.T)
    np.testing.assert_array_equal(state["5.weight"], last.kernel.value.T)
    np.testing.assert_array_equal(state["2.running_var"], norm.moving_variance.value)
    np.testing.assert_array_equal(state["4.bias"], layer_norm.beta.value)
    assert state["2.num_batches_tracked"] == norm.stats.count == 10
    assert state["2.num_batches_tracked"].dtype == np.int64
    assert all(array.flags.c_contiguous and array.flags.owndata for array in state.values())


@pytest.mark.parametrize("names", [None, ["fc1", "bn1", "ln", "out"]])
@pytest.mark.parametrize("wrap", [np.asarray, Tensor])
def test_there_and_back(model: Sequential, names: list[str] | None, wrap: Any) -> None:
    other = fresh()
    state = to_torch(model, names)
    assert (next(iter(state)) == "fc1.weight") == (names is not None)
    from_torch(other, {name: wrap(array) for name, array in state.items()}, names)
    assert_same_weights(other.get_weights(), model.get_weights())
    assert other.layers[1].stats.count == 10
    np.testing.assert_array_equal(other.predict(samples(model)), model.predict(samples(model)))
    state["fc1.bias" if names else "0.bias"][...] = 7.0  # is a copy
    assert not np.any(model.layers[0].bias.value == 7.0)


def test_float64_and_any_order(model: Sequential) -> None:
    model = trained(network(), (4,), "float64")
    state = to_torch(model)
    assert state["2.running_var"].dtype == np.float64
    other = Sequential([layers.Input((4,)), *network()], dtype="float64")
    from_torch(other, dict(reversed(state.items())))
    assert_same_weights(other.get_weights(), model.get_weights())


def test_momentum_and_eps_are_converted(model: Sequential, tmp_path: Path) -> None:
    other = fresh()
    from_torch(other, to_torch(model), eps=1e-5, momentum=0.1, unbiased=True)
    norm, layer_norm = other.layers[1], other.layers[3]
    assert (norm.epsilon, layer_norm.epsilon) == (1e-5, 1e-5)
    assert (norm.momentum, norm.stats.momentum, norm.stats.unbiased) == (0.9, 0.1, True)
    # One step, by torch's formula.
    x = np.random.default_rng(0).normal(3, 2, (5, 6)).astype(np.float32)
    expected = 0.9 * norm.stats.var.astype(np.float64) + 0.1 * x.var(axis=0, ddof=1, dtype=np.float64)
    norm.forward(x, training=True)
    np.testing.assert_allclose(norm.stats.var, expected, rtol=1e-6)
    # And the conventions are in the model's own file.
    other.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors").layers[1]
    assert (again.epsilon, again.stats.momentum, again.stats.unbiased) == (1e-5, 0.1, True)
    assert again.stats.count == 11
    np.testing.assert_array_equal(again.stats.var, norm.stats.var)


def test_cumulative_averages(model: Sequential) -> None:
    other = fresh()
    from_torch(other, to_torch(model), momentum=None)
    stats = other.layers[1].stats
    assert stats.momentum is None
    assert stats.next_momentum == 1 / 11


def test_conventions_stay_unless_they_are_given(model: Sequential) -> None:
    other = fresh(momentum=0.7, epsilon=0.5, stats=RunningStats(6, 0.3, unbiased=False))
    from_torch(other, to_torch(model))
    norm = other.layers[1]
    assert (norm.epsilon, norm.stats.momentum, norm.stats.unbiased) == (0.5, 0.3, False)


def test_variances_are_converted_where_the_rules_differ(model: Sequential) -> None:
    as_it_is = to_torch(model)["2.running_var"]
    unbiased = to_torch(model, values_per_channel=32)["2.running_var"]
    np.testing.assert_array_equal(unbiased, as_it_is * np.float32(32 / 31))
    other = fresh()
    from_torch(other, to_torch(model, values_per_channel=32), values_per_channel=32)
    np.testing.assert_allclose(other.layers[1].stats.var, as_it_is, rtol=1e-6)
    # A model by torch's rule has nothing to convert.
    same = fresh(stats=RunningStats.torch(6))
    from_torch(same, to_torch(model), values_per_channel=32)
    np.testing.assert_array_equal(same.layers[1].stats.var, as_it_is)
    np.testing.assert_array_equal(to_torch(same, values_per_channel=32)["2.running_var"], as_it_is)
    from_torch(other, to_torch(model), values_per_channel=32, unbiased=True)
    np.testing.assert_array_equal(other.layers[1].stats.var, as_it_is)
    with pytest.raises(ValueError, match="to_torch: values_per_channel must be 2 or more, got 1"):
        to_torch(model, values_per_channel=1)


@pytest.mark.parametrize("part", ["scale", "center"])
def test_a_norm_with_one_parameter_gets_the_other_for_torch(part: str) -> None:
    model = trained([layers.BatchNormalization(**{part: False}), layers.LayerNormalization()], (4,))
    state = to_torch(model)
    np.testing.assert_array_equal(
        state["0.weight" if part == "scale" else "0.bias"], [1.0 if part == "scale" else 0.0] * 4
    )
    from_torch(model, state)
    state["0.weight" if part == "scale" else "0.bias"][1] = 0.5
    with pytest.raises(ValueError, match=r"the state has '0\.[a-z]+', and the model has no such weight"):
        from_torch(model, state)
    none = Sequential([layers.BatchNormalization(scale=False, center=False, input_shape=(4,))])
    assert list(to_torch(none)) == ["0.running_mean", "0.running_var", "0.num_batches_tracked"]


def without(name: str) -> Any:
    return lambda state: state.pop(name)


def put(name: str, value: Any) -> Any:
    return lambda state: state.update({name: value})


FOUR = np.float32([1, 1, 1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            put("0.weight", np.zeros((4, 6), "f4")),
            r"'0.weight' must be float32 or float64 of shape \(6, 4\), for the kernel of Dense 'dense', got float32 of",
        ),
        (put("4.bias", np.zeros(6, "f2")), r"'4.bias' must be .*, got float16 of shape \(6,\)"),
        (put("4.bias", FOUR), r"for the beta of LayerNormalization 'layer_normalization', got .*\(4,\)"),
        (
            without("5.weight"),
            "the state has no '5.weight' for Dense 'dense_1'; it has 0.weight, 0.bias, .*; pass names= if",
        ),
        (put("6.weight", FOUR), "the state has '6.weight', and the model has no such weight"),
        (put("5.bias", np.zeros(3)), "the state has '5.bias', and the model has no such weight"),
        (put("2.running_var", -np.ones(6)), "running_var must be finite and not negative in every channel"),
        (put("2.running_mean", np.full(6, np.inf)), "running_mean must be finite in every channel"),
        (put("2.num_batches_tracked", -1), "num_batches_tracked must be whole and not negative"),
        (put("2.bias", [[1], [2, 3]]), "'2.bias' is no array"),
        (lambda state: state.clear(), "the state has no '0.weight' for Dense 'dense'; it has nothing"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(model: Sequential, change: Any, message: str) -> None:
    state = to_torch(model)
    change(state)
    other = fresh()
    before = other.get_weights()
    with pytest.raises(ValueError, match=message):
        from_torch(other, state, eps=1e-5, momentum=0.1, unbiased=True)
    assert_same_weights(other.get_weights(), before)
    norm = other.layers[1]
    assert (norm.epsilon, norm.momentum, norm.stats.unbiased, norm.stats.count) == (1e-3, 0.99, False, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["a", "b"]}, r"names must be 4 names, one for each layer with weights \(dense, batch_"),
        ({"names": "abcd"}, "names must be 4 names"),
        ({"eps": -1.0}, "eps must be finite and not negative, got -1.0"),
        ({"momentum": 1.5}, r"momentum must be in \[0, 1\] \(torch's, .*\), None or 'keep', got 1.5"),
        ({"values_per_channel": 0}, "values_per_channel must be 2 or more, got 0"),
    ],
)
def test_wrong_arguments(model: Sequential, arguments: Any, message: str) -> None:
    before = model.get_weights()
    with pytest.raises(ValueError, match=f"from_torch: {message}"):
        from_torch(model, to_torch(fresh()), **arguments)
    assert_same_weights(model.get_weights(), before)


def test_norms_over_other_axes_than_those_of_torch_are_refused() -> None:
    def of(layer: Any) -> Sequential:
        return Sequential([layers.Input((4, 6)), layer])

    with pytest.raises(ValueError, match=r"torch's batch norm is over axis 1, this one over axis -1 of 3"):
        to_torch(of(layers.BatchNormalization()))
    with pytest.raises(
        ValueError, match=r"torch's layer and RMS norm are over the last axes, this one over \(1,\) of 3"
    ):
        to_torch(of(layers.LayerNormalization(axis=1)))
    assert to_torch(of(layers.LayerNormalization(axis=(2, 1))))["0.weight"].shape == (4, 6)
    assert to_torch(of(layers.LayerNormalization(axis=2)))["0.weight"].shape == (6,)
    assert to_torch(of(layers.BatchNormalization(axis=-2)))["0.weight"].shape == (4,)
    with pytest.raises(ValueError, match="to_torch: model 'sequential' has no weights yet"):
        to_torch(Sequential([layers.Dense(2)]))


@pytest.mark.parametrize(
    ("style", "key"), [("torch", "2.running_var"), ("keras", "batch_normalization/moving_variance")]
)
def test_safetensors(tmp_path: Path, model: Sequential, style: Any, key: str) -> None:
    path = tmp_path / "model.safetensors"
    save_safetensors(model, path, style)
    np.testing.assert_array_equal(safetensors.parse(path.read_bytes())[1][key], model.layers[1].stats.var)
    other = fresh()
    load_safetensors(other, path, style)
    assert_same_weights(other.get_weights(), model.get_weights())
    assert other.layers[1].stats.count == (10 if style == "torch" else 0)


def test_safetensors_of_every_layer(tmp_path: Path) -> None:
    model = trained(every_layer(), (4, 6))
    save_safetensors(model, tmp_path / "model.safetensors", "keras")
    other = Sequential([layers.Input((4, 6)), *every_layer()], seed=5)
    load_safetensors(other, tmp_path / "model.safetensors", "keras")
    assert_same_weights(other.get_weights(), model.get_weights())


@pytest.mark.parametrize("style", ["torch", "keras"])
def test_safetensors_that_do_not_fit_change_nothing(tmp_path: Path, model: Sequential, style: Any) -> None:
    path = tmp_path / "model.safetensors"
    save_safetensors(model, path, style)
    good, content = safetensors.parse(path.read_bytes())[1], path.read_bytes()
    kernel = "0.weight" if style == "torch" else "dense/kernel"
    cases: list[tuple[bytes, str]] = [
        (content[:-1], "it is cut off: "),
        (content[:20], "it is no safetensors file, or cut off"),
        (b"", "it is no safetensors file, or cut off"),
        (b"\xff" * 100, "it is no safetensors file, or cut off"),
        (
            as_file({**good, "more": good[kernel]}),
            "has 'more', and the model has no such weight",
        ),
        (
            as_file({name: a for name, a in good.items() if name != kernel}),
            f"has no '{kernel}'",
        ),
        (as_file({**good, kernel: good[kernel].astype("f2")}), "must be float32 or float64"),
        (as_file({**good, kernel: np.zeros((2, 2), "f4")}), r"must .*have|be .* shape \(2, 2\)"),
    ]
    other = fresh()
    before = other.get_weights()
    for number, (damaged, message) in enumerate(cases):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message) as caught:
            load_safetensors(other, path, style)
        assert str(caught.value).startswith(f"{path}: cannot be read as safetensors: "), number
        assert_same_weights(other.get_weights(), before)
    with pytest.raises(FileNotFoundError):
        load_safetensors(other, tmp_path / "none", style)


def test_safetensors_arguments(tmp_path: Path, model: Sequential) -> None:
    path: Any = tmp_path / "model.safetensors"
    with pytest.raises(ValueError, match="save_safetensors: style must be 'torch' or 'keras', got 'jax'"):
        save_safetensors(model, path, "jax")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="load_safetensors: names are torch's; with style='keras' the layers"
    ):
        load_safetensors(model, path, "keras", names=["a"])
    assert not path.exists()
