"""Multi-layer perceptrons with batch or layer norm as scikit-learn estimators."""

from normkit._names import show_public_names

try:
    from normkit.sklearn.classifier import MLPClassifier
    from normkit.sklearn.regressor import MLPRegressor
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sklearn":
        raise
    raise ModuleNotFoundError(
        "normkit.sklearn needs scikit-learn, which is not installed: pip install 'normkit[sklearn]'"
    ) from error

__all__ = ["MLPClassifier", "MLPRegressor"]

show_public_names(__name__)
