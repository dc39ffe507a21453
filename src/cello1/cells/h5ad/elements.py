"""Elements of a stored AnnData by any writer, in HDF5 or zarr.

Writers differ: R stores attributes as bytes or as arrays of one, links lead into other files, and
a file of a megabyte may claim to hold gigabytes. What is read goes through here, so that nothing
outside the file is followed and no size is believed before it was compared with what is stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from cello1.errors import InputError

Array = npt.NDArray[Any]

# Below this, what an element claims to hold can do no harm.
_HARMLESS_BYTES = 256 << 20
# HDF5's filters pack at most about a thousandfold (deflate: 1,032).
_MOST_PACKED = 1_100
_LARGEST_PIECE = 1 << 30
_MOST_ELEMENTS = 100_000
# Filters of the package hdf5plugin, by their registered numbers.
_PLUGINS = {
    32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd",
    32026: "blosc2", 307: "bzip2",
}  # fmt: skip


def attribute(node: Any, name: str, default: Any = None) -> Any:
    """Return an attribute as plain text or number: decoded, and unwrapped from an array of one."""
    value = node.attrs.get(name, default)
    if isinstance(value, np.ndarray | list | tuple) and np.size(value) == 1:
        value = np.asarray(value, dtype=object).ravel()[0]
    if isinstance(value, np.generic):
        value = value.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def names_in(node: Any, name: str) -> list[str] | None:
    """Return an attribute that is a list of names, or None."""
    value = node.attrs.get(name)
    if value is None or isinstance(value, h5py.Empty):
        return None
    listed = np.asarray(value, dtype=object).ravel().tolist()
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in listed]


def shape_of(node: Any) -> tuple[int, ...] | None:
    """Return the shape of an array, or what a sparse matrix says of it; None where it says none.

    R writes it as numbers of any kind, and as a matrix of one row.
    """
    if is_array(node):
        return tuple(node.shape)
    told = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    with suppress(TypeError, ValueError, OverflowError):
        return None if told is None else tuple(int(n) for n in np.ravel(np.asarray(told)))
    return None


def is_array(node: Any) -> bool:
    """Return whether a node is an array; else it is a group, or nothing."""
    return hasattr(node, "dtype") and getattr(node, "shape", None) is not None


def is_null(node: Any) -> bool:
    """Return whether a node stands for None, which anndata writes for a missing X."""
    return attribute(node, "encoding-type") == "null" or (
        hasattr(node, "dtype") and getattr(node, "shape", None) is None
    )


def load(node: Any, what: str) -> Array:
    """Read a whole array after checking its claimed size against stored data and free memory.

    Raises
    ------
    InputError
        When it is larger than what is stored can hold, or than the memory that is free.
    """
    check_size(node, what)
    return np.asarray(node[:] if node.shape else node[()])


def check_size(node: Any, what: str) -> None:
    """Refuse an array whose size is not credible, or whose filter is missing."""
    check_filters(node, what)
    claimed = int(np.prod(node.shape, dtype=object)) * max(1, node.dtype.itemsize)
    if claimed <= _HARMLESS_BYTES:
        return
    stored = node.id.get_storage_size() if isinstance(node, h5py.Dataset) else node.nbytes_stored()
    if claimed > _MOST_PACKED * stored:
        raise InputError(
            f"{what} claims to hold {claimed / 1e9:.1f} GB, but only {stored / 1e6:.3f} MB of it "
            "are stored; the file is damaged or made to do harm: copy or download it again"
        )
    if (free := free_memory()) is not None and claimed > free:
        raise InputError(
            f"{what} needs {claimed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free; "
            "use a machine with more, or fewer --workers"
        )


def check_filters(node: Any, what: str) -> None:
    """Refuse an array that cannot be decompressed here, or only in chunks that fill the memory."""
    if not isinstance(node, h5py.Dataset) or node.chunks is None:
        return
    for number in filters(node):
        if not h5py.h5z.filter_avail(number):
            with suppress(ImportError):
                import hdf5plugin  # noqa: F401  # registers its filters
        if not h5py.h5z.filter_avail(number):
            name = _PLUGINS.get(number, f"number {number}")
            raise InputError(
                f"{what} is packed with a filter that HDF5 does not bring along ({name}): "
                "pip install hdf5plugin, and run this again"
            )
    piece = int(np.prod(node.chunks, dtype=object)) * max(1, node.dtype.itemsize)
    if piece > _LARGEST_PIECE:
        raise InputError(
            f"{what} is stored in pieces of {piece / 1e9:.1f} GB, each of which must be unpacked "
            "as a whole; write the file again with anndata"
        )
    pieces = int(np.prod([-(-n // c) for n, c in zip(node.shape, node.chunks, strict=True)]))
    stored = node.id.get_storage_size()
    if stored > pieces * (piece + piece // 8 + 4096):
        raise InputError(
            f"{what} takes {stored / 1e6:.1f} MB on disk for {pieces * piece / 1e6:.1f} MB of "
            "values; the file is damaged or made to do harm: copy or download it again"
        )


def filters(array: h5py.Dataset) -> list[int]:
    """Return the HDF5 filters of an array, by number."""
    stored = array.id.get_create_plist()
    return [int(stored.get_filter(i)[0]) for i in range(stored.get_nfilters())]


def free_memory() -> int | None:
    """Return the free memory in bytes, if the system reports it."""
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            told = next(line for line in file if line.startswith("MemAvailable"))
        return int(told.split()[1]) * 1024
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def refuse_outside(file: h5py.File, path: object) -> None:
    """Refuse a file with parts in other files.

    External links, arrays in raw files beside it and virtual data sets would let an .h5ad from
    someone else read any file of its reader, or wait on a FIFO for ever.

    Raises
    ------
    InputError
        With the name of the element.
    """
    for count, (name, what) in enumerate(_elements(file)):
        if what is not None:
            raise InputError(
                f"{path}: {name} is {what}, so it would read another file; expected everything in "
                "one file: ask who made it for a plain copy"
            )
        if count > _MOST_ELEMENTS:
            raise InputError(
                f"{path} has more than {_MOST_ELEMENTS:,} elements; expected a few hundred: "
                "write it again with anndata"
            )


def _elements(file: h5py.File) -> Iterator[tuple[str, str | None]]:
    """Yield every element, and why it is external, if it is; internal links are not followed.

    Every file is looked through whole, so this uses HDF5's own calls: less than half the time.
    """
    waiting, seen = [("", file["/"].id)], set()
    while waiting:
        prefix, group = waiting.pop()
        for name in group:
            full, link = f"{prefix}{name.decode('utf-8', 'replace')}", group.links.get_info(name)
            if link.type == h5py.h5l.TYPE_EXTERNAL:
                yield full, f"a link to {os.fsdecode(group.links.get_val(name)[0])}"
                continue
            if link.type != h5py.h5l.TYPE_HARD:
                yield full, None  # leads to what is met elsewhere
                continue
            node = h5py.h5o.open(group, name)
            info = h5py.h5o.get_info(node)
            if (key := (info.fileno, info.addr)) in seen:
                continue
            seen.add(key)
            if isinstance(node, h5py.h5g.GroupID):
                waiting.append((f"{full}/", node))
            yield full, _elsewhere(node)


def _elsewhere(node: Any) -> str | None:
    if not isinstance(node, h5py.h5d.DatasetID):
        return None
    stored = node.get_create_plist()
    if stored.get_external_count():
        return f"an array that lies in {os.fsdecode(stored.get_external(0)[0])}"
    if stored.get_layout() == h5py.h5d.VIRTUAL:
        return "a virtual data set"
    return None
