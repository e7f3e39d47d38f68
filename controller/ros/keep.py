"""Measurements that go on where they were cut: a folder with NAME.json (settings, rows) and NAME.md (a table), whole after every row."""

import json
import os
from pathlib import Path
from typing import Any

from controller.config import UsageError


def resume(folder: Path, name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """-> the rows that are there. Raises UsageError where they were made with other settings, or the file is damaged: it is left as it is."""
    file = folder / f"{name}.json"
    if not file.is_file():
        return []
    try:
        told = json.loads(file.read_text())
        rows, made_with = list(told["rows"]), dict(told["settings"])
    except (ValueError, TypeError, KeyError) as e:
        raise UsageError(
            f"{file} cannot be read ({e!r}); valid: a file that this command wrote, or another --out"
        ) from None
    wanted = json.loads(json.dumps(settings, default=str))
    for key in wanted | made_with:
        was, now = made_with.get(key), wanted.get(key)
        if was != now:
            raise UsageError(
                f"{file} has rows with {key} {was!r}, not {now!r}; valid: the same settings, or another --out"
            )
    return rows


def keep(folder: Path, name: str, settings: dict[str, Any], rows: list[dict[str, Any]], table: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps({"settings": settings, "rows": rows}, indent=1, default=str)
    for file, text in ((folder / f"{name}.json", told + "\n"), (folder / f"{name}.md", table)):
        new = file.with_suffix(file.suffix + ".new")
        new.write_text(text)
        os.replace(new, file)
