"""Text from files reaches the terminal without control sequences, in any encoding."""

import io
import json
import sys
import warnings

import pytest

from hmgr_jax.command import guarded
from hmgr_jax.errors import UserError
from hmgr_jax.progress import table
from hmgr_jax.terminal import escape_controls

EVIL = "\x1b]0;PWNED\x07\x1b[2J a dog\x9b\u202e\udcff"
PLAIN = r"\x1b]0;PWNED\x07\x1b[2J a dog\u009b\u202e\udcff"


def test_control_characters_are_escaped_and_text_is_not():
    assert escape_controls(EVIL) == PLAIN
    text = "Ein Mädchen läuft… 猫 (می‌خواهم) 👩‍🚀"
    assert escape_controls(text) == text


def test_escapes_in_json_are_json():
    assert json.loads(escape_controls(json.dumps([EVIL], ensure_ascii=False))) == [EVIL]


@pytest.mark.filterwarnings("always")
def test_tables_errors_and_warnings_are_escaped(capsys):
    def run(_):
        table(EVIL, [{EVIL: EVIL}])
        warnings.warn(EVIL, stacklevel=1)
        raise UserError(EVIL)

    assert guarded(run, ["command"]) == 2
    out, errors = capsys.readouterr()
    assert out.splitlines() == [PLAIN] * 3
    assert errors.splitlines() == [f"warning: {PLAIN}", f"error: {PLAIN}"]


def test_a_terminal_in_latin_1_shows_the_rest(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)

    def run(_):
        table("é", [{"": "a long caption…"}, {"": "猫"}])
        return 0

    assert guarded(run, ["command"]) == 0
    out.flush()
    assert out.buffer.getvalue().decode("latin-1").split() == [
        "é",
        "a",
        "long",
        r"caption\u2026",
        r"\u732b",
    ]
