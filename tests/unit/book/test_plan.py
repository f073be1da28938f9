"""Does the plan say everything that decides the book, and is its identity that of the bytes?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiom4b.book.encoding import EncodeWishes
from aiom4b.book.plan import Wishes, plan
from aiom4b.errors import NeedsAttention
from aiom4b.models import Codec, Method, Sidecar, SidecarKind
from factories import audio_facts, identity, source, source_file

AAC = audio_facts(100, codec=Codec.AAC, start_skip=1024)


def book(*files, **facts):
    return source(*(files or ("01.mp3", "02.mp3")), **facts)


def cover(path, sha256="a" * 64):
    return Sidecar(path=path, identity=identity(), kind=SidecarKind.COVER, sha256=sha256)


def test_an_encoded_book_has_one_packet_more_than_blocks():
    made = plan(book(), Wishes())
    assert made.method is Method.ENCODE
    assert made.timeline.samples == 2 * 300 * 44100
    assert made.packets == -(-made.timeline.samples // 1024) + 1
    assert len(made.chapters) == 2


def test_a_copied_file_keeps_its_own_packets_and_length():
    made = plan(book(source_file("a.m4b", audio=AAC)), Wishes())
    assert (made.method, made.packets, made.timeline.samples) == (Method.COPY, AAC.frames, AAC.samples)
    assert not any("padding" in warning for warning in made.warnings)


def test_joined_copies_keep_the_padding_between_them_and_say_so():
    files = [source_file(f"{at}.m4a", audio=AAC) for at in (1, 2, 3)]
    made = plan(book(*files), Wishes())
    between = 2 * (AAC.start_skip + AAC.end_discard)
    assert made.timeline.samples == 3 * AAC.samples + between
    assert made.packets == 3 * AAC.frames
    first_excess = AAC.end_discard
    assert [chapter.start for chapter in made.chapters][1] == AAC.samples + first_excess
    (warning,) = [warning for warning in made.warnings if "padding" in warning]
    assert f"{1000 * between / 44100:.0f} ms" in warning


def test_the_same_book_planned_again_has_the_same_id():
    files = [source_file("01.mp3"), source_file("02.mp3")]
    assert plan(book(*files), Wishes()).id == plan(book(*files), Wishes()).id
    assert len(plan(book(*files), Wishes()).id) == 16


def test_warnings_do_not_change_the_id():
    one = book()
    assert plan(one, Wishes()).id == plan(replace(one, warnings=("Something odd.",)), Wishes()).id


@pytest.mark.parametrize(
    "wishes",
    [
        Wishes(encode=EncodeWishes(bit_rate=48000)),
        Wishes(encode=EncodeWishes(channels=2)),
        Wishes(encode=EncodeWishes(sample_rate=22050)),
        Wishes(encode=EncodeWishes(aac_coder="twoloop")),
        Wishes(template="{title}/{title}.m4b"),
        Wishes(metadata_json="always"),
        Wishes(output="Elsewhere/Title.m4b"),
        Wishes(order=("02.mp3", "01.mp3")),
    ],
    ids=str,
)
def test_whatever_decides_the_bytes_changes_the_id(wishes):
    one = book(source_file("01.mp3", artist="Ann Author", album="Title"), "02.mp3")
    assert plan(one, wishes).id != plan(one, Wishes()).id


def test_other_content_is_another_book():
    assert plan(book("01.mp3", "02.mp3"), Wishes()).id != plan(book("01.mp3", "03.mp3"), Wishes()).id


def test_the_picture_called_cover_beside_the_audio_comes_first():
    pictures = [cover("z.jpg"), cover("sub/cover.jpg"), cover("Folder.jpg"), cover("Cover.PNG")]
    files = [source_file("01.mp3", cover="0" * 64)]
    chosen = [plan(book(*files, sidecars=pictures[: at + 1]), Wishes()).cover.path for at in range(4)]
    assert chosen == ["z.jpg", "z.jpg", "Folder.jpg", "Cover.PNG"]


def test_without_a_picture_the_first_files_own_is_taken_or_none():
    files = [source_file("01.mp3"), source_file("02.mp3", cover="1" * 64), source_file("03.mp3", cover="2" * 64)]
    made = plan(book(*files), Wishes()).cover
    assert (made.path, made.embedded) == ("02.mp3", True)
    assert plan(book(), Wishes()).cover is None


def test_another_picture_under_the_same_name_makes_another_book():
    file = source_file("01.mp3")
    beside = [book(file, sidecars=[cover("cover.jpg", digit * 64)]) for digit in "aab"]
    inside = [book(replace(file, tags=replace(file.tags, cover=digit * 64))) for digit in "aab"]
    for sources in (beside, inside):
        first, same, other = (plan(one, Wishes()) for one in sources)
        assert first.id == same.id != other.id
        assert (first.cover.sha256, other.cover.sha256) == ("a" * 64, "b" * 64)


def test_a_picture_that_is_not_chosen_does_not_change_the_book():
    file = source_file("01.mp3")
    chosen = cover("cover.jpg")
    ids = {plan(book(file, sidecars=[chosen, cover("z.jpg", digit * 64)]), Wishes()).id for digit in "ab"}
    assert len(ids) == 1


def test_the_path_that_its_owner_asked_for_stands_in_for_the_template():
    wishes = Wishes(output="Shelf/Emma", template="{title}/{title}.m4b")
    assert plan(book(), wishes).target == "Shelf/Emma.m4b"
    with pytest.raises(NeedsAttention) as caught:
        plan(book(), replace(wishes, output="../Emma"))
    assert caught.value.code == "output.unusable"


def test_the_files_are_played_as_their_owner_listed_them():
    files = [source_file(f"{number}.mp3", track=number) for number in (1, 2, 3)]
    made = plan(book(*files), Wishes(order=("3.mp3", "1.mp3", "2.mp3")))
    assert made.order.files == (2, 0, 1)
    with pytest.raises(NeedsAttention) as caught:
        plan(book(*files), Wishes(order=("3.mp3",)))
    assert caught.value.code == "order.not_these"


# --- what goes beside the book -----------------------------------------------------------------------------------------


def beside(path, kind=SidecarKind.DOCUMENT):
    return Sidecar(path=path, identity=identity(), kind=kind)


def documents(*sidecars, **tags):
    made = plan(source(source_file("a.m4b", audio=AAC, **({"album": "Emma"} | tags)), sidecars=sidecars), Wishes())
    stem = made.target.rpartition("/")[2].removesuffix(".m4b")
    return [(one.path, one.name.removeprefix(stem)) for one in made.documents]


def test_a_companion_and_the_notes_are_named_after_the_book():
    notes = beside("x-annotations.json", SidecarKind.ANNOTATIONS)
    assert documents(beside("x.pdf"), notes, cover("cover.jpg")) == [
        ("x.pdf", ".pdf"),
        ("x-annotations.json", ".annotations.json"),
    ]
    assert documents(cover("cover.jpg"), beside("a.key", SidecarKind.KEY)) == []


def test_of_several_companions_each_keeps_its_name():
    assert documents(beside("Map.pdf"), beside("a/Family: tree.PDF")) == [
        ("Map.pdf", " - Map.pdf"),
        ("a/Family: tree.PDF", " - Family - tree.pdf"),
    ]


def test_companions_of_one_name_are_all_there():
    """The last of them took the place of the others."""
    assert documents(beside("1/Map.pdf"), beside("2/map.pdf"), beside("3/MAP.PDF")) == [
        ("1/Map.pdf", " - Map.pdf"),
        ("2/map.pdf", " - map (2).pdf"),
        ("3/MAP.PDF", " - MAP (3).pdf"),
    ]


def test_long_names_of_companions_fit_into_a_file_system():
    """Title and name of the PDF together were longer than 255 bytes, and no book was made."""
    paths = [f"{letter}{'ö' * 100}.pdf" for letter in "abc"] + ["t.pdf"]
    made = plan(
        source(source_file("a.m4b", audio=AAC, album="T" * 250), sidecars=[beside(path) for path in paths]), Wishes()
    )
    names = [one.name for one in made.documents]
    assert [one.path for one in made.documents] == paths
    assert len({name.casefold() for name in names}) == 4
    assert all(len(name.encode()) <= 200 for name in names)


@given(st.lists(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=()), max_size=80), max_size=5))
def test_whatever_companions_are_called_each_has_a_safe_name_of_its_own(names):
    paths = [f"{at}/{name}.pdf" for at, name in enumerate(names)]
    made = plan(
        source(source_file("a.m4b", audio=AAC, album="Emma"), sidecars=[beside(path) for path in paths]), Wishes()
    )
    found = [one.name for one in made.documents]
    assert [one.path for one in made.documents] == paths
    assert len({name.casefold() for name in found}) == len(paths)
    for name in found:
        assert name.startswith("Emma")
        assert name.endswith(".pdf")
        assert len(name.encode()) < 255
        assert not set(name) & set('/\\:*?"<>|\n')


def test_another_companion_makes_another_book():
    one = source(source_file("a.m4b", audio=AAC))
    with_map = replace(one, sidecars=(beside("Map.pdf"),))
    assert plan(one, Wishes()).id != plan(with_map, Wishes()).id
    assert plan(with_map, Wishes()).id == plan(with_map, Wishes()).id
