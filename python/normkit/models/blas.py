"""How many threads BLAS multiplies small matrices with: one, where threads would cost more than they bring."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from numpy.typing import NDArray

__all__ = ["blas_threads"]

# Multiplications and additions of a product from which a second thread pays. Below it two threads take as long as one,
# or longer, and spin on between products, where they slow down all else.
WORTH_THREADS = 8_000_000


def blas_threads(batch_size: int, matrices: Iterable[NDArray[Any]]) -> AbstractContextManager[Any]:
    """Return a context in which BLAS has one thread, if no product of a batch with one of these is worth more.

    Without the package threadpoolctl, which scikit-learn brings along, nothing is changed. The number is that of the
    process, and comes back at the end.
    """
    largest = max((2 * batch_size * matrix.size for matrix in matrices), default=0)
    if largest >= WORTH_THREADS or importlib.util.find_spec("threadpoolctl") is None:
        return nullcontext()
    return _numpy_blas().limit(limits=1)  # type: ignore[no-any-return]


@functools.cache
def _numpy_blas() -> Any:
    """Return what controls the threads of every BLAS in this process."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
