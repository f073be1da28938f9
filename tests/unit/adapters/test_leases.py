"""Is it known who writes to a file, without harm to anybody?"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys

import pytest

from aiom4b.adapters.leases import open_for_writing
from aiom4b.errors import NeedsAttention


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "1.mp3"
    path.write_bytes(b"x")
    return os.fspath(path)


@pytest.mark.parametrize("mode", ["ab", "rb+", "wb"])
def test_a_writer_is_noticed_until_it_closes_the_file(file, mode):
    with open(file, mode):
        assert open_for_writing(file) is True
    assert open_for_writing(file) is False


def test_readers_do_not_count(file):
    with open(file, "rb"):
        assert open_for_writing(file) is False


def test_where_the_system_refuses_to_tell_nothing_is_claimed(file, monkeypatch):
    real = fcntl.fcntl

    def refused(descriptor, command, *rest):
        if command == fcntl.F_SETLEASE:
            raise PermissionError(13, "Permission denied")
        return real(descriptor, command, *rest)

    monkeypatch.setattr(fcntl, "fcntl", refused)
    assert open_for_writing(file) is None


def test_a_file_that_another_process_has_leased_for_writing_counts_as_written_to(file):
    with open(file, "rb+") as writer:
        fcntl.fcntl(writer, fcntl.F_SETSIG, 23)  # SIGURG, which is ignored
        fcntl.fcntl(writer, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert open_for_writing(file) is True


def test_a_writer_that_comes_while_we_ask_does_not_kill_us(file):
    """A lease that a writer breaks is told to its owner by SIGIO, whose default is death."""
    ours = f"""
import fcntl, os
from aiom4b.adapters import leases
real = fcntl.fcntl
def slow(descriptor, command, *rest):
    answer = real(descriptor, command, *rest)
    if (command, *rest) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
        print("leased", flush=True)
        assert input() == "writer"
        # Its open breaks the lease and waits; the kernel shows it as a lease that is being given up.
        while "BREAKING" not in open("/proc/locks").read():
            pass
    return answer
fcntl.fcntl = slow
print(leases.open_for_writing({file!r}))
"""
    with subprocess.Popen(
        [sys.executable, "-c", ours], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as asking:
        assert asking.stdout.readline() == "leased\n"
        with subprocess.Popen([sys.executable, "-c", f"open({file!r}, 'rb+')"]) as writer:
            answer, _ = asking.communicate("writer\n", timeout=20)
            assert (asking.returncode, answer) == (0, "False\n")
            assert writer.wait(20) == 0


def test_what_is_no_regular_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NeedsAttention, match="regular"):
        open_for_writing(os.fspath(tmp_path / "pipe"))
