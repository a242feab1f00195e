"""Sequential: a whole network's gradient, building, weights, prediction, and errors of use."""

import numpy as np
import pytest

from gradients import assert_close, numeric_gradient
from normkit.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Input,
    LayerNormalization,
    Softmax,
)
from normkit.losses import CategoricalCrossentropy, SparseCategoricalCrossentropy
from normkit.metrics import BinaryAccuracy
from normkit.models import Sequential, load_model
from normkit.optimizers import SGD
from trainer_support import assert_same_weights, blobs, classifier


@pytest.mark.parametrize(
    ("layers", "loss", "targets"),
    [
        ([Dense(5), BatchNormalization(), Activation("relu"), Dense(3, "softmax")], "sparse_categorical_crossentropy", "labels"),
        ([Dense(5, "gelu"), LayerNormalization(), Dense(3), Activation("softmax")], "categorical_crossentropy", "rows"),
        ([Dense(5, "tanh"), BatchNormalization(), Dense(3, "sigmoid")], "binary_crossentropy", "rows"),
        ([Dense(5, "sigmoid"), LayerNormalization(), Dense(3, "tanh")], "mse", "rows"),
        ([Dense(5, "relu"), Dense(3, "softmax"), Dense(3)], CategoricalCrossentropy(from_logits=True), "rows"),
        ([Dense(4), BatchNormalization(trainable=False), Dense(3, "softmax"), Dense(3, "softmax")], "categorical_crossentropy", "rows"),
    ],
)  # fmt: skip
def test_gradient_of_a_whole_network(layers, loss, targets):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 4))
    y = rng.integers(0, 3, 7)
    y = np.eye(3)[y] if targets == "rows" else y
    model = Sequential([Input((4,)), *layers], seed=0, dtype="float64")
    model.compile(SGD(0.0), loss)
    model.train_on_batch(x, y)
    computed = [w.grad.copy() for w in model.trainable_weights]
    for weight, gradient in zip(model.trainable_weights, computed, strict=True):
        expected = numeric_gradient(lambda: model.train_on_batch(x, y), weight.value, step=1e-5)
        assert_close(gradient, expected, 1e-8)


def test_the_example_of_the_tutorials():
    x, y = blobs(400, features=784, classes=10)
    xv, yv = blobs(100, features=784, classes=10)
    model = Sequential([Dense(64, input_shape=(784,)), BatchNormalization(), Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=32, epochs=5, validation_data=(xv, yv))
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert all(len(values) == 5 for values in history.history.values())
    assert history.epoch == [0, 1, 2, 3, 4]
    assert history.history["accuracy"][-1] > 0.99
    assert history is model.history


def test_same_seed_same_bits_and_another_seed_another_result():
    x, y = blobs()

    def weights(seed):
        model = Sequential(
            [Dense(8, "relu"), Dropout(0.3), BatchNormalization(), Dense(3, "softmax")], seed=seed
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=2, verbose=0)
        return model.get_weights()

    assert_same_weights(weights(5), weights(5))
    assert not np.array_equal(weights(5)[0], weights(6)[0])


def test_lazily_built_is_the_same_as_built_at_once():
    x, y = blobs()
    layers = lambda: [BatchNormalization(), Dense(3, "softmax")]
    lazy, eager = (
        Sequential([Dense(8), *layers()], seed=1),
        Sequential([Dense(8, input_shape=(6,)), *layers()], seed=1),
    )
    given = Sequential([Input((6,)), Dense(8), *layers()], seed=1)
    assert not lazy.built
    assert eager.built
    for model in (lazy, eager, given):
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(x, y, verbose=0)
    assert_same_weights(lazy.get_weights(), eager.get_weights())
    assert_same_weights(lazy.get_weights(), given.get_weights())
    assert len(given.layers) == 3


def test_evaluate_predict_and_batch_methods_agree():
    x, y = blobs()
    model = classifier()
    model.fit(x, y, verbose=0)
    loss, accuracy = model.evaluate(x, y, batch_size=7, verbose=0)
    logs = model.evaluate(x, y, batch_size=300, return_dict=True)
    assert logs == pytest.approx({"loss": loss, "accuracy": accuracy}, rel=1e-6)
    assert model.test_on_batch(x, y) == pytest.approx([loss, accuracy], rel=1e-6)
    p = model.predict(x, batch_size=13)
    assert p.shape == (300, 3)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p, model.predict_on_batch(x), rtol=1e-4, atol=1e-6)
    assert loss == pytest.approx(-np.log(p[np.arange(300), y]).mean(), rel=1e-4)
    assert isinstance(classifier(metrics=()).evaluate(x, y), float)


