"""How many decimals a figure is shown with: two significant digits of its spread."""

from __future__ import annotations

# Where no spread says how fine a figure is.
USUAL = 2
PERCENT = (1, 3)
OTHER = (0, 4)


def decimals(spread: float | None, *, percent: bool) -> int:
    """Return the decimals that show two significant digits of a spread, in the unit of the cell.

    Per cents have one to three, others up to four. A spread of zero says nothing, as none does.
    """
    if not spread:
        return USUAL
    least, most = PERCENT if percent else OTHER
    # Of the rounded spread: 0.0996 becomes 0.10, whose second digit is the second decimal.
    power = int(f"{abs(spread):.1e}".partition("e")[2])
    return min(max(1 - power, least), most)
