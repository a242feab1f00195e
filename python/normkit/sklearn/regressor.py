"""`MLPRegressor`."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from normkit.sklearn.base import MLP

__all__ = ["MLPRegressor"]

Array = NDArray[Any]


class MLPRegressor(RegressorMixin, MLP):  # type: ignore[misc]
    """A multi-layer perceptron with batch or layer norm that learns numbers, with scikit-learn's interface.

    The loss is the mean squared error; scikit-learn's is half of it. Targets are learned as they are: for large ones
    use `sklearn.compose.TransformedTargetRegressor`. Parameters and attributes are those of `MLPClassifier`, without
    those of classes.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from normkit.sklearn import MLPRegressor
    >>> X, y = make_regression(200, 5, random_state=0)
    >>> regressor = MLPRegressor((32,), learning_rate_init=0.1, random_state=0).fit(X, y / y.std())
    >>> regressor.score(X, y / y.std()) > 0.9
    True
    """

    _loss = "mean_squared_error"
    out_activation_ = "linear"

    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train one epoch on these samples.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        MLPRegressor
            The estimator.

        Raises
        ------
        ValueError, TypeError
            See `fit`.
        """
        return self._fit_an_epoch(X, y, sample_weight)

    def predict(self, X: ArrayLike) -> Array:
        """Return the predicted targets, in the shape that those of `fit` had.

        Parameters
        ----------
        X : array_like, shape (n_samples, n_features)
            Samples.
        """
        outputs = self._outputs(X)
        return outputs[:, 0] if self._is_flat else outputs

    def _targets(self, y: Array, dtype: np.dtype[Any], first: bool) -> Array:
        targets = y.reshape(len(y), -1).astype(dtype)
        if first:
            self._is_flat = y.ndim == 1
            self.n_outputs_ = targets.shape[1]
        if targets.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y must have {self.n_outputs_} outputs, as in the first call, got {targets.shape[1]}"
            )
        return targets

    def _score_of(self, samples: Array, targets: Array, weights: Array | None) -> float:
        return float(r2_score(targets, self._predicted(samples), sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
