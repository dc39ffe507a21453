"""Gzipped arrays, decompressed on all cores.

HDF5 unpacks one stored piece after the other behind a lock, and most files are gzipped: nearly
all the time of a build went into it. The pieces are read as they are stored and unpacked side by
side here, by ISA-L, which takes half as long as zlib. Whatever is unusual about a piece is left to
HDF5, so damage is told as ever.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from isal.isal_zlib import IsalError, decompressobj

from cello1.cells.h5ad.elements import filters

Array = npt.NDArray[Any]

_GZIP = [h5py.h5z.FILTER_DEFLATE]
_SHUFFLED_GZIP = [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE]
_PLAIN_KINDS = "fiu"


def can_unpack(array: h5py.Dataset) -> bool:
    """Return whether :class:`Packed` can read an array: 1-d numbers, gzipped, maybe shuffled."""
    simple = array.ndim == 1 and array.dtype.kind in _PLAIN_KINDS
    return simple and filters(array) in (_GZIP, _SHUFFLED_GZIP)


class Packed:
    """A gzipped array of an open file, read from start to end like an `h5py.Dataset`.

    Parameters
    ----------
    array
        An array for which :func:`can_unpack` holds.
    """

    def __init__(self, array: h5py.Dataset) -> None:
        self.array, self.dtype = array, array.dtype
        self.length = int(array.chunks[0])
        self.shuffled = filters(array) == _SHUFFLED_GZIP
        # The piece in which the last reading ended: the next one begins there.
        self.last: tuple[int, Array] = (-1, np.empty(0, self.dtype))

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self.array)

    def __getitem__(self, where: slice) -> Array:
        """Read a slice of at least one value."""
        into = np.empty(where.stop - where.start, self.dtype)
        self.read_direct(into, where)
        return into

    def read_direct(self, into: Array, where: slice) -> None:
        """Read the values of a slice into an array of that length; the slice is not empty."""
        low, high = where.start, where.stop
        first, last = low // self.length, (high - 1) // self.length

        def fill(piece: int) -> Array:
            start = piece * self.length
            values = self.last[1] if piece == self.last[0] else self._unpack(piece)
            begin, end = max(low, start), min(high, start + self.length)
            into[begin - low : end - low] = values[begin - start : end - start]
            return values

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            *_, values = pool.map(fill, range(first, last + 1))
        self.last = (last, values)

    def _unpack(self, piece: int) -> Array:
        start, size = piece * self.length, self.length * self.dtype.itemsize
        try:
            skipped, stored = self.array.id.read_direct_chunk((start,))
            # One byte more would do to see that it does not fit: a bomb is never unpacked.
            values = decompressobj().decompress(stored, size + 1) if skipped == 0 else None
        except (IsalError, OSError, RuntimeError, ValueError):  # type: ignore[misc]
            values = None
        if values is None:
            whole: Array = self.array[start : start + self.length]
            return whole
        if len(values) != size:  # HDF5 would hand out whatever is in memory there
            raise OSError(f"Can't read data (a piece unpacks to {len(values)} of {size} bytes)")
        if self.shuffled:
            bytes_apart = np.frombuffer(values, np.uint8).reshape(self.dtype.itemsize, -1)
            values = bytes_apart.T.tobytes()
        return np.frombuffer(values, self.dtype)
