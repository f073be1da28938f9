"""Are several entries taken for one book: all their files once, in the order that people mean, and none without the rest?"""

from __future__ import annotations

import os
from dataclasses import replace

import anyio
import pytest

import sound
from aiom4b.book.order import decide_order
from aiom4b.engine.pool import Rank
from aiom4b.errors import NeedsAttention
from aiom4b.models import Incomplete, OrderChoice, Rejected, SidecarKind, Source
from aiom4b.steps.examine import ExamineSettings, examine, examine_as_one
from books import LIMITS, Inline
from household import clip, id3, picture
from sets import write

SETTINGS = ExamineSettings(limits=LIMITS, max_files=100)
ODD = os.fsdecode(b"CD2 \xff\xe4")


def track(seed, number=None):
    return (id3(TRCK=str(number)) if number else b"") + clip(seed, seconds=0.3)


def as_one(root, *names, settings=SETTINGS):
    async def run():
        return await examine_as_one([os.path.join(root, name) for name in names], settings, Inline(), Rank())

    (found,) = anyio.run(run)
    return found


def played(source, choice=OrderChoice.AUTO):
    order = decide_order(source.files, source.evidence.playlists, choice)
    return [source.files[index].path for index in order.files]


def test_the_files_of_several_folders_are_one_book_below_the_folder_that_holds_them(tmp_path):
    root = write(
        tmp_path, {"CD10/1.mp3": track(3), "CD9/1.mp3": track(1), "CD9/2.mp3": track(2), "CD1/1.mp3": track(9)}
    )
    found = as_one(root, "CD10", "CD9")
    assert isinstance(found, Source)
    assert (found.root, found.name) == (root, "CD9")
    assert played(found) == ["CD9/1.mp3", "CD9/2.mp3", "CD10/1.mp3"]
    assert [file.path for file in found.files] == played(found)
    assert all(os.path.isfile(os.path.join(found.root, file.path)) for file in found.files)


def test_it_does_not_matter_in_which_order_the_parts_are_named(tmp_path):
    root = write(tmp_path, {f"Part {number}/{number}.mp3": track(number) for number in (1, 2, 10)})
    assert as_one(root, "Part 10", "Part 1", "Part 2") == as_one(root, "Part 1", "Part 2", "Part 10")


def test_single_files_are_parts_with_the_sidecars_of_their_name(tmp_path):
    cover = picture(side=8)
    contents = {"Emma 1.mp3": track(1), "Emma 2.mp3": track(2), "Emma 2.jpg": cover, "Other.jpg": cover}
    found = as_one(write(tmp_path, contents), "Emma 2.mp3", "Emma 1.mp3")
    assert [file.path for file in found.files] == ["Emma 1.mp3", "Emma 2.mp3"]
    assert [(one.path, one.kind) for one in found.sidecars] == [("Emma 2.jpg", SidecarKind.COVER)]
    assert (found.root, found.name) == (str(tmp_path), "Emma 1")


def test_parts_may_lie_at_different_depths_and_inside_one_another(tmp_path):
    root = write(tmp_path, {"Box/CD1/1.mp3": track(1), "Box/CD2/1.mp3": track(2), "3.mp3": track(3)})
    assert [file.path for file in as_one(root, "Box", "Box/CD2").files] == ["Box/CD1/1.mp3", "Box/CD2/1.mp3"]
    assert len(as_one(root, "Box/CD1", "3.mp3").files) == 2
    deep = as_one(root, "Box/CD1", "Box/CD2")
    assert (deep.root, [file.path for file in deep.files]) == (root + "/Box", ["CD1/1.mp3", "CD2/1.mp3"])


def test_the_same_part_twice_is_taken_once(tmp_path):
    root = write(tmp_path, {"CD1/1.mp3": track(1), "CD2/1.mp3": track(2)})
    assert as_one(root, "CD1", "CD2", "CD1/") == as_one(root, "CD1", "CD2")


def test_the_fingerprint_is_that_of_the_same_audio_in_one_folder(tmp_path):
    contents = {"CD1/1.mp3": track(1), "CD2/1.mp3": track(2)}
    root, whole = write(tmp_path, contents), write(tmp_path / "Whole", contents)

    async def run():
        return await examine(whole, SETTINGS, Inline(), Rank())

    (found,) = anyio.run(run)
    assert as_one(root, "CD2", "CD1").fingerprint == found.fingerprint


