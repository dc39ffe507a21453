"""Gzipped arrays are read as HDF5 reads them, whatever is unusual about a piece."""

from __future__ import annotations

import zlib
from itertools import pairwise

import h5py
import numpy as np
import pytest

from cello1.cells.h5ad.packed import Packed, can_unpack

LENGTH, PIECE = 1_003, 64


def written(file, values, **how):
    return file.create_dataset("x", data=values, chunks=(PIECE,), **how)


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        yield file


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("kind", ["f4", "f8", ">f4", "f2", "i4", "i8", "u2", "i1"])
def test_every_slice_holds_what_hdf5_reads(file, kind, shuffle):
    values = np.random.default_rng(0).integers(0, 100, LENGTH).astype(kind)
    stored = written(file, values, compression="gzip", shuffle=shuffle)
    assert can_unpack(stored)
    packed, rng = Packed(stored), np.random.default_rng(1)
    assert len(packed) == LENGTH
    edges = [(0, LENGTH), (0, 1), (LENGTH - 1, LENGTH), (PIECE, 2 * PIECE), (PIECE - 1, PIECE + 1)]
    cuts = [0, *sorted(rng.permutation(LENGTH - 1)[:30] + 1), LENGTH]
    for low, high in [*edges, *pairwise(cuts)]:
        found = packed[int(low) : int(high)]
        assert found.dtype == stored.dtype
        np.testing.assert_array_equal(found, values[low:high])


def test_pieces_stored_as_they_are_or_not_at_all_are_read(file):
    stored = file.create_dataset(
        "x", (4 * PIECE,), "f4", chunks=(PIECE,), compression="gzip", fillvalue=7
    )
    stored[:PIECE] = 1
    plain = np.full(PIECE, 2, "f4")
    stored.id.write_direct_chunk((PIECE,), plain.tobytes(), filter_mask=1)
    expected = np.repeat(np.array([1, 2, 7, 7], "f4"), PIECE)
    np.testing.assert_array_equal(Packed(stored)[0 : 4 * PIECE], expected)


@pytest.mark.parametrize(
    "piece", [b"no gzip at all", zlib.compress(bytes(PIECE * 4))[:-6], zlib.compress(b"short")]
)
def test_a_damaged_piece_is_refused_and_those_before_it_are_read(file, piece):
    stored = written(file, np.arange(LENGTH, dtype="f4"), compression="gzip")
    stored.id.write_direct_chunk((2 * PIECE,), piece)
    packed = Packed(stored)
    np.testing.assert_array_equal(packed[0 : 2 * PIECE], np.arange(2 * PIECE))
    with pytest.raises(OSError, match="Can't") as refused:
        packed[2 * PIECE : 3 * PIECE]
    assert refused.value.errno is None  # so it is told as damage, not as a full disk


@pytest.mark.parametrize(
    "how", [{}, {"compression": "lzf"}, {"compression": "gzip", "fletcher32": True}]
)
def test_other_filters_are_left_to_hdf5(file, how):
    assert not can_unpack(written(file, np.arange(LENGTH), **how))


def test_words_are_left_to_hdf5(file):
    assert not can_unpack(written(file, np.array([b"a"] * LENGTH), compression="gzip"))
