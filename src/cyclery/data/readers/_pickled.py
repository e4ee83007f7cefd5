"""Pixels and labels out of the pickles of CIFAR's Python archives, without unpickling them.

Unpickling runs whatever a file contains, so its opcodes are read one by one (`pickletools`) and
nothing is carried out: the one long byte string is the pixels, and the whole numbers after the name
of the labels are these. What else a pickle says (shape and order of the array, say) is passed over;
the content hash of the dataset tells whether the result is right.
"""

from __future__ import annotations

import pickletools

from cyclery.common.errors import UserError

# Opcodes whose argument is a string of bytes, or of characters that Python 2 wrote bytes as.
_STRINGS = ("BINSTRING", "SHORT_BINSTRING", "STRING", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE",
            "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")  # fmt: skip
_INTEGERS = ("BININT", "BININT1", "BININT2", "INT", "LONG1", "LONG")
# What stands between the numbers of a list: its parts, and places in the memo.
_OF_LISTS = ("EMPTY_LIST", "LIST", "MARK", "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "PUT",
             "MEMOIZE", "FRAME")  # fmt: skip


def pixels_and_labels(content: bytes, key: str, size: int, where: str) -> tuple[bytes, list[int]]:
    """Return the pixels and labels of a pickled dictionary.

    Args:
        content: the file.
        key: the name of the labels in the dictionary, as ``fine_labels``.
        size: bytes of the pixels.
        where: the file's path, for messages.

    Raises:
        UserError: it is no pickle, or holds no such string or labels.
    """
    pixels: bytes | None = None
    labels: list[int] = []
    listing = False
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in _STRINGS and isinstance(argument, str | bytes | bytearray):
                listing = argument in (key, key.encode())
                if len(argument) == size:
                    pixels = (
                        argument.encode("latin-1") if isinstance(argument, str) else bytes(argument)
                    )
            elif listing and opcode.name in _INTEGERS and isinstance(argument, int):
                labels.append(argument)
            elif opcode.name not in _OF_LISTS:
                listing = False
    except (ValueError, UnicodeError, TypeError) as error:
        raise UserError(f"{where}: cannot be read as a pickle ({error}).") from None
    if pixels is None or not labels:
        missing = f"string of {size:,} bytes" if pixels is None else f"list of {key}"
        raise UserError(f"{where}: holds no {missing}, as a pickle of CIFAR does.")
    return pixels, labels
