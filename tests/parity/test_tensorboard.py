"""What TensorBoard reads of the files that `normkit.callbacks.TensorBoard` writes."""

import pytest

from normkit.callbacks import TensorBoard
from trainer_support import blobs, classifier

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("package", ["tensorboard", "tensorboardX"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard(tmp_path, monkeypatch, package):
    pytest.importorskip(package, reason=f"needs {package}")
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs tensorboard (the 'parity' dependency group)",
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True if name == package else None)
    x, y = blobs(40)
    model = classifier()
    board = TensorBoard(tmp_path, histogram_freq=1, update_freq=2, write_steps_per_second=True)
    history = model.fit(x, y, batch_size=8, epochs=2, validation_data=(x, y), verbose=0, callbacks=[board])

    def read(part):
        events = reader.EventAccumulator(str(tmp_path / part))
        events.Reload()

        def series(tag):
            if tag in events.Tags()["scalars"]:
                return [(event.step, event.value) for event in events.Scalars(tag)]
            return [(event.step, float(event.tensor_proto.float_val[0])) for event in events.Tensors(tag)]

        tags = events.Tags()
        return {
            tag: series(tag) for tag in [*tags["scalars"], *tags["tensors"]] if "histogram" not in tag
        }, tags

    train, tags = read("train")
    validation, _ = read("validation")
    assert set(train) == {
        "epoch_loss", "epoch_accuracy", "epoch_learning_rate", "epoch_steps_per_second", "batch_loss", "batch_accuracy",
    }  # fmt: skip
    assert set(validation) == {
        "epoch_loss", "epoch_accuracy", "evaluation_loss_vs_iterations", "evaluation_accuracy_vs_iterations",
    }  # fmt: skip
    assert train["epoch_loss"] == [(i, pytest.approx(v)) for i, v in enumerate(history.history["loss"])]
    assert validation["epoch_loss"] == [
        (i, pytest.approx(v)) for i, v in enumerate(history.history["val_loss"])
    ]
    assert [step for step, _ in train["batch_loss"]] == [2, 4, 6, 8, 10]
    assert [step for step, _ in validation["evaluation_loss_vs_iterations"]] == [5, 10]
    histograms = [tag for tag in (*tags["histograms"], *tags["tensors"]) if tag.endswith("/histogram")]
    assert len(histograms) == len(model.weights)
