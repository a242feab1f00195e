"""Models that go to Keras, torch and onnxruntime and come from there: the same bits, the same predictions, and the same
moving statistics when training goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guides import run_interchange_example
from interchange_support import assert_same_weights, every_layer, samples, trained
from normkit import RunningStats, activations, interchange, layers, optimizers
from normkit.models import Sequential

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

MISSING = "the parity group is not installed: pip install --group parity"
TIGHT = {"float32": 2e-6, "float64": 1e-14}
# Keras on torch multiplies matrices and normalizes float64 with the precision of float32.
SINGLE = TIGHT["float32"]


@pytest.fixture(name="onnx", scope="module")
def onnx_fixture() -> Any:
    return pytest.importorskip("onnx", reason=MISSING)


@pytest.fixture(name="runtime", scope="module")
def runtime_fixture() -> Any:
    return pytest.importorskip("onnxruntime", reason=MISSING)


def close(
    mine: Any, other: Any, dtype: str = "float32", factor: float = 1.0, tolerance: float | None = None
) -> None:
    """Compare relative to the largest value."""
    mine, other = np.asarray(mine), np.asarray(other)
    assert mine.shape == other.shape
    assert mine.dtype == other.dtype == np.dtype(dtype)
    bound = factor * (tolerance or TIGHT[dtype]) * max(1.0, np.abs(other).max())
    assert np.abs(mine - other).max() <= bound


def batches(dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Return ten batches of 16 samples of 4 features and 3 targets."""
    rng = np.random.default_rng(4)
    return rng.normal(1.0, 2.0, (160, 4)).astype(dtype), rng.normal(size=(160, 3)).astype(dtype)


def go_on(model: Any, optimizer: Any, dtype: str) -> None:
    """Train by the Keras interface on the batches in their order."""
    model.compile(optimizer, "mse")
    x, y = batches(dtype)
    model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)


# Keras


@pytest.fixture(name="dtype", params=["float32", "float64"])
def dtype_fixture(request: pytest.FixtureRequest, keras: Any) -> Any:
    """A dtype that Keras has as its default."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


def stack(library: Any, **norm: Any) -> list[Any]:
    """Return layers by Keras's names, without dropout, so that training is the same everywhere."""
    return [
        library.Dense(6, activation="relu", kernel_regularizer="l2"),
        library.BatchNormalization(**norm),
        library.Dense(5, use_bias=False),
        library.LayerNormalization(),
        library.BatchNormalization(scale=False),
        library.LeakyReLU(0.1),
        library.Dense(3),
    ]


def test_a_model_from_keras_goes_on_as_in_keras(keras: Any, tmp_path: Path, dtype: str) -> None:
    theirs = keras.Sequential([keras.Input((4,)), *stack(keras.layers, momentum=0.8, epsilon=1e-4)])
    go_on(theirs, keras.optimizers.SGD(0.05), dtype)
    theirs.save(tmp_path / "model.keras")
    theirs.save_weights(tmp_path / "model.weights.h5")
    ours = interchange.load_keras(tmp_path / "model.keras")
    assert_same_weights(ours.get_weights(), theirs.get_weights())
    assert np.abs(ours.layers[1].stats.mean).min() > 0
    x = batches(dtype)[0]
    close(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), dtype, tolerance=SINGLE)

    other = Sequential([layers.Input((4,)), *stack(layers)], dtype=dtype)
    interchange.load_keras_weights(other, tmp_path / "model.weights.h5")
    assert_same_weights(other.get_weights(), theirs.get_weights())

    go_on(theirs, keras.optimizers.SGD(0.05), dtype)
    go_on(ours, optimizers.SGD(0.05), dtype)
    for mine, weight in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        close(mine, weight, dtype, factor=10, tolerance=SINGLE)


