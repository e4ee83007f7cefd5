from __future__ import annotations

from pathlib import Path

from cyclery.common.source_hash import imported


def test_modules_are_found_whichever_way_they_are_imported(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text(
        "import torch\n"
        "from cyclery import __version__, schedules\n"
        "from cyclery.common.errors import UserError\n"
        "def later():\n"
        "    from cyclery.records import metrics\n"
    )
    assert imported(file, "cyclery") == ["schedules", "common.errors", "records"]
    assert imported(file, "cyclery.records") == ["metrics"]
