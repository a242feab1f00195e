"""Making batches ahead of their use, in a thread."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["prefetched"]

T = TypeVar("T")
_THREAD = "normkit-prefetch"


def prefetched(items: Generator[T, None, None], depth: int) -> Generator[T, None, None]:
    """Return the items, of which a thread makes up to `depth` ahead.

    An error in the thread is raised where its item would have been returned, with the thread's traceback. The thread
    ends when the items do, when the iterator is closed or no longer used, and when the interpreter exits; it then
    finishes the item it is at. In a child forked meanwhile the thread does not exist: going on there is a RuntimeError.
    """
    process = os.getpid()
    executor = ThreadPoolExecutor(1, _THREAD)  # joined at exit by the interpreter, as daemon threads are not
    ahead: deque[Future[tuple[T, ...]]] = deque()

    def advance() -> tuple[T, ...]:
        return tuple(islice(items, 1))  # empty: the end

    try:
        while True:
            if os.getpid() != process:
                raise RuntimeError(
                    "batches are made by a thread of the parent process, which this child does not have: "
                    "begin to iterate after fork, or give prefetch=0"
                )
            while len(ahead) < depth:
                ahead.append(executor.submit(advance))
            item = ahead.popleft().result()
            if not item:
                return
            yield item[0]
            del item
    finally:
        # The garbage collector may get here in the thread itself, which cannot wait for its own end.
        outside = not threading.current_thread().name.startswith(_THREAD) and os.getpid() == process
        executor.shutdown(wait=outside, cancel_futures=True)
        if outside:
            items.close()