def test_a_model_of_ours_goes_on_in_keras(keras: Any, tmp_path: Path, dtype: str) -> None:
    ours = trained(stack(layers, momentum=0.7, epsilon=1e-2), (4,), dtype)
    interchange.save_keras(ours, tmp_path / "model.keras")
    interchange.save_keras_weights(ours, tmp_path / "model.weights.h5")
    theirs = keras.models.load_model(tmp_path / "model.keras")
    assert_same_weights(theirs.get_weights(), ours.get_weights())
    assert (theirs.layers[1].momentum, theirs.layers[1].epsilon) == (0.7, 1e-2)
    x = batches(dtype)[0]
    close(theirs.predict(x, verbose=0), ours.predict(x, verbose=0), dtype, tolerance=SINGLE)

    theirs.set_weights([np.zeros_like(w) for w in theirs.get_weights()])
    theirs.load_weights(tmp_path / "model.weights.h5")
    assert_same_weights(theirs.get_weights(), ours.get_weights())

    go_on(theirs, keras.optimizers.SGD(0.05), dtype)
    go_on(ours, optimizers.SGD(0.05), dtype)
    for mine, weight in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        close(mine, weight, dtype, factor=10, tolerance=SINGLE)


def test_keras_reads_every_layer_and_writes_it_back(keras: Any, tmp_path: Path, dtype: str) -> None:
    ours = trained(every_layer(), (4, 6), dtype)
    interchange.save_keras(ours, tmp_path / "model.keras")
    theirs = keras.models.load_model(tmp_path / "model.keras")
    x = samples(ours)
    close(theirs.predict(x, verbose=0), ours.predict(x, verbose=0), dtype, tolerance=SINGLE)
    theirs.save(tmp_path / "again.keras")
    again = interchange.load_keras(tmp_path / "again.keras")
    # Keras has instance norm as a group norm, and puts the number of its channels for -1.
    groups = {layers.InstanceNormalization: {"groups": 4}}
    expected = [layer.get_config() | groups.get(type(layer), {}) for layer in ours.layers]
    assert [layer.get_config() for layer in again.layers] == expected
    assert_same_weights(again.get_weights(), ours.get_weights())


def test_a_sequential_in_a_sequential(keras: Any, tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((5,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)])
    theirs = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5), inner, keras.layers.Dense(2), keras.layers.Dense(3)]
    )
    go_on(theirs, keras.optimizers.SGD(0.05), "float32")
    theirs.save(tmp_path / "model.keras")
    ours = interchange.load_keras(tmp_path / "model.keras")
    assert len(ours.layers) == 5
    close(ours.predict(batches()[0], verbose=0), theirs.predict(batches()[0], verbose=0))


def test_a_functional_model_that_is_a_row_of_layers(keras: Any, tmp_path: Path) -> None:
    inputs = inner = keras.Input((4,))
    for layer in stack(keras.layers, momentum=0.8)[:3]:
        inner = layer(inner)
    body = keras.Model(inputs, inner)
    start = result = keras.Input((4,))
    for layer in (body, *stack(keras.layers)[3:]):
        result = layer(result)
    theirs = keras.Model(start, result)
    go_on(theirs, keras.optimizers.SGD(0.05), "float32")
    theirs.save(tmp_path / "model.keras")
    ours = interchange.load_keras(tmp_path / "model.keras")
    assert_same_weights(ours.get_weights(), theirs.get_weights())
    close(ours.predict(batches()[0], verbose=0), theirs.predict(batches()[0], verbose=0))


def test_what_keras_has_and_we_lack_is_refused(keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    inputs = keras.Input((4,), name="x")
    shared = keras.layers.Dense(4, name="shared")
    first, second = shared(inputs), keras.layers.Dense(4, name="second")(inputs)
    for outputs, message in (
        (shared(first), "'shared' should be called once, with the output of x and nothing else"),
        (keras.layers.Add(name="sum")([first, second]), "'(shared|second|sum)' should be called once"),
        ([first, keras.layers.ReLU(name="r")(first)], "its outputs are shared, r"),
        (keras.layers.Dropout(0.5, name="d")(first, training=True), "'d' should be called once"),
    ):
        keras.Model(inputs, outputs).save(path)
        with pytest.raises(ValueError, match=f"the model is no row of layers: .*{message}"):
            interchange.load_keras(path)
    keras.Sequential([keras.Input((4, 6)), keras.layers.Conv1D(2, 3)]).save(path)
    with pytest.raises(
        ValueError, match=r"layer 'conv1d[_\d]*' is a keras.layers.Conv1D, which normkit lacks"
    ):
        interchange.load_keras(path)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, kernel_constraint="non_neg")]).save(path)
    with pytest.raises(ValueError, match="has kernel_constraint="):
        interchange.load_keras(path)


# torch


