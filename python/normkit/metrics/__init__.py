"""Metrics with Keras's names: what is told of the targets and predictions of an epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from normkit._names import show_public_names
from normkit._registry import Registry
from normkit.metrics.accuracy import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from normkit.metrics.base import Average, Mean, MeanMetric, MeanMetricWrapper, Metric
from normkit.metrics.confusion import (
    AUC,
    FalseNegatives,
    FalsePositives,
    Precision,
    Recall,
    TrueNegatives,
    TruePositives,
)
from normkit.metrics.f_score import F1Score, FBetaScore
from normkit.metrics.losses import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    R2Score,
    RootMeanSquaredError,
    SparseCategoricalCrossentropy,
    SquaredHinge,
)

__all__ = [
    "AUC",
    "Accuracy",
    "Average",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "Hinge",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetric",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "Poisson",
    "Precision",
    "R2Score",
    "Recall",
    "RootMeanSquaredError",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SquaredHinge",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "get",
    "is_accuracy",
    "registry",
    "resolve_accuracy",
]

show_public_names(__name__)

_ACCURACY_NAMES = ("accuracy", "acc")

registry: Registry[Metric] = Registry(
    "metric",
    Metric,
    {
        "sparse_categorical_accuracy": SparseCategoricalAccuracy,
        "categorical_accuracy": CategoricalAccuracy,
        "binary_accuracy": BinaryAccuracy,
        "top_k_categorical_accuracy": TopKCategoricalAccuracy,
        "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
        "mean_squared_error": MeanSquaredError,
        "mse": MeanSquaredError,
        "root_mean_squared_error": RootMeanSquaredError,
        "mean_absolute_error": MeanAbsoluteError,
        "mae": MeanAbsoluteError,
        "mean_absolute_percentage_error": MeanAbsolutePercentageError,
        "mape": MeanAbsolutePercentageError,
        "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
        "msle": MeanSquaredLogarithmicError,
        "log_cosh_error": LogCoshError,
        "cosine_similarity": CosineSimilarity,
        "r2_score": R2Score,
        "binary_crossentropy": BinaryCrossentropy,
        "bce": BinaryCrossentropy,
        "categorical_crossentropy": CategoricalCrossentropy,
        "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
        "kl_divergence": KLDivergence,
        "poisson": Poisson,
        "hinge": Hinge,
        "squared_hinge": SquaredHinge,
        "categorical_hinge": CategoricalHinge,
        "true_positives": TruePositives,
        "false_positives": FalsePositives,
        "true_negatives": TrueNegatives,
        "false_negatives": FalseNegatives,
        "precision": Precision,
        "recall": Recall,
        "auc": AUC,
        "f1_score": F1Score,
        "fbeta_score": FBetaScore,
    },
    _ACCURACY_NAMES,
)


def get(identifier: str | dict[str, Any] | Metric | Callable[..., Any]) -> Metric:
    """Return the metric of that name, or of that saved configuration, a function as a metric, or the instance itself.

    A metric made from a name is called by that name in the logs, as in Keras. 'accuracy' depends on the
    targets: see `resolve_accuracy`.
    """
    if callable(identifier) and not isinstance(identifier, (Metric, type)):
        return MeanMetricWrapper(identifier)
    if is_accuracy(identifier):
        raise ValueError(
            f"metric '{identifier}' depends on the targets, which compile(metrics=['{identifier}']) waits for; here use "
            "'sparse_categorical_accuracy', 'categorical_accuracy' or 'binary_accuracy'"
        )
    metric = registry.get(identifier)  # type: ignore[arg-type]  # what is left of the union
    if isinstance(identifier, str):
        metric.name = identifier
    return metric


def is_accuracy(identifier: Any) -> bool:
    """Whether `identifier` is 'accuracy' or 'acc', which `get` cannot resolve without the targets."""
    return isinstance(identifier, str) and identifier.lower() in _ACCURACY_NAMES


def resolve_accuracy(name: str, y_shape: tuple[int, ...], output_shape: tuple[int | None, ...]) -> Metric:
    """Return the accuracy that fits, by Keras's rule.

    One output: binary. Targets with an axis less than the output, or with a last axis of length 1: sparse
    categorical. Else: categorical.
    """
    if output_shape[-1] == 1:
        return BinaryAccuracy(name)
    if len(y_shape) < len(output_shape) or y_shape[-1] == 1:
        return SparseCategoricalAccuracy(name)
    return CategoricalAccuracy(name)
