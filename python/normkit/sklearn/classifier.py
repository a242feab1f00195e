"""`MLPClassifier`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from normkit.sklearn.base import MLP

__all__ = ["MLPClassifier"]

Array = NDArray[Any]


class MLPClassifier(ClassifierMixin, MLP):  # type: ignore[misc]
    """A multi-layer perceptron with batch or layer norm that learns labels, with scikit-learn's interface.

    Parameters have the names, meanings and defaults of scikit-learn's class of this name, and these of their own:
    `normalization`, `dropout`, `class_weight`.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer.
    activation : str, default "relu"
        Of the hidden layers: "relu", "tanh", "logistic", "identity", or any name of `normkit.activations`.
    normalization : {"batch", "layer", None}, default "batch"
        What stands between each hidden layer and its activation. The moving statistics of batch norm are debiased, and
        take a tenth of each mini-batch's.
    dropout : float, default 0.0
        Share of the hidden outputs that are left out in training, behind the activation.
    solver : str, default "adam"
        "adam", "sgd", or any name of `normkit.optimizers`.
    alpha : float, default 0.0001
        Strength of the L2 penalty of the kernels, ``alpha / 2 · Σw²`` per mini-batch, whose loss is a sum.
    batch_size : int or "auto"
        Samples of a mini-batch; "auto": 200, or all if there are fewer.
    learning_rate_init : float, default 0.001
        Learning rate.
    max_iter : int, default 200
        Epochs, at most.
    shuffle : bool, default True
        A new order in each epoch.
    random_state : int, RandomState or None
        Of weights, orders, dropout, and what is held out: with an integer the same bits come out.
    tol, n_iter_no_change : float, default 1e-4, and int, default 10
        The fit ends when loss, or score of the held-out samples, has not become better by more than `tol` for more
        than so many epochs.
    verbose : bool, default False
        Print a line per epoch.
    warm_start : bool, default False
        Go on with the network that is there.
    momentum, nesterovs_momentum : float, default 0.9, and bool, default True
        Of "sgd".
    early_stopping, validation_fraction : bool, default False, and float, default 0.1
        Hold out so large a share of the samples, and end with the weights that were best on it.
    beta_1, beta_2, epsilon : float
        Of "adam".
    class_weight : dict, "balanced" or None
        Factors of the losses of the classes.

    Attributes
    ----------
    model_ : normkit.Sequential
        The network.
    classes_ : ndarray
        Labels.
    n_features_in_, feature_names_in_
        As in scikit-learn.
    n_iter_, loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_
        Epochs trained, and what they gave; the loss has the penalty in it.
    coefs_, intercepts_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from normkit.sklearn import MLPClassifier
    >>> classifier = make_pipeline(StandardScaler(), MLPClassifier((32,), random_state=0))
    >>> classifier.fit(*load_iris(return_X_y=True)).score(*load_iris(return_X_y=True)) > 0.95
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
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
        class_weight: Mapping[Any, float] | str | None = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            normalization=normalization,
            dropout=dropout,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
        )
        self.class_weight = class_weight

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train one epoch on these samples.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array_like, shape (n_classes,)
            All labels that will ever come; needed in the first call, and afterwards the same or left out.

        Returns
        -------
        MLPClassifier
            The estimator.

        Raises
        ------
        ValueError, TypeError
            See `fit`; or if the classes are missing in the first call, or others than before.
        """
        with self._unchanged_after_errors():
            if hasattr(self, "model_"):
                if classes is not None and not np.array_equal(self.classes_, np.unique(classes)):
                    raise ValueError(
                        f"classes={classes!r} is not the same as on last call to partial_fit, was: {self.classes_!r}"
                    )
            elif classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            else:
                self._announced = unique_labels(classes)
            return self._fit_an_epoch(X, y, sample_weight)

    def predict(self, X: ArrayLike) -> Array:
        """Return the most probable labels, shape (n_samples,); of several labels those above one half.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
            Samples.
        """
        return self._labels(self._outputs(X))

    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the probabilities of the classes, shape (n_samples, n_classes).

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
            Samples.
        """
        outputs = self._outputs(X)
        if self._is_multilabel or self.n_outputs_ > 1:
            return outputs
        if len(self.classes_) == 1:
            return np.ones_like(outputs)
        return np.hstack([1 - outputs, outputs])

    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Return the logarithms of `predict_proba`.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
            Samples.
        """
        with np.errstate(divide="ignore"):
            logarithms: Array = np.log(self.predict_proba(X))
        return logarithms

    def _labels(self, outputs: Array) -> Array:
        if self._is_multilabel:
            return (outputs > 0.5).astype(int)
        index = outputs.argmax(axis=1) if self.n_outputs_ > 1 else (outputs[:, 0] > 0.5).astype(int)
        labels: Array = self.classes_[np.minimum(index, len(self.classes_) - 1)]
        return labels

    def _targets(self, y: Array, dtype: np.dtype[Any], first: bool) -> Array:
        check_classification_targets(y)
        is_multilabel = type_of_target(y) == "multilabel-indicator"
        if not is_multilabel:
            y = column_or_1d(y, warn=True)
        labels = np.arange(y.shape[1]) if is_multilabel else np.unique(y)
        if first:
            announced = self.__dict__.pop("_announced", None)
            self.classes_ = labels if announced is None else announced
            self._is_multilabel = is_multilabel
            self.n_outputs_ = len(self.classes_) if is_multilabel or len(self.classes_) > 2 else 1
            is_softmax = not is_multilabel and self.n_outputs_ > 1
            self.out_activation_ = "softmax" if is_softmax else "sigmoid"
            self._loss = "sparse_categorical_crossentropy" if is_softmax else "binary_crossentropy"
        unknown = np.setdiff1d(labels, self.classes_)
        if unknown.size or is_multilabel is not self._is_multilabel:
            raise ValueError(f"y has labels {unknown} that are none of the classes {self.classes_}")
        if is_multilabel:
            return y.astype(dtype)
        index = np.searchsorted(self.classes_, y)
        return index if self.n_outputs_ > 1 else index.astype(dtype)[:, None]

    def _weights(self, given: ArrayLike | None, samples: Array, y: Array) -> Array | None:
        weights = super()._weights(given, samples, y)
        if self.class_weight is None:
            return weights
        of_class: Array = compute_sample_weight(self.class_weight, y).astype(samples.dtype)
        return of_class if weights is None else weights * of_class

    def _score_of(self, samples: Array, targets: Array, weights: Array | None) -> float:
        outputs = self._predicted(samples)
        if self.n_outputs_ > 1 and not self._is_multilabel:
            return float(accuracy_score(targets, outputs.argmax(axis=1), sample_weight=weights))
        return float(accuracy_score(targets > 0.5, outputs > 0.5, sample_weight=weights))

    def _strata(self, targets: Array) -> Array | None:
        return None if self._is_multilabel else targets

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
