"""Is a backup set written down so that we, and people without us, can read it back exactly?"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.adapters.backup_format import (
    NAME_LIMIT,
    BackupSet,
    StoredFile,
    manifest,
    parse_manifest,
    set_name,
    stored_path,
    sums,
)

NOW = datetime(2026, 11, 21, 13, 5, 9, tzinfo=UTC)
HASH = "0123456789abcdef" * 4
NOT_UTF8 = os.fsdecode(b"disc\xff/\xfe.mp3")


def stored(path, size=1):
    return StoredFile(path=path, size=size, sha256=HASH, mtime_ns=946_684_800_123_456_789)


def made(*paths, source="/source/book"):
    files = tuple(stored(path) for path in paths)
    return BackupSet(root="/b/set", source=source, fingerprint=HASH, created=NOW, tool="aiom4b 1", files=files)


def read_as_coreutils_does(text):
    """Return {name: hash} by the rules in the manual of GNU coreutils 9 (``sha256sum``, output escaping)."""
    found = {}
    for line in text.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        escaped = line.startswith("\\")
        digest, gap, name = line.removeprefix("\\").partition("  ")
        assert (len(digest), gap) == (64, "  ")
        if escaped:
            name = "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in name.split("\\\\"))
        else:
            assert not set(name) & set("\\\n\r")
        assert name != "-"
        found[os.path.normpath(name)] = digest
    return found


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("CD1/01 Käse.mp3", f"{HASH}  CD1/01 Käse.mp3\n"),
        ("new\nline", f"\\{HASH}  new\\nline\n"),
        ("Icon\r", f"\\{HASH}  Icon\\r\n"),
        ("back\\slash", f"\\{HASH}  back\\\\slash\n"),
        (" *lead", f"{HASH}   *lead\n"),
        ("-", f"{HASH}  ./-\n"),
    ],
)
def test_sums_are_written_as_sha256sum_reads_them(path, line):
    assert sums((stored(path),)) == line.encode()


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1).filter(
    lambda name: name not in {".", ".."}
)


@given(NAMES)
def test_any_name_comes_back_from_the_sums(name):
    assert read_as_coreutils_does(sums((stored(name),))) == {stored_path(name): HASH}


@given(st.lists(NAMES, min_size=1, max_size=3).map("/".join))
def test_any_path_comes_back_from_the_manifest(path):
    assert parse_manifest(manifest(made(path)), "/b/set") == made(path)


def test_names_that_are_not_utf8_are_shown_and_come_back_exactly():
    whole = made(NOT_UTF8, "plain", source=os.fsdecode(b"/\xff"))
    document = json.loads(manifest(whole))
    assert document["source"] == "/\\xff"
    assert document["files"][0]["path"] == "disc\\xff/\\xfe.mp3"
    assert "path_b64" not in document["files"][1]
    assert parse_manifest(manifest(whole), "/b/set") == whole
    assert read_as_coreutils_does(sums(whole.files)) == {NOT_UTF8: HASH, "plain": HASH}


def test_the_manifest_says_what_a_person_wants_to_know():
    document = json.loads(manifest(made("a")))
    assert document["v"] == 1
    assert document["created"] == "2026-11-21T13:05:09+00:00"
    assert document["source"] == "/source/book"
    assert document["files"] == [{"path": "a", "size": 1, "sha256": HASH, "mtime_ns": 946_684_800_123_456_789}]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"v": 2}, "v: "),
        ({"created": "2026-11-21T13:05:09"}, "created: "),
        ({"files": [{"path": "a", "size": -1, "sha256": HASH, "mtime_ns": 0}]}, "files.0.size: "),
        ({"files": [{"path": "a", "size": 1, "sha256": HASH.upper(), "mtime_ns": 0}]}, "files.0.sha256: "),
        ({"files": [{"path": "../../etc/passwd", "size": 1, "sha256": HASH, "mtime_ns": 0}]}, "leads out"),
        ({"files": [{"path": "/etc/passwd", "size": 1, "sha256": HASH, "mtime_ns": 0}]}, "leads out"),
        ({"files": [{"path": "a/../../b", "size": 1, "sha256": HASH, "mtime_ns": 0}]}, "leads out"),
        ({"files": [{"path": "a", "path_b64": "Li4vYQ==", "size": 1, "sha256": HASH, "mtime_ns": 0}]}, "leads out"),
        ({"files": [{"path": "a", "path_b64": "no base64", "size": 1, "sha256": HASH, "mtime_ns": 0}]}, "base64"),
    ],
)
def test_a_manifest_that_is_wrong_or_evil_is_refused(change, reason):
    document = json.loads(manifest(made("a"))) | change
    with pytest.raises(ValueError, match=reason):
        parse_manifest(json.dumps(document).encode(), "/b/set")


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"[]", manifest(made("a"))[:-40]])
def test_a_torn_manifest_is_refused(data):
    with pytest.raises(ValueError, match="the text"):
        parse_manifest(data, "/b/set")


def test_a_set_is_named_after_its_folder_and_the_time_in_utc():
    assert set_name("Book", NOW, ()) == "Book_20261121_130509"
    assert set_name("Book", NOW.astimezone(timezone(timedelta(hours=5))), ()) == "Book_20261121_130509"


def test_a_second_set_in_the_same_second_gets_a_number():
    assert set_name("Book", NOW, {"Book_20261121_130509"}) == "Book_20261121_130509_2"
    assert set_name("Book", NOW, {"Book_20261121_130509", "Book_20261121_130509_2"}) == "Book_20261121_130509_3"


def test_a_hidden_folder_gives_a_visible_set():
    assert set_name(".book", NOW, ()) == "_.book_20261121_130509"


@pytest.mark.parametrize("letter", ["x", "ü", "🧀", os.fsdecode(b"\xff")])
def test_long_names_are_cut_at_a_character_and_stay_apart(letter):
    one, two = letter * 150 + "1" * 100, letter * 150 + "2" * 100
    names = [set_name(name, NOW, ()) for name in (one, two)]
    assert names[0] != names[1]
    for name in names:
        assert len(os.fsencode(name)) <= NAME_LIMIT
        assert name.endswith("_20261121_130509")
        assert name.startswith(letter * 30)
        if letter != os.fsdecode(b"\xff"):
            name.encode()


@given(st.lists(st.sampled_from(["SHA256SUMS", "backup.json", "Backup.JSON"]).map(lambda name: name + "_")), NAMES)
def test_no_file_of_a_source_takes_a_name_of_the_set_or_of_another_file(reserved, name):
    paths = {"SHA256SUMS", "backup.json", "SHA256SUMS_", "CD/SHA256SUMS", *reserved, name}
    stored_paths = {stored_path(path) for path in paths}
    assert len(stored_paths) == len(paths)
    assert not {path.lower() for path in stored_paths} & {"sha256sums", "backup.json"}
    assert stored_path("CD/SHA256SUMS") == "CD/SHA256SUMS"
