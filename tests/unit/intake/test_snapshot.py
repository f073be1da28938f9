"""Does a snapshot change when, and only when, something happens to an entry that may matter?"""

from __future__ import annotations

import os

import pytest

from aiom4b.errors import NeedsAttention
from aiom4b.intake import snapshot
from aiom4b.intake.snapshot import same_shape
from intakes import put


@pytest.fixture
def source(tmp_path):
    put(tmp_path / "Emma", {"CD1/1.mp3": b"one", "CD2/2.mp3": b"two"})
    return tmp_path


def digest(source, name="Emma", beside=()):
    return snapshot.take(os.fspath(source), name, beside).digest


def entries(source):
    return {name: set(beside) for name, beside in snapshot.survey(os.fspath(source)).entries.items()}


def rewritten(source):
    path = source / "Emma/CD1/1.mp3"
    status = os.stat(path)
    path.write_bytes(b"ONE")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(source):
    path = source / "Emma/CD1/1.mp3"
    os.rename(path, source / "elsewhere")
    path.write_bytes(b"one")


CHANGES = {
    "a file more": lambda source: put(source / "Emma", {"CD2/3.mp3": b"x"}),
    "a file less": lambda source: os.remove(source / "Emma/CD1/1.mp3"),
    "an empty folder more": lambda source: os.mkdir(source / "Emma/CD3"),
    "another name": lambda source: os.rename(source / "Emma/CD1", source / "Emma/CD3"),
    "a longer file": lambda source: put(source / "Emma", {"CD1/1.mp3": b"longer"}),
    "another time": lambda source: os.utime(source / "Emma/CD1/1.mp3", (1, 1)),
    "a file replaced by another": replaced,
    "a link in place of a file": lambda source: (
        os.remove(source / "Emma/CD1/1.mp3"),
        os.symlink("../CD2/2.mp3", source / "Emma/CD1/1.mp3"),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_digest_changes_with(what, source):
    before = digest(source)
    assert digest(source) == before
    CHANGES[what](source)
    after = digest(source)
    assert after != before
    assert not same_shape(before, after)


@pytest.mark.parametrize("how", [rewritten, lambda source: os.chmod(source / "Emma/CD1/1.mp3", 0o600)])
def test_what_only_the_inode_tells_changes_the_digest_but_not_the_shape(how, source):
    before = digest(source)
    how(source)
    assert digest(source) != before
    assert same_shape(digest(source), before)


@pytest.mark.parametrize(
    "litter", [".DS_Store", "@eaDir/1.mp3/SYNOAUDIO", "CD1/Thumbs.db", "CD1/._1.mp3", "CD1/desktop.ini"]
)
def test_litter_changes_nothing(litter, source):
    before = digest(source)
    put(source / "Emma", {litter: b"x"})
    assert digest(source) == before


def test_files_size_and_the_unfinished_name_are_told(source):
    put(source / "Emma", {"CD2/3.mp3.part": b"xx", ".DS_Store": b"x"})
    found = snapshot.take(os.fspath(source), "Emma")
    assert [os.path.relpath(path, source) for path in found.paths] == [
        "Emma/CD1/1.mp3",
        "Emma/CD2/2.mp3",
        "Emma/CD2/3.mp3.part",
    ]
    assert (found.size, found.temporary) == (8, "Emma/CD2/3.mp3.part")


def test_what_is_gone_has_no_snapshot_and_spoils_no_other(source):
    put(source / "Deep", {"/".join("d" * 40) + "/a": b"x"})
    found = snapshot.look(os.fspath(source), {"Gone": (), "Deep": (), "Emma": ()})
    assert found["Gone"] is None
    assert found["Deep"].code == "source.too_large"
    assert found["Emma"].size == 6


def test_links_and_pipes_are_entries_that_are_never_followed_or_opened(source):
    os.symlink("Emma", source / "link")
    os.mkfifo(source / "pipe")
    assert {"link", "pipe", "Emma"} == set(entries(source))
    assert snapshot.take(os.fspath(source), "link").paths == ()
    assert snapshot.take(os.fspath(source), "pipe").paths == ()


def test_litter_and_our_own_names_are_no_entries(source):
    put(
        source,
        {".DS_Store": b"", "@eaDir/x": b"", "#recycle/x": b"", ".aiom4b/x": b"", ".aiom4b-0123456789abcdef.tmp": b""},
    )
    assert set(entries(source)) == {"Emma"}


def test_what_describes_a_single_file_belongs_to_it(source):
    put(source, {"A.mp3": b"", "A.cue": b"", "A.jpg": b"", "B.jpg": b"", "C.mp3": b"", "C.m4b": b"", "C.opf": b""})
    assert entries(source) == {
        "Emma": set(),
        "A.mp3": {"A.cue", "A.jpg"},
        "B.jpg": set(),
        "C.mp3": {"C.opf"},
        "C.m4b": {"C.opf"},
    }


@pytest.mark.parametrize("unfinished", ["A.mp3.aria2", "A.mp3.part", ".A.mp3.Xy12Za", "~syncthing~A.mp3.tmp"])
def test_an_unfinished_copy_beside_a_single_file_holds_it(unfinished, source):
    put(source, {"A.mp3": b"", unfinished: b"", "B.mp3": b""})
    found = entries(source)
    assert found["A.mp3"] == {unfinished}
    assert found["B.mp3"] == set()
    assert snapshot.take(os.fspath(source), "A.mp3", found["A.mp3"]).temporary == unfinished


def test_a_change_beside_a_single_file_changes_its_digest(source):
    put(source, {"A.mp3": b"", "A.cue": b""})
    before = digest(source, "A.mp3", ("A.cue",))
    put(source, {"A.cue": b"x"})
    assert digest(source, "A.mp3", ("A.cue",)) != before


def test_names_that_are_not_utf8_are_entries(source):
    put(source, {os.fsdecode(b"\xff.mp3"): b"x"})
    assert snapshot.take(os.fspath(source), os.fsdecode(b"\xff.mp3")).size == 1
    assert os.fsdecode(b"\xff.mp3") in entries(source)


@pytest.mark.parametrize("what", ["missing", "a file"])
def test_a_source_that_is_no_directory_is_told(what, source):
    put(source, {"a file": b""})
    with pytest.raises(NeedsAttention) as caught:
        snapshot.survey(os.fspath(source / what))
    assert caught.value.code == "file.missing"


def test_the_source_itself_is_known_by_device_and_inode(source):
    status = os.stat(source)
    found = snapshot.survey(os.fspath(source))
    assert (found.device, found.inode) == (status.st_dev, status.st_ino)


# --- what audible-cli leaves at the top level --------------------------------------------------------------------------

AAXC, VOUCHER = "Emma-AAX_44_128.aaxc", "Emma-AAX_44_128.voucher"
COMPANIONS = {VOUCHER, "Emma-chapters.json", "Emma-annotations.json", "Emma_(500).jpg", "Emma_(1215).jpg", "Emma.pdf"}


@pytest.fixture
def top(tmp_path):
    return tmp_path


def test_all_that_was_downloaded_with_a_title_belongs_to_it(top):
    put(top, dict.fromkeys({AAXC, *COMPANIONS}, b"x"))
    assert entries(top) == {AAXC: COMPANIONS}


def test_two_titles_keep_what_is_theirs(top):
    other = {name.replace("Emma", "Emma: Two") for name in COMPANIONS}
    put(top, dict.fromkeys({AAXC, *COMPANIONS, AAXC.replace("Emma", "Emma: Two"), *other}, b"x"))
    assert entries(top) == {AAXC: COMPANIONS, AAXC.replace("Emma", "Emma: Two"): other}


def test_years_in_names_are_no_sizes_of_pictures(top):
    put(top, {f"Dune_({year}).{kind}": b"x" for year in (1984, 2021) for kind in ("mp3", "jpg", "cue")})
    assert entries(top) == {f"Dune_({year}).mp3": {f"Dune_({year}).jpg", f"Dune_({year}).cue"} for year in (1984, 2021)}


def test_a_voucher_that_is_there_first_is_an_entry_until_its_title_comes(top):
    put(top, {VOUCHER: b"key"})
    assert entries(top) == {VOUCHER: set()}
    put(top, {AAXC: b"sound"})
    assert entries(top) == {AAXC: {VOUCHER}}


def test_a_voucher_that_comes_later_changes_its_title(top):
    put(top, {AAXC: b"sound"})
    before = digest(top, AAXC, entries(top)[AAXC])
    put(top, {VOUCHER: b"key"})
    assert entries(top) == {AAXC: {VOUCHER}}
    after = digest(top, AAXC, entries(top)[AAXC])
    assert not same_shape(before, after)
    put(top, {"Emma.key": b"Key=00"})
    assert not same_shape(after, digest(top, AAXC, tuple(sorted(entries(top)[AAXC]))))


def test_a_voucher_that_was_exchanged_changes_its_title(top):
    put(top, {AAXC: b"sound", VOUCHER: b"wrong"})
    before = digest(top, AAXC, (VOUCHER,))
    put(top, {VOUCHER: b"right!"})
    assert not same_shape(before, digest(top, AAXC, (VOUCHER,)))


def test_what_belongs_to_a_title_is_looked_at_with_it(top):
    put(top, {AAXC: b"sound", VOUCHER: b"key", "Other-AAX_44_128.voucher": b"x"})
    found = snapshot.take(os.fspath(top), AAXC, sorted(entries(top)[AAXC]))
    assert [os.path.basename(path) for path in found.paths] == [AAXC, VOUCHER]
    assert found.size == 8


@pytest.mark.parametrize("unfinished", [f"{AAXC}.part", f"{AAXC}.tmp"])
def test_a_title_that_is_still_downloaded_is_held(top, unfinished):
    put(top, {AAXC: b"", VOUCHER: b"key", unfinished: b"x"})
    assert entries(top)[AAXC] == {VOUCHER, unfinished}
    assert snapshot.take(os.fspath(top), AAXC, (VOUCHER, unfinished)).temporary == unfinished


def test_both_forms_of_a_title_have_the_same_beside_them(top):
    put(top, {AAXC: b"x", "Emma-LC_128_44100_stereo.aax": b"x", "Emma.pdf": b"x"})
    assert entries(top) == {AAXC: {"Emma.pdf"}, "Emma-LC_128_44100_stereo.aax": {"Emma.pdf"}}


def test_a_title_whose_name_is_not_utf_8_keeps_its_voucher(top):
    odd = os.fsdecode(b"B\xfccher")
    put(top, {f"{odd}-AAX_44_128.aaxc": b"x", f"{odd}-AAX_44_128.voucher": b"x", f"{odd}.pdf": b"x"})
    assert entries(top) == {f"{odd}-AAX_44_128.aaxc": {f"{odd}-AAX_44_128.voucher", f"{odd}.pdf"}}


def test_a_folder_called_like_a_voucher_belongs_to_nobody(top):
    put(top, {AAXC: b"x", f"{VOUCHER}/a.mp3": b"x"})
    assert entries(top) == {AAXC: set(), VOUCHER: set()}
