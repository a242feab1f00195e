"""`MLP`: what the classifier and the regressor share: parameters, the network, and how it is fitted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from normkit import activations, optimizers
from normkit._checks import positive_integer
from normkit.callbacks import Callback, LambdaCallback
from normkit.layers import Activation, BatchNormalization, Dense, Dropout, Input, Layer, LayerNormalization
from normkit.models import Sequential
from normkit.regularizers import L2
from normkit.sklearn.progress import CallbackSupportMixin, Data, Progress, with_callbacks
from normkit.stats import RunningStats

__all__ = ["MLP"]

Array = NDArray[Any]

# Behind a layer of so many units, in a network of this dtype. Small data make few steps, of which the plain average of
# batch norm would still have most of its start in it.
NORMALIZATIONS: dict[str | None, Callable[[int, np.dtype[Any]], list[Layer]]] = {
    "batch": lambda units, dtype: [
        BatchNormalization(
            stats=RunningStats(units, STATISTICS_STEP, unbiased=False, debias=True, dtype=dtype)
        )
    ],
    "layer": lambda units, dtype: [LayerNormalization()],
    None: lambda units, dtype: [],
}
STATISTICS_STEP = 0.1
# scikit-learn's words for activations, in ours.
ACTIVATIONS = {"logistic": "sigmoid", "identity": "linear"}
AUTO_BATCH = 200
MOST_REPEATS = 20
LARGEST_SEED = 2**31 - 1


class MLP(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the estimators; see `MLPClassifier` for the parameters."""

    _loss = ""

    def __init__(
        self,
        hidden_layer_sizes: int | Iterable[int] = (100,),
        activation: str = "relu",
        *,
        normalization: str | None = "batch",
        dropout: float = 0.0,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.normalization = normalization
        self.dropout = dropout
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change

    @property
    def coefs_(self) -> list[Array]:
        """Kernels of the dense layers, shape (inputs, outputs) each."""
        return [layer.kernel.value for layer in self._dense_layers()]

    @property
    def intercepts_(self) -> list[Array]:
        """Biases of the dense layers."""
        return [layer.bias.value for layer in self._dense_layers()]

    @property
    def n_layers_(self) -> int:
        """Number of layers of units, the input and the output among them."""
        return len(self._dense_layers()) + 1

    def _dense_layers(self) -> list[Dense]:
        if not hasattr(self, "model_"):
            raise AttributeError(f"this {type(self).__name__} has no weights yet; call fit first")
        return [layer for layer in self.model_.layers if isinstance(layer, Dense)]

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit the network.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
            float32 is trained on in float32, all else in float64.
        y : array_like, shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array_like, shape (n_samples,), optional
            Factors of the losses of the samples, divided by their mean. Of batch norm, whose statistics a factor of the
            loss does not reach, whole numbers repeat the samples instead, as long as that makes at most 20 times as
            many.

        Returns
        -------
        MLPClassifier or MLPRegressor
            The estimator.

        Raises
        ------
        ValueError, TypeError
            If data or parameters do not fit. Then what was fitted before is still there.
        """
        goes_on = self.warm_start and hasattr(self, "model_")
        with self._unchanged_after_errors():
            training, rng = self._prepared(X, y, sample_weight, not goes_on)
            held_out = None
            if self.early_stopping:
                training, held_out = self._split(training, rng)
                self.validation_scores_: list[float] = []
            if not goes_on:
                self._start(training, rng)
        progress = Progress(self, held_out, X, y, sample_weight)
        self._train(training, self.max_iter, [progress])
        progress.finish()
        if not progress.stopped:
            warnings.warn(
                f"{type(self).__name__}: {self.max_iter} epochs are over, and the fit still gains more than tol="
                f"{self.tol}; a higher max_iter or learning_rate_init may help",
                ConvergenceWarning,
                stacklevel=3,
            )
        return self

    def _fit_an_epoch(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Self:
        """Train one epoch, of a new network at the first call."""
        first = not hasattr(self, "model_")
        with self._unchanged_after_errors():
            training, rng = self._prepared(X, y, sample_weight, first)
            if first:
                self._start(training, rng)
        self._train(training, 1, [])
        return self

    @contextmanager
    def _unchanged_after_errors(self) -> Iterator[None]:
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__ = before
            raise

    def _prepared(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, first: bool
    ) -> tuple[Data, np.random.RandomState]:
        """Check everything; return data as the network takes them, and where random numbers come from."""
        self._check_parameters()
        samples, given = validate_data(
            self, X, y, dtype=(np.float64, np.float32), multi_output=True, reset=first
        )
        targets = self._targets(given, samples.dtype, first)
        weights = self._weights(sample_weight, samples, given)
        if weights is not None and self.normalization == "batch" and _are_counts(weights):
            counts = weights.astype(np.intp)
            samples, targets, weights = samples.repeat(counts, axis=0), targets.repeat(counts, axis=0), None
        return (samples, targets, weights), check_random_state(self.random_state)

    def _start(self, training: Data, rng: np.random.RandomState) -> None:
        """Make a network."""
        self.model_ = self._network(training, int(rng.randint(LARGEST_SEED)))
        self.n_iter_ = 0
        self.loss_curve_: list[float] = []

    def _network(self, training: Data, seed: int) -> Sequential:
        samples, _, weights = training
        rows = self._batch_size(len(samples)) * (1.0 if weights is None else float(weights.mean()))
        penalty = L2(0.5 * self.alpha / rows) if self.alpha else None
        layers: list[Layer] = []
        normalization = NORMALIZATIONS[self.normalization]
        for units in self._hidden():
            layers += [Dense(units, kernel_regularizer=penalty), *normalization(units, samples.dtype)]
            layers.append(Activation(self._activation()))
            layers += [Dropout(self.dropout)] if self.dropout else []
        output = Dense(self.n_outputs_, self.out_activation_, kernel_regularizer=penalty)
        model = Sequential(
            [Input((samples.shape[1],)), *layers, output], name="mlp", seed=seed, dtype=samples.dtype
        )
        model.compile(self._optimizer(), self._loss)
        return model

    def _optimizer(self) -> optimizers.Optimizer:
        config: dict[str, Any] = {"learning_rate": self.learning_rate_init}
        if self.solver == "sgd":
            config |= {"momentum": self.momentum, "nesterov": self.nesterovs_momentum and self.momentum > 0}
        elif self.solver == "adam":
            config |= {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return optimizers.get({"class_name": self.solver, "config": config})

    def _train(self, training: Data, epochs: int, callbacks: list[Callback]) -> None:
        samples, targets, weights = training
        note = LambdaCallback(on_epoch_end=lambda epoch, logs: self._note(logs["loss"]))
        self.model_.fit(
            samples,
            targets,
            sample_weight=None if weights is None else weights / weights.mean(),
            batch_size=self._batch_size(len(samples)),
            epochs=epochs,
            shuffle=self.shuffle,
            verbose=0,
            callbacks=[note, *callbacks],
        )

    def _note(self, loss: float) -> None:
        self.n_iter_ += 1
        self.loss_ = loss
        self.loss_curve_.append(loss)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {loss:.8f}", flush=True)

    def _split(self, data: Data, rng: np.random.RandomState) -> tuple[Data, Data]:
        """Hold out a part of the data."""
        samples, targets, weights = data
        rows = np.arange(len(samples))
        parts = train_test_split(
            rows, test_size=self.validation_fraction, random_state=rng, stratify=self._strata(targets)
        )
        train, held = (
            (samples[part], targets[part], None if weights is None else weights[part]) for part in parts
        )
        return train, held

    def _outputs(self, X: ArrayLike) -> Array:
        """Return what the network gives for X, shape (n_samples, n_outputs)."""
        check_is_fitted(self, "model_")
        return self._predicted(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def _predicted(self, samples: Array) -> Array:
        return self.model_.predict(samples, batch_size=AUTO_BATCH, verbose=0)

    def _weights(self, given: ArrayLike | None, samples: Array, y: Array) -> Array | None:
        if given is None:
            return None
        weights: Array = _check_sample_weight(given, samples, dtype=samples.dtype, ensure_non_negative=True)
        if not weights.any():
            raise ValueError("sample_weight: all weights are zero, so there is nothing to learn from")
        return weights

    def _hidden(self) -> tuple[int, ...]:
        sizes = self.hidden_layer_sizes
        return tuple(sizes) if isinstance(sizes, Iterable) else (sizes,)

    def _activation(self) -> str:
        return ACTIVATIONS.get(self.activation, self.activation)

    def _batch_size(self, samples: int) -> int:
        return min(AUTO_BATCH if self.batch_size == "auto" else int(self.batch_size), samples)

    def _check_parameters(self) -> None:
        """Raise ValueError if a parameter is not possible; layers and optimizer check those that are theirs."""
        name = type(self).__name__
        for units in self._hidden():
            positive_integer(f"{name}: each of hidden_layer_sizes", units)
        if self.normalization not in NORMALIZATIONS:
            raise ValueError(
                f"{name}: normalization must be 'batch', 'layer' or None, got {self.normalization!r}"
            )
        if self.batch_size != "auto":
            positive_integer(f"{name}: batch_size, if not 'auto',", self.batch_size)
        positive_integer(f"{name}: max_iter", self.max_iter)
        positive_integer(f"{name}: n_iter_no_change", self.n_iter_no_change)
        if not self.alpha >= 0:
            raise ValueError(f"{name}: alpha must be 0 or more, got {self.alpha}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(f"{name}: validation_fraction must be in (0, 1), got {self.validation_fraction}")
        activations.get(self._activation())
        self._optimizer()

    def _targets(self, y: Array, dtype: np.dtype[Any], first: bool) -> Array:
        """Return targets as the loss wants them; at the first call learn what they are."""
        raise NotImplementedError

    def _score_of(self, samples: Array, targets: Array, weights: Array | None) -> float:
        """Return the score of the estimator for data as the network takes them."""
        raise NotImplementedError

    def _strata(self, targets: Array) -> Array | None:
        """Return what each part of the data is to have its share of."""
        return None


def _are_counts(weights: Array) -> bool:
    """Whether weights can be taken as how often each sample is there."""
    return bool((weights == np.rint(weights)).all()) and float(weights.sum()) <= MOST_REPEATS * len(weights)