def torch_stack(torch: Any) -> Any:
    nn = torch.nn
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Sequential(nn.Linear(6, 5, bias=False), nn.LayerNorm(5), nn.Identity()),
        nn.BatchNorm1d(5, momentum=0.25, eps=1e-3),
        nn.LeakyReLU(0.1),
        nn.Linear(5, 3),
    )


def torch_train(torch: Any, module: Any, dtype: str) -> None:
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    x, y = map(torch.from_numpy, batches(dtype))
    for start in range(0, len(x), 16):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(module(x[start : start + 16]), y[start : start + 16]).backward()
        optimizer.step()


def assert_state(torch: Any, ours: Sequential, module: Any, dtype: str, factor: float) -> None:
    """Compare weights in their order with a module's, whatever its parts are called."""
    theirs = [tensor.detach().numpy() for tensor in module.state_dict().values()]
    for mine, other in zip(interchange.to_torch(ours).values(), theirs, strict=True):
        if mine.dtype.kind == "i":
            assert mine == other > 0
        elif factor:
            close(mine, other, dtype, factor)
        else:
            np.testing.assert_array_equal(mine, other, strict=True)


def torch_predict(torch: Any, module: Any, x: np.ndarray) -> np.ndarray:
    module.eval()
    with torch.no_grad():
        result: np.ndarray = module(torch.from_numpy(x)).numpy()
    return result


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_torch_module_goes_on_as_in_torch(torch: Any, dtype: str) -> None:
    module = torch_stack(torch).to(getattr(torch, dtype))
    torch_train(torch, module, dtype)
    ours = interchange.from_torch_module(module, (4,))
    assert_state(torch, ours, module, dtype, 0)
    first, second = (layer for layer in ours.layers if isinstance(layer, layers.BatchNormalization))
    assert (first.epsilon, first.stats.momentum, first.stats.unbiased) == (1e-5, 0.1, True)
    assert (second.epsilon, second.stats.momentum) == (1e-3, 0.25)
    x = batches(dtype)[0]
    close(ours.predict(x, verbose=0), torch_predict(torch, module, x), dtype)
    torch_train(torch, module, dtype)
    go_on(ours, optimizers.SGD(0.05), dtype)
    assert_state(torch, ours, module, dtype, 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_state_and_its_conventions_go_on_as_in_torch(torch: Any, dtype: str) -> None:
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 6),
        torch.nn.BatchNorm1d(6, momentum=0.2),
        torch.nn.ReLU(),
        torch.nn.LayerNorm(6),
        torch.nn.Linear(6, 3),
    ).to(getattr(torch, dtype))
    torch_train(torch, module, dtype)
    ours = Sequential(
        [
            layers.Input((4,)),
            layers.Dense(6),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.LayerNormalization(),
            layers.Dense(3),
        ],
        dtype=dtype,
    )
    interchange.from_torch(ours, module.state_dict(), eps=1e-5, momentum=0.2, unbiased=True)
    assert_state(torch, ours, module, dtype, 0)
    x = batches(dtype)[0]
    close(ours.predict(x, verbose=0), torch_predict(torch, module, x), dtype)
    torch_train(torch, module, dtype)
    go_on(ours, optimizers.SGD(0.05), dtype)
    assert_state(torch, ours, module, dtype, 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_a_model_of_ours_goes_on_in_torch(torch: Any, dtype: str, momentum: float | None) -> None:
    ours = trained(
        [
            layers.Dense(6, "tanh"),
            layers.BatchNormalization(epsilon=1e-2, stats=RunningStats.torch(6, momentum, dtype=dtype)),
            layers.LayerNormalization(center=False),
            layers.Dense(3),
        ],
        (4,),
        dtype,
    )
    module = interchange.to_torch_module(ours, torch)
    assert (module[2].momentum, module[2].eps) == (momentum, 1e-2)
    x = batches(dtype)[0]
    close(torch_predict(torch, module, x), ours.predict(x, verbose=0), dtype)
    # torch trains the bias that it got along with the weight of the layer norm.
    module[3].bias.requires_grad_(False)
    torch_train(torch, module, dtype)
    go_on(ours, optimizers.SGD(0.05), dtype)
    assert_state(torch, ours, module, dtype, 10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_norms_there_and_back(torch: Any, dtype: str) -> None:
    ours = trained(
        [
            layers.GroupNormalization(2, axis=1, epsilon=0.1),
            layers.RMSNormalization(epsilon=0.1),
            layers.InstanceNormalization(axis=1, epsilon=0.1),
            layers.RMSNormalization(axis=(1, 2)),
            layers.GroupNormalization(-1, axis=1, center=False, scale=False),
        ],
        (4, 6),
        dtype,
    )
    module = interchange.to_torch_module(ours, torch)
    x = samples(ours)
    close(torch_predict(torch, module, x), ours.predict(x, verbose=0), dtype)
    again = interchange.from_torch_module(module, (4, 6))
    np.testing.assert_array_equal(again.predict(x, verbose=0), ours.predict(x, verbose=0))
    instance = torch.nn.Sequential(
        torch.nn.InstanceNorm1d(4, affine=True), torch.nn.InstanceNorm1d(4), torch.nn.RMSNorm(6)
    )
    instance = instance.to(getattr(torch, dtype))
    made = interchange.from_torch_module(instance, (4, 6))
    close(made.predict(x, verbose=0), torch_predict(torch, instance, x), dtype)
    tracked = torch.nn.Sequential(torch.nn.InstanceNorm1d(4, track_running_stats=True))
    with pytest.raises(ValueError, match="track_running_stats=True, which normkit lacks"):
        interchange.from_torch_module(tracked, (4, 6))


def test_biased_variances_become_torchs(torch: Any) -> None:
    """After many batches of 16, what Keras's rule gives times 16/15 is what torch's rule gives."""
    ours = Sequential([layers.Input((4,)), layers.BatchNormalization(momentum=0.8)])
    module = torch.nn.BatchNorm1d(4, momentum=0.2)
    x = batches()[0]
    for _ in range(8):
        for start in range(0, 160, 16):
            ours(x[start : start + 16], training=True)
            module(torch.from_numpy(x[start : start + 16]))
    converted = interchange.to_torch(ours, values_per_channel=16)["0.running_var"]
    close(converted, module.running_var.numpy())
    assert np.abs(interchange.to_torch(ours)["0.running_var"] / converted - 1).min() > 0.05
    other = Sequential([layers.Input((4,)), layers.BatchNormalization(momentum=0.8)])
    state = {f"0.{name}": tensor for name, tensor in module.state_dict().items()}
    interchange.from_torch(other, state, values_per_channel=16)
    close(other.layers[0].stats.var, ours.layers[0].stats.var)


@pytest.mark.parametrize(
    "name",
    sorted(set(activations._BY_NAME) - {"exponential"}),  # which torch has no module for
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_of_torch(torch: Any, name: str, dtype: str) -> None:
    ours = trained([layers.Dense(5, name), layers.Activation(name), layers.Dropout(0.5)], (4,), dtype)
    module = interchange.to_torch_module(ours, torch)
    x = 10 * batches(dtype)[0]
    close(torch_predict(torch, module, x), ours.predict(x, verbose=0), dtype)
    again = interchange.from_torch_module(module, (4,))
    close(again.predict(x, verbose=0), ours.predict(x, verbose=0), dtype)
    assert_state(torch, again, module, dtype, 0)


def test_images_and_sequences_of_torch(torch: Any) -> None:
    nn = torch.nn
    for shape, norm in (
        ((3, 5), nn.BatchNorm1d),
        ((3, 4, 5), nn.BatchNorm2d),
        ((3, 2, 4, 5), nn.BatchNorm3d),
    ):
        module = nn.Sequential(norm(3), nn.LayerNorm(shape[-2:]), nn.Flatten(), nn.Softmax(dim=1))
        x = np.random.default_rng(0).normal(2, 3, (8, *shape)).astype(np.float32)
        module(torch.from_numpy(x))
        ours = interchange.from_torch_module(module, shape)
        close(ours.predict(x, verbose=0), torch_predict(torch, module, x))
        close(torch_predict(torch, interchange.to_torch_module(ours, torch), x), ours.predict(x, verbose=0))


def test_what_torch_has_and_we_lack_is_refused(torch: Any) -> None:
    nn = torch.nn
    for module, message in (
        (nn.Linear(2, 2), "expected an nn.Sequential, got a Linear"),
        (nn.Sequential(nn.PReLU()), "'0' is a PReLU, which normkit has no layer for"),
        (nn.Sequential(nn.GELU("tanh")), "GELU '0' has approximate='tanh', which normkit lacks"),
        (nn.Sequential(nn.Softplus(beta=2)), "Softplus '0' has beta=2"),
        (nn.Sequential(nn.Flatten(0)), "Flatten '0' has start_dim=0"),
        (nn.Sequential(nn.Identity(), nn.Softmax(0)), "Softmax '1' has dim=0"),
        (
            nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)),
            "BatchNorm1d '0' has track_running_stats=False",
        ),
    ):
        with pytest.raises(ValueError, match=f"from_torch_module: {message}"):
            interchange.from_torch_module(module, (2,))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.GaussianNoise(0.1), "GaussianNoise 'gaussian_noise': torch has no module for it"),
        (layers.Rescaling(2.0), "torch has no module for it"),
        (layers.Activation("exponential"), "torch has no module for the activation 'exponential'"),
        (layers.BatchNormalization(ghost_size=2), "torch has no debias, .*ghost_size"),
        (layers.Dense(2, dtype="float64"), "the layers must be of one dtype, got float"),
    ],
)
def test_what_torch_lacks_is_refused(torch: Any, layer: Any, message: str) -> None:
    model = Sequential([layers.Dense(3, input_shape=(4,)), layer])
    with pytest.raises(ValueError, match=message):
        interchange.to_torch_module(model, torch)


