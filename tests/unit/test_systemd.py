"""Facts about what the service manager hears."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from aiom4b.systemd import Notifier


@pytest.fixture
def manager(tmp_path, monkeypatch):
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield listening


@pytest.fixture
def notifier(request, monkeypatch):
    if "manager" in request.fixturenames:
        request.getfixturevalue("manager")
    else:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with contextlib.closing(Notifier()) as made:
        yield made


def test_a_status_arrives_in_utf_8_whatever_its_title(manager, notifier):
    notifier.status("converting “Война и мир” – 43 %")
    assert manager.recv(4096).decode() == "STATUS=converting “Война и мир” – 43 %"


def test_a_status_is_cut_between_characters_and_never_holds_a_second_line(manager, notifier):
    notifier.status("ä" * 150 + "\nREADY=1")
    text = manager.recv(4096).decode()
    assert "\n" not in text
    assert text == "STATUS=" + "ä" * 100


def test_a_name_that_is_no_text_can_be_told(manager, notifier):
    notifier.status("converting \udcff.mp3")
    assert manager.recv(4096).decode() == "STATUS=converting \\udcff.mp3"


def test_the_same_status_is_told_once(manager, notifier):
    notifier.status("idle")
    notifier.status("idle")
    assert manager.recv(4096) == b"STATUS=idle"
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_the_states_are_the_ones_that_systemd_knows(manager, notifier):
    for tell in (notifier.ready, notifier.alive, notifier.stopping):
        tell()
    assert [manager.recv(4096) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]
    notifier.reloading()
    assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


def test_workers_inherit_neither_the_manager_nor_its_watchdog(manager, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with contextlib.closing(Notifier()) as notifier:
        assert notifier.watchdog_seconds == 15
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)


def test_a_watchdog_that_is_meant_for_another_process_is_not_fed(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with contextlib.closing(Notifier()) as notifier:
        assert notifier.watchdog_seconds is None


def test_without_a_manager_nothing_fails(notifier):
    notifier.ready()
