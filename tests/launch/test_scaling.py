"""The scaling command: its files, its error messages, and groups of processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scaling.command import main

SCRIPT = Path(__file__).parents[2] / "launch" / "scaling.py"
SIZES = "--model vse --batch 8 --dim 8 --regions 3 --region-dim 5 --words 4 --vocabulary 20"


def _main(line):
    return main(["scaling", *SIZES.split(), *line.split()])


@pytest.mark.slow
def test_script_writes_rows_and_picture_from_any_folder(tmp_path, capsys):
    """The script runs outside the repository."""
    line = f"{SIZES} --devices 2 --strong --compile-only --platform cpu --out out"
    done = subprocess.run(
        [sys.executable, SCRIPT, *line.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, (tmp_path / "out" / "rows.jsonl").read_text().splitlines())
    assert (row["mode"], row["devices"], row["batch"], row["seconds"]) == ("strong", 2, 8, None)
    assert row["work_efficiency"] == 1
    assert (tmp_path / "out" / "scaling.png").exists()
    assert "MB it sends a step" in done.stdout
    assert _main(f"--out {tmp_path / 'out'}") == 2
    assert "nothing is overwritten" in capsys.readouterr().err


@pytest.mark.slow
def test_rows_are_kept_where_others_fail(tmp_path, capsys, monkeypatch):
    def fails_on_two(configuration, platform, how):
        row = {"mode": "weak", "devices": configuration.devices, "processes": 1}
        row |= {"model": "vse", "dim": 8, "dtype": "float32", "options": ""}
        if configuration.devices == 2:
            return row | {"error": "out of memory"}
        return row | {"items_per_second": None, "matmul_flops": 8, "batch": 8}

    children = "benchmarks.scaling.children.in_children"
    monkeypatch.setattr(children, fails_on_two)
    monkeypatch.setattr("benchmarks.scaling.command.show", lambda rows, path: None)
    assert _main(f"--devices 1,2,4 --weak --out {tmp_path}") == 2
    out, err = capsys.readouterr()
    assert "1 of 3 could not be measured: out of memory" in err
    assert "2/3 weak: 2 devices in 1 processes: out of memory" in out
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row.get("error") for row in rows] == [None, "out of memory", None]
    assert rows[2]["work_efficiency"] == 0.25


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--model vsee", "There is no model 'vsee'; did you mean 'vse'?"),
        ("--dim 8 --options hopss=1", "There is no hyper-parameter of vse 'hopss'"),
        ("--device 1,2", "There is no flag '--device'; did you mean --devices?"),
        ("--devices one", "--devices must list numbers such as 1,2,4, got 'one'."),
        ("--devices 1,3 --strong", "--batch is 8, which 3 devices cannot share."),
        ("--repeats 0", "--repeats must be at least 1, got 0."),
        ("--dtype float16", "--dtype must be float32 or bfloat16"),
        (
            "--hosts here",
            "--hosts must be auto or HOST:PORT,N,I (such as 10.0.0.2:8476,4,0), got 'here'.",
        ),
    ],
)
def test_rejects_bad_arguments(capsys, line, sentence):
    assert _main(line) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert sentence in error


def test_help_lists_the_options(capsys):
    assert main(["scaling", "--help"]) == 0
    assert "--compile-only" in capsys.readouterr().out


@pytest.mark.slow
def test_two_hosts(tmp_path):
    """The same command twice, as on two hosts of one device: one of them writes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    line = f"{SIZES} --devices 1,2 --strong --repeats 2 --matmul-size 16 --out {tmp_path / 'out'}"
    hosts = [
        subprocess.Popen(
            [sys.executable, SCRIPT, *line.split(), "--hosts", f"{address},2,{index}"],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in (0, 1)
    ]
    try:
        said = [host.communicate(timeout=300)[0] for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], said
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [(row["devices"], row["processes"]) for row in rows] == [(1, 1), (2, 2)]
    assert all(row["items_per_second"] > 0 for row in rows)