def test_safetensors_of_torch(torch: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    ours = trained([layers.Dense(6), layers.BatchNormalization(), layers.Dense(3)], (4,))
    interchange.save_safetensors(ours, path)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6, eps=1e-3), torch.nn.Linear(6, 3)
    )
    module.load_state_dict(load_file(path))
    x = batches()[0]
    close(torch_predict(torch, module, x), ours.predict(x, verbose=0))
    torch_train(torch, module, "float32")
    save_file(module.state_dict(), path)
    interchange.load_safetensors(ours, path)
    assert_state(torch, ours, module, "float32", 0)


# ONNX


def run(runtime: Any, path: Path, x: np.ndarray) -> np.ndarray:
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run(["output"], {"input": x})
    return np.asarray(result)


def operators(onnx: Any, path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("opset", [17, 18, 22])
def test_every_layer_runs_in_onnxruntime(
    onnx: Any, runtime: Any, tmp_path: Path, dtype: str, fold: bool, opset: int
) -> None:
    parts = every_layer()
    if dtype == "float64":  # for which onnxruntime has no Erf
        parts[-2] = layers.Activation("silu")
    model = trained(parts, (4, 6), dtype)
    path = tmp_path / "model.onnx"
    interchange.export_onnx(model, path, opset=opset, fold=fold)
    for count in (1, 9):
        x = samples(model, count)
        close(run(runtime, path, x), model.predict(x, verbose=0), dtype)
    made = onnx.load(path)
    assert made.opset_import[0].version == opset
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert made.producer_name == "normkit"
    used = operators(onnx, path)
    assert used.count("BatchNormalization") == (1 if fold else 2)
    assert used.count("Gemm") == (2 if fold else 1)
    assert used.count("LayerNormalization") == (2 if dtype == "float32" else 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(activations._BY_NAME))
def test_activations_in_onnxruntime(onnx: Any, runtime: Any, tmp_path: Path, name: str, dtype: str) -> None:
    parts = [layers.Input((4,)), layers.Dense(5, name), layers.Activation(name)]
    model = Sequential(parts, seed=1, dtype=dtype)
    path = tmp_path / "model.onnx"
    interchange.export_onnx(model, path)
    x = samples(model, 50) * (0.1 if name == "exponential" else 10)
    x[0] = 0
    if name == "gelu" and dtype == "float64":
        reference = pytest.importorskip("onnx.reference")
        (result,) = reference.ReferenceEvaluator(str(path)).run(None, {"input": x})
        close(result, model.predict(x, verbose=0), dtype, factor=1e8)  # its Erf is in float32
        return
    close(run(runtime, path, x), model.predict(x, verbose=0), dtype)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_norms_over_other_axes_in_onnxruntime(
    onnx: Any, runtime: Any, tmp_path: Path, axis: int, dtype: str
) -> None:
    others = tuple(a for a in (1, 2, 3) if a != axis)
    model = trained(
        [
            layers.BatchNormalization(axis=axis, epsilon=0.1),
            layers.LayerNormalization(axis=others, epsilon=0.1),
            layers.LayerNormalization(axis=axis, epsilon=0.1, center=False, scale=False),
            layers.RMSNormalization(axis=others, epsilon=0.1),
            layers.GroupNormalization(-1, axis=axis, epsilon=0.1, center=False),
            layers.InstanceNormalization(axis=axis, epsilon=0.1, scale=False),
            layers.GroupNormalization(1, axis=axis, epsilon=0.1),
        ],
        (2, 3, 4),
        dtype,
    )
    path = tmp_path / "model.onnx"
    interchange.export_onnx(model, path, batch=9)
    x = samples(model)
    close(run(runtime, path, x), model.predict(x, verbose=0), dtype)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 9


def test_folding_leaves_alone_what_it_cannot_fold(onnx: Any, runtime: Any, tmp_path: Path) -> None:
    model = trained(
        [
            layers.Dense(6, "relu"),
            layers.BatchNormalization(),  # behind an activation
            layers.Dense(6),
            layers.Dense(6),
            layers.BatchNormalization(),  # folded
            layers.BatchNormalization(),
            layers.Reshape((2, 3)),
            layers.Dense(4),
            layers.BatchNormalization(axis=1),  # over another axis
            layers.Dense(2),
        ],
        (4,),
    )
    path = tmp_path / "model.onnx"
    interchange.export_onnx(model, path, fold=True)
    x = samples(model)
    close(run(runtime, path, x), model.predict(x, verbose=0), factor=4)
    assert operators(onnx, path).count("BatchNormalization") == 3


def test_two_dtypes_in_one_model(onnx: Any, runtime: Any, tmp_path: Path) -> None:
    model = trained([layers.Dense(6), layers.BatchNormalization(dtype="float64"), layers.Dense(3)], (4,))
    path = tmp_path / "model.onnx"
    interchange.export_onnx(model, path)
    x = samples(model)
    close(run(runtime, path, x), model.predict(x, verbose=0))
    assert operators(onnx, path).count("Cast") == 2


def test_what_is_exported_without_a_node(onnx: Any, runtime: Any, tmp_path: Path) -> None:
    model = Sequential([layers.Dropout(0.5, input_shape=(4,))])
    interchange.export_onnx(model, tmp_path / "model.onnx")
    x = samples(model)
    np.testing.assert_array_equal(run(runtime, tmp_path / "model.onnx", x), x)


def test_what_cannot_be_exported_is_refused(onnx: Any, tmp_path: Path) -> None:
    class Mine(layers.Layer):
        pass

    class Cube(activations.ActivationFunction):
        name = "cube"

    path = tmp_path / "model.onnx"
    path.write_bytes(b"as it was")
    dense = Sequential([layers.Dense(2, input_shape=(3,))])
    for model, options, message in (
        (dense, {"opset": 16}, r"export_onnx: opset must be from 17 to \d+, got 16"),
        (dense, {"opset": 999}, r"export_onnx: opset must be from 17 to \d+, got 999"),
        (dense, {"batch": 0}, "export_onnx: batch, if not a name, must be a positive integer, got 0"),
        (dense, {"batch": ""}, "export_onnx: batch, if not a name, must be a positive integer, got ''"),
        (Sequential([layers.Dense(2)]), {}, "export_onnx: model 'sequential' has no weights yet"),
        (Sequential([Mine(input_shape=(3,))]), {}, "Mine 'mine': no ONNX for a layer of class .*Mine"),
        (
            Sequential([layers.Activation(Cube(), input_shape=(3,))]),
            {},
            "no ONNX for the activation 'cube' of another package",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            interchange.export_onnx(model, path, **options)
        assert path.read_bytes() == b"as it was"


def test_the_command_writes_onnx(onnx: Any, runtime: Any, tmp_path: Path) -> None:
    from normkit.cli import main

    model = trained([layers.Dense(3, "softmax")], (4,))
    model.save(tmp_path / "model.safetensors")
    assert main(["export", str(tmp_path / "model.safetensors"), str(tmp_path / "model.onnx")]) == 0
    x = samples(model)
    close(run(runtime, tmp_path / "model.onnx", x), model.predict(x, verbose=0))


def test_examples_of_the_guide(
    torch: Any, onnx: Any, runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for number in (0, 1):
        run_interchange_example(number, namespace)
    assert namespace["served"].shape == (256, 2)
