"""Metrics against their definitions, over several batches, with weights; states, names, and errors."""

import math

import numpy as np
import pytest

from normkit import metrics
from normkit.layers import Dense
from normkit.metrics import AUC, F1Score, Mean, MeanMetricWrapper, Metric, Precision, R2Score, Recall
from normkit.models import Sequential, load_model
from trainer_support import blobs, classifier

RNG = np.random.default_rng(0)
TRUE = RNG.integers(0, 2, 60)
SCORE = np.round(RNG.random(60), 2)
WEIGHT = RNG.random(60)


def over_batches(metric, y, p, weight=None):
    for start in range(0, len(y), 25):
        part = slice(start, start + 25)
        metric.update_state(y[part], p[part], None if weight is None else weight[part])
    return metric.result()


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.25, 1.0])
def test_counts(weight, threshold):
    at = 0.5 if threshold is None else threshold
    w = np.ones(60) if weight is None else weight
    called = at < SCORE
    expected = {
        "TruePositives": (w * (called & (TRUE == 1))).sum(),
        "FalsePositives": (w * (called & (TRUE == 0))).sum(),
        "TrueNegatives": (w * (~called & (TRUE == 0))).sum(),
        "FalseNegatives": (w * (~called & (TRUE == 1))).sum(),
    }
    for name, value in expected.items():
        metric = getattr(metrics, name)(threshold)
        assert over_batches(metric, TRUE, SCORE, weight) == pytest.approx(value, abs=1e-12)
        assert over_batches(metric, TRUE[:0], SCORE[:0]) == pytest.approx(value, abs=1e-12)
    tp, fp, _, fn = expected.values()
    assert over_batches(Precision(threshold), TRUE, SCORE, weight) == pytest.approx(
        tp / (tp + fp) if tp + fp else 0
    )
    assert over_batches(Recall(threshold), TRUE, SCORE, weight) == pytest.approx(tp / (tp + fn))


def test_several_thresholds_in_any_order():
    result = over_batches(Precision([0.8, 0.2, 0.5]), TRUE, SCORE)
    for value, threshold in zip(result, (0.8, 0.2, 0.5), strict=True):
        assert value == pytest.approx(over_batches(Precision(threshold), TRUE, SCORE))