def test_names_that_are_not_utf_8_stay_what_they_are(tmp_path):
    odd = os.fsdecode(b"2 \xfe.mp3")
    root = write(tmp_path, {"CD1/1.mp3": track(1), f"{ODD}/{odd}": track(2)})
    found = as_one(root, ODD, "CD1")
    assert [file.path for file in found.files] == ["CD1/1.mp3", f"{ODD}/{odd}"]


def test_what_lies_beside_one_part_counts_for_the_book(tmp_path):
    about = b'{"title": "Emma", "authors": ["Jane Austen"]}'
    lists = b"../CD2/x.mp3\n"
    root = write(
        tmp_path,
        {"CD1/1.mp3": track(1), "CD2/x.mp3": track(2), "CD2/cover.jpg": picture(side=8), "CD1/metadata.json": about},
    )
    write(root, {"CD1/notes.txt": b"x", "CD1/list.m3u": lists})
    found = as_one(root, "CD1", "CD2")
    assert {one.path for one in found.sidecars} == {
        "CD1/metadata.json",
        "CD2/cover.jpg",
        "CD1/notes.txt",
        "CD1/list.m3u",
    }
    assert [known.title for _, known in found.evidence.metadata] == ["Emma"]
    assert found.evidence.warnings == ()


@pytest.mark.parametrize("bad", [sound.cut(clip(2, lame_tag=False), -100), b""], ids=["truncated", "empty"])
def test_one_bad_part_stops_the_whole_book_and_is_named(tmp_path, bad):
    root = write(tmp_path, {"CD1/1.mp3": track(1), "CD2/2.mp3": bad})
    found = as_one(root, "CD1", "CD2")
    assert isinstance(found, Rejected | Incomplete)
    assert "CD2/2.mp3" in found.reason


def test_a_part_that_is_still_arriving_makes_the_book_incomplete(tmp_path):
    root = write(tmp_path, {"CD1/1.mp3": track(1), "CD2/2.mp3": track(2), "CD2/3.mp3.part": b"x"})
    found = as_one(root, "CD1", "CD2")
    assert (type(found), found.code, found.path) == (Incomplete, "source.arriving", root + "/CD2")


def test_a_disc_that_nobody_named_is_missed_unless_the_order_was_chosen(tmp_path):
    root = write(tmp_path, {f"CD{disc}/1.mp3": track(disc) for disc in (1, 2, 3)})
    found = as_one(root, "CD1", "CD3")
    assert (type(found), found.code) == (Incomplete, "source.disc_missing")
    chosen = as_one(root, "CD1", "CD3", settings=replace(SETTINGS, order=OrderChoice.NAMES))
    assert isinstance(chosen, Source)
    assert "Disc 2 is missing" in chosen.warnings[0]


def test_parts_that_are_links_or_hold_no_audio_are_rejected(tmp_path):
    root = write(tmp_path, {"CD1/1.mp3": track(1), "Text/a.txt": b"x"})
    os.symlink(tmp_path / "CD1", tmp_path / "CD2")
    assert as_one(root, "CD1", "CD2").code == "source.not_regular"
    assert as_one(root, "Text").code == "source.no_audio"
    assert isinstance(as_one(root, "CD1", "Text"), Source)


def test_a_part_that_is_not_there_is_told(tmp_path):
    root = write(tmp_path, {"CD1/1.mp3": track(1)})
    with pytest.raises(NeedsAttention) as caught:
        as_one(root, "CD1", "CD2")
    assert (caught.value.code, caught.value.path) == ("source.missing", root + "/CD2")


def test_all_parts_together_are_limited_as_one_book_is(tmp_path):
    root = write(tmp_path, {f"CD{disc}/{number}.mp3": b"" for disc in (1, 2) for number in range(60)})
    with pytest.raises(NeedsAttention) as caught:
        as_one(root, "CD1", "CD2")
    assert caught.value.code == "source.too_large"


def test_a_cover_is_known_by_its_content(tmp_path):
    red, blue = picture("red", side=8), picture("blue", side=8)
    for number, data in enumerate((red, blue, red)):
        write(tmp_path / str(number), {"1.mp3": track(1), "cover.jpg": data})
    covers = [as_one(str(tmp_path), str(number)).sidecars[0] for number in range(3)]
    assert covers[0].sha256 == covers[2].sha256 != covers[1].sha256
