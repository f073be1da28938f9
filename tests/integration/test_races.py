"""Can two programs that want one name in the library both have it? Processes that race for many names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import aiom4b

ROUNDS = 100

_RACER = """
import errno, os, sys
from aiom4b.adapters import files

root, way, kind, me, other, rounds = sys.argv[1:]

def refused(*_, **__):
    raise OSError(errno.EINVAL, "not on this file system")

if way != "renameat2":
    files._renameat2 = refused
if way == "rename":
    os.link = refused
won = []
for number in range(int(rounds)):
    mine, rival, wanted = (f"{root}/{number}.{who}" for who in (me, other, "book"))
    if kind == "folder":
        os.mkdir(mine)
    with open(f"{mine}/book" if kind == "folder" else mine, "w") as file:
        file.write(me)
    while not (os.path.lexists(rival) or os.path.lexists(wanted)):
        pass
    try:
        files.publish(mine, wanted)
    except FileExistsError:
        continue
    won.append(number)
print(*won)
"""


def raced(root, way, kind):
    """Let "a" and "b" race; return what each believes to have won."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(root), way, kind, me, other, str(ROUNDS)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(aiom4b.__file__))},
        )
        for me, other in ("ab", "ba")
    ]
    return {me: {*map(int, racer.communicate(timeout=60)[0].split())} for me, racer in zip("ab", racers, strict=True)}


# Without renameat2 and hard links a file could be replaced within microseconds: `files` says so, and books are folders.
@pytest.mark.parametrize(
    ("way", "kind"),
    [("renameat2", "file"), ("renameat2", "folder"), ("link", "file"), ("link", "folder"), ("rename", "folder")],
)
def test_of_two_programs_that_race_for_a_name_one_gets_it_and_the_other_knows(tmp_path, way, kind):
    won = raced(tmp_path, way, kind)
    assert won["a"] | won["b"] == set(range(ROUNDS))
    assert not won["a"] & won["b"]
    for me, other in ("ab", "ba"):
        for number in won[me]:
            places = [tmp_path / f"{number}.{name}" for name in ("book", other)]
            texts = [(place / "book" if kind == "folder" else place).read_text() for place in places]
            assert texts == [me, other]