def test_weights_are_keras_ordered_and_copies():
    model = classifier()
    names = [w.name for w in model.weights]
    assert names == ["kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance", "kernel", "bias"]
    weights = model.get_weights()
    weights[0][...] = 7
    assert not (model.get_weights()[0] == 7).any()
    model.set_weights(weights)
    assert (model.get_weights()[0] == 7).all()
    assert model.count_params() == 6 * 8 + 8 + 4 * 8 + 8 * 3 + 3


def test_names_are_numbered_within_a_model():
    model = Sequential([Dense(2), Dense(2), Dense(2, name="out"), BatchNormalization(), Dense(2)])
    assert [layer.name for layer in model.layers] == [
        "dense",
        "dense_1",
        "out",
        "batch_normalization",
        "dense_2",
    ]
    assert model.get_layer("out") is model.layers[2]
    assert model.get_layer(index=0) is model.layers[0]


METRIC = BinaryAccuracy()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Sequential([Dense(2)]).fit(np.ones((2, 2)), [0, 1]), ValueError, r"call compile\(optimizer, loss\) before fit"),
        (lambda: Sequential([Dense(2)]).optimizer, ValueError, r"call compile\(optimizer, loss\) before optimizer"),
        (lambda: Sequential([Dense(2)]).compile("adam"), ValueError, "loss is missing"),
        (lambda: Sequential([Dense(2)]).compile("adm", "mse"), ValueError, "no optimizer 'adm'; did you mean 'adam'\\? There are: sgd"),
        (lambda: Sequential([Dense(2)]).compile("sgd", "mse", metrics=["accurate"]), ValueError, "no metric 'accurate'"),
        (lambda: Sequential([Dense(2)]).compile("sgd", "mse", metrics=[BinaryAccuracy("loss")]), ValueError, "a metric cannot have the name 'loss'"),
        (lambda: Sequential([Dense(2)]).compile("sgd", "mse", metrics=[METRIC, METRIC]), ValueError, "the same metric instance is given twice"),
        (lambda: Sequential().predict(np.ones((2, 2))), ValueError, "has no layers"),
        (lambda: Sequential([Dense(2)]).set_weights([]), ValueError, "has no weights yet"),
        (lambda: Sequential([Dense(2), Input((3,))]), ValueError, "Input must come first"),
        (lambda: Sequential([Dense(2, name="a"), Dense(2, name="a")]), ValueError, "two layers have the name 'a'"),
        (lambda: Sequential(Sequential([Dense(2)]).layers), ValueError, "already part of a model"),
        (lambda: Sequential([3]), TypeError, "expected a layer, got 3 of type int"),
        (lambda: Sequential([Dense(2)]).get_layer("x"), ValueError, "no layer 'x'; there are: dense"),
        (lambda: Sequential([Input((2,)), Dense(2)]).build((None, 3)), ValueError, "already built"),
        (lambda: Sequential(dtype="int32"), TypeError, "dtype must be float32 or float64, got int32"),
    ],
)  # fmt: skip
def test_errors_of_use(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_summary(capsys):
    model = classifier()
    model.summary()
    text = capsys.readouterr().out
    assert 'Model: "sequential"' in text
    assert "batch_normalization (BatchNormalization)  (None, 8)" in text
    assert "Total params: 115 (460.00 B)" in text
    assert "Trainable params: 99 (396.00 B)" in text
    assert "Non-trainable params: 16 (64.00 B)" in text
    lines = []
    model.fit(*blobs(40), verbose=0)
    model.summary(print_fn=lines.append)
    assert "Optimizer params: 198 (792.00 B)" in lines
    unbuilt = []
    Sequential([Dense(3)]).summary(print_fn=unbuilt.append)
    assert any("?" in line and "unbuilt" in line for line in unbuilt)


def test_a_failed_add_leaves_model_and_layer_as_before():
    model = Sequential([Input((6,)), Dense(4)])
    layer = BatchNormalization(axis=3)
    state = model.rng.bit_generator.state
    with pytest.raises(ValueError, match="axis 3 does not exist"):
        model.add(layer)
    assert len(model.layers) == 1
    assert model.output_shape == (None, 4)
    assert not layer.built
    layer.axis = -1
    empty = Sequential(dtype="float64")
    empty.add(layer)
    assert layer.dtype == np.float64
    model.add(Dense(2))
    assert model.rng.bit_generator.state != state
    first = BatchNormalization(axis=3, input_shape=(4,))
    failed = Sequential()
    with pytest.raises(ValueError, match="axis 3 does not exist"):
        failed.add(first)
    assert not failed.built
    failed.add(Dense(2, input_shape=(5,)))
    assert failed.output_shape == (None, 2)


def test_a_failed_constructor_leaves_the_layers_free():
    layers = [Dense(2, name="a"), Dense(2, name="a")]
    with pytest.raises(ValueError, match="two layers have the name 'a'"):
        Sequential(layers)
    assert Sequential(layers[:1]).layers == layers[:1]


def test_a_failed_first_batch_leaves_no_layer_built():
    model, other = (Sequential([Dense(4), BatchNormalization(axis=a), Dense(2)], seed=0) for a in (2, -1))
    state = model.rng.bit_generator.state
    with pytest.raises(ValueError, match="axis 2 does not exist"):
        model(np.ones((3, 5)))
    assert not any(layer.built or layer.weights for layer in model.layers)
    assert model.rng.bit_generator.state == state
    model.layers[1].axis = -1
    for m in (model, other):
        m(np.ones((3, 6)))
    assert_same_weights(model.get_weights(), other.get_weights())


@pytest.mark.parametrize("layer", [Activation("linear"), Dropout(0.5)])
def test_predictions_are_an_array_of_their_own(layer):
    x = np.ones((2, 3), np.float32)
    model = Sequential([layer])
    y = model.predict_on_batch(x)
    y[...] = 7
    assert (x == 1).all()
    assert (model.predict_on_batch([[1.0, 2.0, 3.0]]) == [[1.0, 2.0, 3.0]]).all()


def test_pop_takes_the_last_layer_off():
    x, y = blobs()
    model = classifier()
    model.fit(x, y, verbose=0)
    before = model.get_weights()
    popped = model.pop()
    assert popped.name == "dense_1"
    assert model.output_shape == (None, 8)
    assert model.predict(x).shape == (300, 8)
    model.add(Dense(3, "softmax"))
    with pytest.raises(ValueError, match=r"call compile\(\) again"):
        model.fit(x, y, verbose=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    other = Sequential([Input((8,)), popped])
    assert_same_weights(other.get_weights(), before[6:])
    with pytest.raises(ValueError, match="has no layers to take off"):
        Sequential().pop()


def test_freezing_a_whole_model():
    model = classifier()
    model.trainable = False
    assert not model.trainable
    assert model.trainable_weights == []
    model.trainable = True
    assert len(model.trainable_weights) == 6


def test_arguments_of_keras_that_change_nothing():
    model = classifier()
    model.compile(
        "adam", "sparse_categorical_crossentropy", run_eagerly=True, jit_compile=False, steps_per_execution=4
    )
    model.fit(*blobs(40), verbose=0)
    with pytest.raises(TypeError, match="loss_weights"):
        model.compile("adam", "mse", loss_weights=[1.0])


def test_normkit_by_the_names_of_keras():
    import normkit as keras

    model = keras.Sequential([keras.Input(shape=(6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.Adam(), keras.losses.CategoricalCrossentropy())
    x, y = blobs(40)
    model.fit(x, keras.utils.to_categorical(y), verbose=0, callbacks=[keras.callbacks.History()])
    with pytest.raises(AttributeError, match="module 'normkit' has no attribute 'layer'"):
        keras.layer  # noqa: B018 - looking is what fails


def test_one_hot_rows():
    from normkit.utils import to_categorical

    np.testing.assert_array_equal(to_categorical([[0], [2]]), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(to_categorical([1], 4), [[0, 1, 0, 0]])
    assert to_categorical(np.zeros((3, 2), int)).shape == (3, 2, 1)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\), got 2"):
        to_categorical([0, 2], 2)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 1\), got -1"):
        to_categorical([0, -1])
    with pytest.raises(ValueError, match="labels must be integers, and some are not"):
        to_categorical([0.5])


def test_a_model_in_a_model_shares_its_layers():
    x, y = blobs()
    logits = Sequential([Dense(8, "relu", input_shape=(6,)), BatchNormalization(), Dense(3)], seed=0)
    logits.compile("adam", SparseCategoricalCrossentropy(from_logits=True))
    logits.fit(x, y, epochs=5, verbose=0)
    probabilities = Sequential([logits, Softmax()])
    assert probabilities.output_shape == (None, 3)
    z = logits.predict(x)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities(x), p / p.sum(axis=1, keepdims=True), rtol=1e-5)
    probabilities.compile("sgd", "sparse_categorical_crossentropy")
    for model in (probabilities, logits, probabilities, logits):
        before = logits.get_weights()
        model.fit(x, y, verbose=0)
        assert_same_weights(logits.get_weights(), probabilities.get_weights())
        assert not np.array_equal(before[0], logits.get_weights()[0])
    assert logits.optimizer.iterations == 7 * 10


def test_training_both_models_is_training_the_weights():
    """Taking turns with plain SGD, which has no state, is one model after the other on the same weights."""
    x, y = blobs(64)
    base = Sequential([Dense(8, "tanh", input_shape=(6,)), Dense(3)], seed=0)
    whole = Sequential([base, Softmax()])
    alone = Sequential([Dense(8, "tanh", input_shape=(6,)), Dense(3), Softmax()], seed=0)
    base.compile("sgd", SparseCategoricalCrossentropy(from_logits=True))
    for model in (whole, alone):
        model.compile("sgd", "sparse_categorical_crossentropy")
    for first, second in ((base, alone), (whole, alone), (base, alone)):
        for model in (first, second):
            model.fit(x, y, shuffle=False, verbose=0)
        for a, b in zip(base.get_weights(), alone.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_frozen_model_with_a_new_head(tmp_path):
    x, y = blobs()
    base = classifier()
    base.fit(x, y, verbose=0)
    base.pop()
    base.trainable = False
    model = Sequential([Input((6,)), Dense(6), base, Dense(5, name="head"), Dense(3, "softmax")])
    names = ["dense", "dense_1", "batch_normalization", "head", "dense_2"]
    assert [layer.name for layer in model.layers] == names
    model.compile("adam", "sparse_categorical_crossentropy")
    before = base.get_weights()
    model.fit(x, y, verbose=0)
    assert_same_weights(before, base.get_weights())
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(load_model(tmp_path / "m.safetensors").predict(x), model.predict(x))


def test_a_model_that_cannot_be_added_changes_nothing():
    base, model = Sequential([Dense(3, input_shape=(4,))]), Sequential([Input((5,)), Dense(6)])
    with pytest.raises(ValueError, match="expected 4 features, got 6"):
        model.add(base)
    assert len(model.layers) == 1
    assert base.layers[0].name == "dense"
    for other in (Sequential(), model):
        with pytest.raises(ValueError, match="has no layers, or has been added before"):
            model.add(other)


def test_names_of_layers_of_two_models_differ():
    two = Sequential([Dense(3, input_shape=(3,)), Dense(3), Dense(3)])
    model = Sequential([Dense(3, input_shape=(3,)), two])
    assert len({layer.name for layer in model.layers}) == 4


def test_keras_s_other_ways_to_give_the_shape():
    first = Sequential([Dense(4, input_dim=3, kernel_initializer="uniform")], seed=0)
    second = Sequential(
        [Input((3,), name="digits", dtype="float32"), Dense(4, kernel_initializer="random_uniform")], seed=0
    )
    assert first.input_shape == second.input_shape == (None, 3)
    assert_same_weights(first.get_weights(), second.get_weights())
