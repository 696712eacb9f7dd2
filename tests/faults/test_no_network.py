"""Nothing asks the network for anything: a run trains, ends and is evaluated without."""

import socket

import pytest
from faulty_run import assert_as_unbroken
from tiny_run import run

pytestmark = pytest.mark.slow


def test_a_run_without_network(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    assert run(tmp_path / "run") == 0
    assert run(tmp_path / "run", "--mode=evaluate") == 0
    assert_as_unbroken(tmp_path / "run")
