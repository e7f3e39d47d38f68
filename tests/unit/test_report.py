"""What evaluations write: one table at a time, in notation that others can read."""

import csv
import json

from controller import report


def test_what_is_not_finite_is_empty_in_csv_and_null_in_json(tmp_path):
    row = {"seed": 1, "settle_s": float("nan"), "most": float("inf"), "recover_s": None, "name": "nan"}
    report.write_csv(tmp_path / "t.csv", tuple(row), [row])
    with open(tmp_path / "t.csv") as f:
        assert list(csv.DictReader(f)) == [{"seed": "1", "settle_s": "", "most": "", "recover_s": "", "name": "nan"}]
    report.write_json(tmp_path / "t.json", row)
    assert json.loads((tmp_path / "t.json").read_text())["settle_s"] is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.json"]


def test_what_is_set_aside_is_whole_and_never_written_over(tmp_path):
    assert report.set_aside(tmp_path, "table.*") is None
    (tmp_path / "config.json").write_text("of a run that had no table yet")
    assert report.set_aside(tmp_path, "table.*") is None and (tmp_path / "config.json").exists()
    for text in ("first", "second"):
        for name in ("config.json", "table.json", "table.csv", "notes.txt"):
            (tmp_path / name).write_text(text)
        folder = report.set_aside(tmp_path, "table.*")
        assert folder is not None and {p.read_text() for p in folder.iterdir()} == {text}
        assert sorted(p.name for p in folder.iterdir()) == ["config.json", "table.csv", "table.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["earlier-1", "earlier-2", "notes.txt"]
