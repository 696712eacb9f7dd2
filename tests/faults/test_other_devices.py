"""A run may go on with other devices than it was begun with."""

import pytest
from tiny_run import KilledError, finished, kill_at_the_save_of, rows, run

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("default")
def test_four_devices_then_one_then_two(tmp_path, monkeypatch, capsys):
    for devices, killed_at in ((4, 8), (1, 12)):
        kill_at_the_save_of(monkeypatch, killed_at)
        with pytest.raises(KilledError):
            run(tmp_path / "run", parallel__devices=devices)
        monkeypatch.undo()
    assert "parallel.devices: 4 -> 1" in capsys.readouterr().err
    assert run(tmp_path / "run", parallel__devices=2) == 0
    assert "parallel.devices: 1 -> 2" in capsys.readouterr().err
    for found, one in zip(rows(tmp_path / "run"), rows(finished()), strict=True):
        assert found == pytest.approx(one, rel=1e-5)
