"""Arrays that are made once and kept for a while, for any number of threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import numpy as np


class Cache:
    """The last arrays of at most ``largest_bytes``: two threads that want the same one wait for a single making."""

    def __init__(self, largest_bytes: int) -> None:
        self._left_bytes, self._lock = largest_bytes, threading.Lock()
        self._held: OrderedDict[Hashable, Future[np.ndarray]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of that key: as kept, or made now. What ``make`` raises is raised for all who wait."""
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            else:
                mine = self._held[key] = Future()
        if found is not None:
            return found.result()
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._held[key]
            mine.set_exception(error)
            raise
        mine.set_result(made)
        self._drop(made.nbytes)
        return made

    def _drop(self, more_bytes: int) -> None:
        """The oldest of those that are made give way to a new one."""
        with self._lock:
            self._left_bytes -= more_bytes
            while self._left_bytes < 0:
                oldest = next((key for key, future in self._held.items() if future.done()), None)
                if oldest is None:
                    return
                self._left_bytes += self._held.pop(oldest).result().nbytes
