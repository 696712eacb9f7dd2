"""Contact sheets of generated scenes and clips."""

import re

import pytest

from hmgr_jax.reports.world_sheets import main


@pytest.mark.parametrize("what", ["scenes", "clips"])
def test_writes_a_sheet(tmp_path, capsys, what):
    out = tmp_path / "sheet.png"
    options = ["--clips"] if what == "clips" else []
    assert main(["sheets", "--out", str(out), "--families", "1", *options]) == 0
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert f"4 {what} of 1 families" in capsys.readouterr().out
    for path, reason in (
        (out, "exists already"),
        (tmp_path / "sheet.pdf", r"\.png"),
        (tmp_path / "absent" / "sheet.png", "not a folder"),
    ):
        assert main(["sheets", "--out", str(path)]) == 2
        assert re.search(reason, capsys.readouterr().err)
