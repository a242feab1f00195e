"""The estimators: scikit-learn's own checks, its tools, and its own perceptrons as an independent opinion."""

import copy
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from normkit.layers import BatchNormalization, Dropout, LayerNormalization
from normkit.sklearn import MLPClassifier, MLPRegressor
from subprocesses import output_of
from trainer_support import assert_same_weights

X, Y = load_iris(return_X_y=True)
NORMALIZATIONS = ("batch", "layer", None)
ESTIMATORS = [kind(normalization=n) for kind in (MLPClassifier, MLPRegressor) for n in NORMALIZATIONS]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(estimator)


@pytest.fixture(autouse=True)
def no_convergence_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def quick(kind=MLPClassifier, **options):
    return kind(**{"hidden_layer_sizes": (16,), "max_iter": 40, "random_state": 0, "learning_rate_init": 0.01} | options)  # fmt: skip


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_in_a_pipeline_and_cross_validated(normalization):
    model = make_pipeline(StandardScaler(), quick(normalization=normalization, max_iter=150))
    scores = cross_val_score(model, X, Y, cv=3)
    assert scores.min() > 0.9


def test_grid_search_in_processes():
    """Each process makes its own threads."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), quick()),
        {
            "mlpclassifier__normalization": list(NORMALIZATIONS),
            "mlpclassifier__hidden_layer_sizes": [4, (8, 4)],
        },
        cv=2,
        n_jobs=2,
    )
    assert search.fit(X, Y).best_score_ > 0.9
    again = GridSearchCV(search.estimator, search.param_grid, cv=2, n_jobs=1).fit(X, Y)
    assert again.cv_results_["mean_test_score"].tolist() == search.cv_results_["mean_test_score"].tolist()


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_network(normalization):
    model = quick(hidden_layer_sizes=[8, 4], normalization=normalization, dropout=0.1).fit(X, Y)
    kinds = [type(layer) for layer in model.model_.layers]
    assert kinds.count(BatchNormalization) == 2 * (normalization == "batch")
    assert kinds.count(LayerNormalization) == 2 * (normalization == "layer")
    assert kinds.count(Dropout) == 2
    assert [c.shape for c in model.coefs_] == [(4, 8), (8, 4), (4, 3)]
    assert [b.shape for b in model.intercepts_] == [(8,), (4,), (3,)]
    assert (model.n_layers_, model.n_outputs_, model.out_activation_) == (4, 3, "softmax")
    assert model.n_iter_ == len(model.loss_curve_) == 40
    assert model.loss_ == model.loss_curve_[-1]
    assert model.best_loss_ == min(model.loss_curve_)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_the_loss_and_steps_of_scikit_learns_classifier(classes, activation):
    """Full batches and plain gradient descent: the two differ by rounding."""
    x, y = make_classification(90, 6, n_informative=5, n_redundant=0, n_classes=classes, random_state=1)
    same = {
        "hidden_layer_sizes": (7, 5), "activation": activation, "solver": "sgd", "momentum": 0.0, "alpha": 0.3,
        "learning_rate_init": 0.2, "shuffle": False, "random_state": 0,
    }  # fmt: skip
    weight = np.random.default_rng(0).uniform(0.5, 2, 90)
    weight /= weight.mean()
    for given in (None, weight):
        ours, theirs = MLPClassifier(normalization=None, **same), TheirClassifier(**same)
        for model in (ours, theirs):
            model.partial_fit(x, y, classes=np.unique(y), sample_weight=given)
        for a, b in zip(
            [*theirs.coefs_, *theirs.intercepts_], [*ours.coefs_, *ours.intercepts_], strict=True
        ):
            a[...] = b
        for _ in range(20):
            for model in (ours, theirs):
                model.partial_fit(x, y, sample_weight=given)
            np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=1e-12)
        np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-10)
        np.testing.assert_allclose(ours.predict_log_proba(x), theirs.predict_log_proba(x), rtol=1e-9)


def test_the_steps_of_scikit_learns_regressor():
    """Its loss is half of ours, so that our rate is half of its; the penalty is not in what is halved."""
    x, y = make_regression(80, 5, random_state=0)
    y = y / y.std()
    same = {"hidden_layer_sizes": (9,), "solver": "sgd", "momentum": 0.0, "alpha": 0.0, "shuffle": False, "random_state": 0}  # fmt: skip
    ours = MLPRegressor(normalization=None, learning_rate_init=0.05, **same).partial_fit(x, y)
    theirs = TheirRegressor(learning_rate_init=0.1, **same).partial_fit(x, y)
    for a, b in zip([*theirs.coefs_, *theirs.intercepts_], [*ours.coefs_, *ours.intercepts_], strict=True):
        a[...] = b
    for _ in range(20):
        ours.partial_fit(x, y)
        theirs.partial_fit(x, y)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-10)
    np.testing.assert_allclose(ours.loss_, 2 * theirs.loss_, rtol=1e-10)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_same_bits_for_the_same_random_state(normalization):
    first, second, other = (
        quick(normalization=normalization, random_state=seed, batch_size=32, dropout=0.1).fit(X, Y)
        for seed in (3, 3, 4)
    )
    assert_same_weights(first.model_.get_weights(), second.model_.get_weights())
    assert not np.array_equal(first.coefs_[0], other.coefs_[0])


def test_partial_fit_is_an_epoch_of_fit():
    once = quick(max_iter=3, batch_size=20).fit(X, Y)
    by_hand = quick(batch_size=20)
    for _ in range(3):
        by_hand.partial_fit(X, Y, classes=[0, 1, 2])
    assert_same_weights(once.model_.get_weights(), by_hand.model_.get_weights())
    assert by_hand.loss_curve_ == once.loss_curve_
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        by_hand.partial_fit(X, Y, classes=[0, 1])
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        quick().partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"y has labels \[7\] that are none of the classes"):
        by_hand.partial_fit(X, np.full(150, 7))


def test_classes_that_come_later():
    model = quick().partial_fit(X[:50], Y[:50], classes=[0, 1, 2])
    for _ in range(150):
        model.partial_fit(X, Y)
    assert model.score(X, Y) > 0.9


def test_warm_start_goes_on():
    whole = quick(max_iter=6, batch_size=30).fit(X, Y)
    parts = quick(max_iter=3, batch_size=30, warm_start=True).fit(X, Y).fit(X, Y)
    assert_same_weights(whole.model_.get_weights(), parts.model_.get_weights())
    assert parts.n_iter_ == 6
    with pytest.raises(ValueError, match="none of the classes"):
        parts.fit(X, Y + 1)


def test_early_stopping_keeps_the_best_weights():
    model = quick(early_stopping=True, max_iter=200, n_iter_no_change=5).fit(X, Y)
    scores = model.validation_scores_
    assert len(scores) == model.n_iter_ < 200
    assert model.best_validation_score_ == max(scores)
    assert scores.index(max(scores)) < len(scores) - 5
    regressor = quick(MLPRegressor, early_stopping=True, max_iter=50).fit(X[:, :3], X[:, 3])
    assert regressor.best_validation_score_ == max(regressor.validation_scores_)


def test_it_ends_when_there_is_no_gain():
    model = quick(max_iter=10_000, tol=1e-2).fit(X, Y)
    assert model.n_iter_ < 1000
    with pytest.warns(ConvergenceWarning, match="3 epochs are over, and the fit still gains more than tol"):
        quick(max_iter=3).fit(X, Y)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_counts_are_repetitions(normalization):
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, 150)
    options = {
        "normalization": normalization,
        "batch_size": 1000,
        "shuffle": False,
        "max_iter": 10,
        "alpha": 0.1,
    }
    weighted = quick(**options).fit(X, Y, sample_weight=counts)
    repeated = quick(**options).fit(X.repeat(counts, axis=0), Y.repeat(counts))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-9)
    many = quick(**options).fit(X, Y, sample_weight=counts * 10**9)
    assert np.isfinite(many.predict_proba(X)).all()
    with pytest.raises(ValueError, match="zero"):
        quick().fit(X, Y, sample_weight=np.zeros(150))


def test_class_weights():
    keep = (Y == 0) | (np.arange(150) % 25 == 0)
    x, y = X[keep], Y[keep] > 0
    balanced = quick(class_weight="balanced", normalization=None, max_iter=15).fit(x, y)
    by_hand = quick(normalization=None, max_iter=15).fit(
        x, y, sample_weight=np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum()))
    )
    np.testing.assert_allclose(balanced.predict_proba(x), by_hand.predict_proba(x), rtol=1e-9)


def test_labels_of_every_kind():
    names = np.array(["setosa", "versicolor", "virginica"])[Y]
    model = quick().fit(X, names)
    assert model.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert (model.predict(X) == names).mean() > 0.9
    two = quick().fit(X, Y == 1)
    assert two.n_outputs_ == 1
    np.testing.assert_allclose(two.predict_proba(X).sum(axis=1), 1)
    assert two.predict(X).dtype == bool
    several = np.stack([Y == 0, Y > 0, X[:, 0] > 5.8], axis=1).astype(int)
    labels = quick().fit(X, several)
    assert labels.predict(X).shape == labels.predict_proba(X).shape == (150, 3)
    assert (labels.predict(X) == several).mean() > 0.9
    assert MultiOutputClassifier(quick()).fit(X, several).predict(X).shape == (150, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_dtypes(dtype):
    model = quick().fit(np.rint(X).astype(dtype), Y)
    expected = np.float32 if dtype == np.float32 else np.float64
    assert model.predict_proba(X.astype(dtype)).dtype == model.coefs_[0].dtype == expected


def test_regression_of_one_and_more_outputs():
    x, y = make_regression(300, 6, n_targets=2, random_state=0)
    y = y / y.std(axis=0)
    both = quick(MLPRegressor, max_iter=200).fit(x, y)
    assert both.predict(x).shape == (300, 2)
    assert both.score(x, y) > 0.95
    one = quick(MLPRegressor, max_iter=200).fit(x, y[:, 0])
    assert one.predict(x).shape == (300,)
    with pytest.raises(ValueError, match="y must have 2 outputs, as in the first call, got 1"):
        both.partial_fit(x, y[:, 0])


def test_copies_and_files():
    model = quick().fit(X, Y)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(
            again.partial_fit(X, Y).predict(X), copy.deepcopy(model).partial_fit(X, Y).predict(X)
        )
    with pytest.raises(NotFittedError):
        clone(model).predict(X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalization": "group"}, "MLPClassifier: normalization must be 'batch', 'layer' or None, got 'group'"),
        ({"hidden_layer_sizes": (0,)}, "each of hidden_layer_sizes must be a positive integer, got 0"),
        ({"batch_size": 0}, "batch_size, if not 'auto', must be a positive integer, got 0"),
        ({"max_iter": 0}, "max_iter must be a positive integer, got 0"),
        ({"alpha": -1}, "alpha must be 0 or more, got -1"),
        ({"activation": "x"}, "no activation 'x'"),
        ({"solver": "lbfgs"}, "no optimizer 'lbfgs'"),
        ({"learning_rate_init": -1.0}, "learning_rate"),
        ({"dropout": 2.0}, "rate"),
        ({"validation_fraction": 1.5}, r"validation_fraction must be in \(0, 1\), got 1.5"),
    ],
)  # fmt: skip
def test_errors_leave_what_was_fitted(options, message):
    model = quick().fit(X, Y)
    before = model.predict_proba(X)
    model.set_params(**options)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_verbose(capsys):
    quick(max_iter=2, verbose=True).fit(X, Y)
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        "Iteration 1",
        "Iteration 2",
    ]


def test_scikit_learns_callbacks():
    pytest.importorskip("sklearn.callback", reason="this scikit-learn has no callbacks")
    from sklearn.callback import ScoringMonitor

    class Stops:
        def __init__(self):
            self.calls = []

        def setup(self, estimator, context):
            self.calls.append("setup")

        def teardown(self, estimator, context):
            self.calls.append("teardown")

        def on_fit_task_begin(self, estimator, context, *, X=None, metadata=None):
            self.calls.append(f"begin {context.task_name} {metadata}")

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            if context.task_name == "epoch":
                self.calls.append(f"end {fitted_estimator.score(X, Y) > 0.9}")
                return fitted_estimator.score(X, Y) > 0.9
            return False

    stops = Stops()
    model = quick(max_iter=500).set_callbacks(stops).fit(X, Y)
    assert model.n_iter_ < 100
    assert stops.calls[:3] == ["setup", "begin fit {}", "begin epoch {}"]
    assert stops.calls[-2:] == ["end True", "teardown"]
    assert stops.calls.count("end False") == model.n_iter_ - 1
    monitor = ScoringMonitor(scoring="accuracy")
    quick(max_iter=5).set_callbacks(monitor).fit(X, Y)
    assert monitor.get_logs()


def test_the_core_does_not_import_scikit_learn():
    assert output_of("import normkit, sys; print('sklearn' in sys.modules)") == "False"
    code = "import sys; sys.modules['sklearn'] = None; import normkit.sklearn"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs scikit-learn, which is not installed: pip install 'normkit[sklearn]'" in done.stderr
