"""Pack what a reader opens on demand, so that the page stays small: deflated, and as text.

The same text gives the same bytes. Base 85 takes a fifth less room than base 64 does on top of the
deflated bytes; its characters that mean something in HTML are exchanged for others.
"""

from __future__ import annotations

import zlib
from base64 import b85encode

from markupsafe import Markup

# What base 85 has and HTML reads, and what it lacks.
_HTML, _FREE = "<>&", ",.:"
_AS_TEXT = str.maketrans(_HTML, _FREE)


def packed(html: str) -> Markup:
    """Return markup as an element that shows nothing; packs.js unpacks it where it stands."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = squeeze.compress(html.encode("utf-8")) + squeeze.flush()
    text = b85encode(data).decode("ascii").translate(_AS_TEXT)
    return Markup('<script type="application/octet-stream">{}</script>').format(Markup(text))
