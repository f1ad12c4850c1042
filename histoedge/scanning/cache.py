"""A cache of arrays, shared by any number of threads."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import numpy as np


class Cache:
    """The most recently used arrays, at most ``largest_bytes``; threads that want the same array compute it once."""

    def __init__(self, largest_bytes: int) -> None:
        self._free_bytes, self._lock = largest_bytes, threading.Lock()
        self._entries: OrderedDict[Hashable, Future[np.ndarray]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array of the key, from the cache or from ``make``, whose error every waiting thread gets."""
        with self._lock:
            cached = self._entries.get(key)
            if cached is not None:
                self._entries.move_to_end(key)
            else:
                entry = self._entries[key] = Future()
        if cached is not None:
            return cached.result()
        try:
            array = make()
        except BaseException as error:
            with self._lock:
                del self._entries[key]
            entry.set_exception(error)
            raise
        entry.set_result(array)
        self._make_room(array.nbytes)
        return array

    def _make_room(self, new_bytes: int) -> None:
        """Drop the oldest finished arrays until the new one fits."""
        with self._lock:
            self._free_bytes -= new_bytes
            while self._free_bytes < 0:
                oldest = next((key for key, future in self._entries.items() if future.done()), None)
                if oldest is None:
                    return
                self._free_bytes += self._entries.pop(oldest).result().nbytes
