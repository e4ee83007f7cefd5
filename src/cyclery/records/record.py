"""What training jobs are told and what they leave, as plain JSON."""

from __future__ import annotations

from typing import Any

Job = dict[str, Any]
Record = dict[str, Any]