def test_top_k_and_one_class():
    y = np.eye(3)[[0, 1, 2, 1]]
    p = np.array([[0.5, 0.3, 0.2], [0.5, 0.4, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    assert Recall(top_k=1)(y, p) == 0.25
    assert Recall(top_k=2)(y, p) == 0.75 + 0.25 * (p[3, 1] >= p[3, 0])
    assert Recall(class_id=1, thresholds=0.35)(y, p) == 0.5
    assert Precision(class_id=1, thresholds=0.35)(y, p) == 0.5
    assert metrics.TopKCategoricalAccuracy(2)(y[:3], p[:3]) == 1.0
    assert metrics.SparseTopKCategoricalAccuracy(1)([[0], [1], [2]], p[:3]) == pytest.approx(1 / 3)


def test_area_is_the_share_of_pairs_in_the_right_order():
    """With a threshold between any two scores the trapezoids are exact (Hanley & McNeil 1982)."""
    positive, negative = SCORE[TRUE == 1], SCORE[TRUE == 0]
    pairs = positive[:, None] - negative
    exact = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    between = np.arange(0.005, 1, 0.01)
    assert over_batches(AUC(thresholds=between), TRUE, SCORE) == pytest.approx(exact, abs=1e-12)
    assert over_batches(AUC(), TRUE, SCORE) == pytest.approx(exact, abs=0.01)
    low, high = (over_batches(AUC(20, summation_method=m), TRUE, SCORE) for m in ("minoring", "majoring"))
    assert low < exact < high
    logits = np.log(np.clip(SCORE, 1e-6, 1 - 1e-6) / (1 - np.clip(SCORE, 1e-6, 1 - 1e-6)))
    assert over_batches(AUC(thresholds=between, from_logits=True), TRUE, logits) == pytest.approx(
        exact, abs=1e-12
    )
    assert AUC(curve="PR")(np.array([0, 1]), np.array([0.1, 0.9])) == pytest.approx(1.0)


def test_scores_and_coefficients():
    y, p = np.eye(3)[RNG.integers(0, 3, 40)], RNG.dirichlet(np.ones(3), 40)
    called = np.eye(3)[p.argmax(axis=1)]
    tp, fp, fn = (y * called).sum(0), ((1 - y) * called).sum(0), (y * (1 - called)).sum(0)
    each = 2 * tp / (2 * tp + fp + fn)
    np.testing.assert_allclose(over_batches(F1Score(), y, p), each, rtol=1e-6)
    assert over_batches(F1Score("macro"), y, p) == pytest.approx(each.mean(), rel=1e-6)
    assert over_batches(F1Score("weighted"), y, p) == pytest.approx((each * y.sum(0)).sum() / 40, rel=1e-6)
    assert over_batches(F1Score("micro"), y, p) == pytest.approx((y * called).sum() / 40, rel=1e-6)
    t, q = RNG.normal(size=(40, 2)), RNG.normal(size=(40, 2))
    r2 = 1 - ((t - q) ** 2).sum(0) / ((t - t.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(over_batches(R2Score(None), t, q), r2)
    assert over_batches(R2Score(), t, q) == pytest.approx(r2.mean())
    assert over_batches(metrics.RootMeanSquaredError(), t, q) == pytest.approx(
        math.sqrt(((t - q) ** 2).mean())
    )
    assert over_batches(metrics.CosineSimilarity(), t, 3 * t) == pytest.approx(1.0)


def test_mean():
    mean = Mean("rate")
    mean.update_state([1.0, 3.0])
    mean.update_state(5.0, 2.0)
    assert mean.result() == 3.5
    assert mean([1.0], sample_weight=[0.0]) == 3.5
    mean.reset_state()
    assert mean.result() == 0.0


@pytest.mark.parametrize("name", metrics.registry.names)
def test_a_state_goes_on_in_another_object(name):
    """For every metric: counting, stopping in the middle, and the name in the logs."""
    sparse = name.startswith("sparse")
    y = RNG.integers(0, 3, 20)
    p = RNG.dirichlet(np.ones(3), 20)
    y = y if sparse else np.eye(3)[y]
    whole, first = metrics.get(name), metrics.get(name)
    assert whole.name == name
    whole.update_state(y[:10], p[:10])
    first.update_state(y[:10], p[:10])
    second = metrics.get(metrics.registry.serialize(first))
    second.set_state(first.get_state())
    for metric in (whole, second):
        metric.update_state(y[10:], p[10:])
    np.testing.assert_array_equal(whole.result(), second.result())
    assert whole.direction in ("up", "down", None)
    before = first.get_state()
    first.check(y[:1], p[:1])
    for key, value in first.get_state().items():
        np.testing.assert_array_equal(value, before[key])


def test_a_function_as_a_metric(tmp_path):
    def closeness(y_true, y_pred):
        assert y_true.shape == y_pred.shape
        return 1 / (1 + np.abs(y_true - y_pred))

    x, y = blobs(40, classes=2)
    model = Sequential([Dense(1, input_shape=(6,))], seed=0)
    model.compile(
        "sgd", "mse", metrics=[closeness, "mae"], weighted_metrics=MeanMetricWrapper(closeness, "near")
    )
    logs = model.evaluate(x, y, batch_size=7, return_dict=True, sample_weight=np.arange(40.0))
    p = model.predict(x)[:, 0]
    assert list(logs) == ["loss", "closeness", "mae", "near"]
    assert model.metrics_names == list(logs)
    assert logs["closeness"] == pytest.approx((1 / (1 + np.abs(y - p))).mean(), rel=1e-5)
    assert logs["near"] == pytest.approx(np.average(1 / (1 + np.abs(y - p)), weights=np.arange(40)), rel=1e-5)
    with pytest.raises(ValueError, match=r"cannot save metric of class .*MeanMetricWrapper; can: "):
        model.save(tmp_path / "m.safetensors")


def closest(y_true, y_pred):
    return np.zeros(3)


def test_a_metric_of_ones_own():
    class Largest(Metric):
        direction = "down"
        state_names = ("largest",)

        def reset_state(self):
            self.largest = 0.0

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.largest = max(self.largest, float(np.abs(y_pred).max()))

        def result(self):
            return self.largest

    x, y = blobs(40)
    model = classifier(metrics=[Largest("top"), "accuracy"])
    history = model.fit(x, y, epochs=2, verbose=0)
    assert list(history.history) == ["loss", "top", "accuracy"]
    assert [metric.name for metric in model.metrics] == ["top", "accuracy"]
    model.reset_metrics()
    assert model.get_metrics_result() == {"loss": 0.0, "top": 0.0, "accuracy": 0.0}


def test_metrics_with_arguments_come_back_from_a_file(tmp_path):
    model = classifier(metrics=[])
    model.compile("sgd", "categorical_crossentropy", metrics=[
        Precision(thresholds=[0.1, 0.5], name="p"), Recall(top_k=1), AUC(50, "PR", thresholds=[0.2, 0.4]), F1Score("macro"),
    ])  # fmt: skip
    x, y = blobs(40)
    model.save(tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    first, second = (m.evaluate(x, np.eye(3)[y], return_dict=True) for m in (model, again))
    assert list(first) == list(second) == ["loss", "p", "recall", "auc", "f1_score"]
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Precision(1.5), r"Precision: thresholds must be in \[0, 1\], got 1.5"),
        (lambda: Recall(top_k=0), "Recall: top_k must be a positive integer, got 0"),
        (lambda: AUC(curve="ROCK"), r"AUC: curve must be one of \('ROC', 'PR'\), got 'ROCK'"),
        (lambda: AUC(summation_method="left"), "AUC: summation_method must be one of"),
        (lambda: AUC(1), "AUC: num_thresholds must be at least 2 and at most 1000000, got 1"),
        (lambda: AUC(10**9), "at least 2 and at most 1000000, got 1000000000"),
        (lambda: F1Score("mean"), "F1Score: average must be one of"),
        (lambda: metrics.FBetaScore(beta=0), "FBetaScore: beta must be above 0, got 0"),
        (lambda: F1Score(threshold=2), r"F1Score: threshold must be in \(0, 1\], got 2"),
        (lambda: F1Score()(np.ones(3), np.ones(3)), r"predictions must have shape \(batch, outputs\), got \(3,\)"),
        (lambda: R2Score("sum"), "R2Score: class_aggregation must be one of"),
        (lambda: metrics.TopKCategoricalAccuracy(k=0), "TopKCategoricalAccuracy: k must be a positive integer"),
        (lambda: metrics.get(closest)(np.ones(4), np.ones(4)), "closest: the function must return one value per sample, 4"),
        (lambda: Precision()(np.ones((4, 2)), np.ones(4)), "precision: targets and predictions do not match"),
    ],
)  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
