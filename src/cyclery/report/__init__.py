"""The report of a tier: one HTML file that opens from disk, and LaTeX with figures and tables."""

from __future__ import annotations

from cyclery.report.build import build
from cyclery.report.tex import compile_pdf

__all__ = ["build", "compile_pdf"]
