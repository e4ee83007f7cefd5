"""Formats of raw files, one file each, found by its name: ``reader`` of a dataset's YAML file.

A reader's file says how many raw files it takes (``FILES``) and has a function
``read(dataset, streams)``. It takes the dataset and its verified raw
files (binary streams, in the order of the YAML file), and returns images uint8 [N, C, H, W] and
labels int64 [N], official training rows first, each set in file order. Numpy alone reads: nothing
is unpickled, and nothing unpacked to disk.

A reader may also have ``unpacked(dataset, folder)``: it returns a function without arguments that
reads the same from files that another tool unpacked below a folder, or None where these are not
there. No checksum is pinned for them, so only the dataset's content hash vouches for the result.
"""

from __future__ import annotations

from cyclery.common.components import Components

READERS = Components(
    "cyclery.data.readers",
    "reader",
    (
        ("FILES", "how many raw files it takes"),
        ("read", "a function of the dataset and its raw files"),
    ),
)
