"""Are keys, chapters and names of Audible's downloads read as their programs wrote them, and anything else without trouble?"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiom4b.adapters import sidecars
from aiom4b.adapters.files import identity
from aiom4b.adapters.sidecars import FoundKey, is_companion, of_voucher, read_keys, stem_of
from aiom4b.adapters.sidecars.audible import AudibleChapters, chapters_of, item
from aiom4b.models import AudibleKey, Lock, Mark, Metadata, Sidecar, SidecarKind

KEY, IV = "8f1d5a0c7be24936a15c3e90d27f6b48", "27c49be8135f0da6e29a714db85c03f6"
OPENED = AudibleKey(key=KEY, iv=IV)
ODD = os.fsdecode(b"B\xfcch \xff")

# --- which files belong together ---------------------------------------------------------------------------------------

OF_A_DOWNLOAD = (
    "-AAX_44_128.aaxc", "-AAX_44_128.voucher", "-AAX_22_64.aaxc", "-LC_128_44100_stereo.aax", "-LC_64_22050_stereo.aax",
    "-AAX_44_128.key", "-LC_128_44100_stereo.key", "-MPEG.mp3", "-MPEG.voucher",
    "-chapters.json", "-annotations.json", "-item.json", "_(252).jpg", "_(500).jpg", "_(1215).jpg", "_(native).jpg", ".pdf",
)  # fmt: skip
OF_LIBATION = (".Aaxc", ".Aax", ".key", ".cue", ".jpg", ".pdf", ".metadata.json", ".m4b")


@pytest.mark.parametrize("base", ["Emma", "Emma: A Novel", "B00AIOM4B1", "a.b c", ODD, "Bücher/Emma", f"{ODD}/{ODD}"])
def test_the_files_of_a_download_have_one_stem(base):
    assert {stem_of(base + ending) for ending in OF_A_DOWNLOAD} == {base}
    assert {stem_of(f"{base} [B00AIOM4B1]{ending}") for ending in OF_LIBATION} == {f"{base} [B00AIOM4B1]"}


@pytest.mark.parametrize(
    "ending", ["-aax_44_128.AAXC", "-CHAPTERS.JSON", "-mpeg.MP3", "_(NATIVE).JPG", ".METADATA.JSON"]
)
def test_case_does_not_matter(ending):
    assert stem_of("Emma" + ending) == "Emma"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Dune_(1984).mp3", "Dune_(1984)"),
        ("Dune_(1984).pdf", "Dune_(1984)"),
        ("Dune_(1984).jpg", "Dune_(1984)"),
        ("Dune_(1984)_(500).jpg", "Dune_(1984)"),
        ("Dune_(1984)-AAX_44_128.aaxc", "Dune_(1984)"),
        ("Route_(500).mp3", "Route_(500)"),
        ("Emma-chapters.mp3", "Emma-chapters"),
        ("Collected-item.aaxc", "Collected-item"),
        ("Talk-MPEG.pdf", "Talk-MPEG"),
        ("Emma-chapters\n.json", "Emma-chapters\n"),
        ("Emma-chapters.json\n", "Emma-chapters"),
        ("-chapters.json", "-chapters"),
        ("_(500).jpg", "_(500)"),
        (".metadata.json", ".metadata"),
        ("Emma", "Emma"),
        ("a/", "a/"),
    ],
)
def test_an_ending_counts_only_where_a_download_has_it(name, stem):
    """The cover of "Dune_(1984).mp3" belonged to "Dune_(2021).mp3" as well."""
    assert stem_of(name) == stem


titles = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=()), min_size=1, max_size=20).filter(
    lambda title: not title.startswith(".")
)
endings = st.sampled_from(OF_A_DOWNLOAD)


@settings(deadline=None)
@given(one=titles, other=titles, ending=endings, another=endings)
def test_two_titles_that_differ_are_never_joined(one, other, ending, another):
    assert is_companion(one + ending, other + another) == (one == other)


@settings(deadline=None)
@given(one=titles, other=titles, ending=endings)
def test_files_in_different_folders_are_never_joined(one, other, ending):
    assert not is_companion(f"{one}/x{ending}", f"{other}/x{ending}") or one == other
    assert not is_companion(f"{one}/x{ending}", f"x{ending}")


@settings(deadline=None)
@given(st.text(st.characters(blacklist_categories=()), max_size=30))
def test_every_name_has_a_stem_in_its_own_folder(name):
    assert os.path.dirname(stem_of(name)) == os.path.dirname(name)
    assert os.path.basename(name).startswith(os.path.basename(stem_of(name)))


# --- keys --------------------------------------------------------------------------------------------------------------


def voucher(key=KEY, iv=IV, **licence):
    return json.dumps({"content_license": {"asin": "B00AIOM4B1", "license_response": {"key": key, "iv": iv}} | licence})


def keys_in(folder, **files):
    """Write files (their names' underscores are dots) and read the keys in them."""
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_keys(str(folder), tuple(name.replace("_", ".") for name in files))


@pytest.mark.parametrize(
    "content",
    [
        voucher(),
        voucher(KEY.upper(), IV.upper()),
        "\ufeff" + voucher(),
        voucher().replace(",", ",\r\n"),
        voucher().encode("utf-16"),
        voucher(chapter_info="x" * 1_000_000),
    ],
    ids=["plain", "upper case", "byte order mark", "CRLF", "UTF-16", "a megabyte"],
)
def test_a_voucher_is_read_however_it_is_written(tmp_path, content):
    found = keys_in(tmp_path, a_voucher=content)
    assert found == (FoundKey(path="a.voucher", lock=Lock.AAXC, asin="B00AIOM4B1", key=OPENED),)


@pytest.mark.parametrize(
    "content",
    [
        f"Key={KEY}\nIV={IV}\n",
        f"Key={KEY.upper()}\r\nIV={IV.upper()}\r\n",
        f"\ufeffKey={KEY}\r\nIV={IV}",
        f"\n  key : {KEY} \n\n IV\t=\t{IV}\t\nAnother=thing\n",
        f"IV={IV}\nKEY={KEY}",
    ],
    ids=["plain", "upper case, CRLF", "byte order mark", "spaces", "the other way round"],
)
def test_libations_key_file_is_read_however_it_is_written(tmp_path, content):
    assert keys_in(tmp_path, a_key=content) == (FoundKey(path="a.key", lock=Lock.AAXC, asin="", key=OPENED),)


@pytest.mark.parametrize("content", ["ActivationBytes=1A2B3C4D", "\ufeffactivationbytes = 1a2b3c4d\r\n"])
def test_activation_bytes_are_read(tmp_path, content):
    (found,) = keys_in(tmp_path, a_key=content)
    assert (found.lock, found.key) == (Lock.AAX, AudibleKey(activation_bytes="1a2b3c4d"))


@pytest.mark.parametrize(
    "content",
    [
        "", "\0", "{", "[]", "null", '"Key"', "[" * 100_000, f"Key={KEY}", f"IV={IV}", f"Key={KEY[:-1]}\nIV={IV}",
        f"Key={KEY}0\nIV={IV}", f"Key={KEY} {IV}\nIV={IV}", f"Key=0x{KEY[2:]}\nIV={IV}", "ActivationBytes=1a2b3c4", "KeyId=1\nKey=2",
        "ActivationBytes=１a2b3c4d", voucher(KEY[:-1]), voucher(KEY, IV + "00"), voucher(KEY, None), voucher(int(KEY, 16)),
        voucher("g" * 32), voucher(KEY + "\n"), voucher([KEY]), voucher(license_response=KEY), voucher(license_response=None),
        voucher(license_response=[{"key": KEY, "iv": IV}]), '{"content_license": []}', '{"content_license": "x"}', b"\xff\xfe\xff",
        '{"content_license": {"license_response": {"key": NaN, "iv": Infinity}}}', "\n" * 5000 + f"Key={KEY}\nIV={IV}",
        voucher(chapter_info="x" * (10 << 20)),
    ],
    ids=lambda content: str(content)[:30].encode("unicode_escape").decode(),
)  # fmt: skip
def test_a_file_without_a_whole_key_holds_none(tmp_path, content):
    assert keys_in(tmp_path, a_key=content) == ()


def test_a_file_that_can_not_be_read_hides_no_other(tmp_path):
    (tmp_path / "a.key").mkdir()
    os.mkfifo(tmp_path / "b.key")
    os.symlink("d.key", tmp_path / "c.key")
    (tmp_path / "d.key").write_text(f"Key={KEY}\nIV={IV}")
    found = read_keys(str(tmp_path), ("a.key", "b.key", "c.key", "d.key", "gone.key", "no/such.key"))
    assert [one.path for one in found] == ["d.key"]


def test_a_key_file_of_any_name_is_read(tmp_path):
    name = ODD + ".voucher"
    (tmp_path / name).write_text(voucher())
    assert [one.path for one in read_keys(str(tmp_path), (name,))] == [name]


@pytest.mark.parametrize(
    ("asin", "told"),
    [("B00AIOM4B1", "B00AIOM4B1"), (None, ""), (7, ""), ("\ud800B\0\n1\u202e", "B 1"), ("B" * 5000, "B" * 1000)],
)
def test_the_title_that_a_voucher_names_can_be_shown(asin, told):
    """It stands in the error for a wrong key: a surrogate in it broke the database."""
    _, found, _ = of_voucher(voucher(asin=asin).encode())
    assert found == told
    found.encode()


def test_no_repr_shows_a_key(tmp_path):
    found = keys_in(tmp_path, a_voucher=voucher(), b_key="ActivationBytes=1a2b3c4d")
    assert len(found) == 2
    assert not re.search("8f1d5a0c|27c49be8|1a2b3c4d", repr(found), re.IGNORECASE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps({"content_license": value}).encode()))
def test_whatever_a_voucher_holds_it_is_a_key_or_none(data):
    found = of_voucher(data)
    assert found is None or re.fullmatch("[0-9a-f]{32}", found[2].key)


# --- chapters ----------------------------------------------------------------------------------------------------------


def chapter(title, start, length=60_000, below=None):
    return {"title": title, "start_offset_ms": start, "length_ms": length} | ({"chapters": below} if below else {})


def document(*chapters, **info):
    told = {"is_accurate": True, "runtime_length_ms": 300_000, "chapters": list(chapters)} | info
    return json.dumps({"content_metadata": {"chapter_info": told}}).encode()


def read(*chapters, **info):
    return [(mark.start_us // 1000, mark.title) for mark in chapters_of(document(*chapters, **info)).marks]


def test_chapters_come_with_the_length_that_they_are_for():
    found = chapters_of(document(chapter("One", 0), chapter(" Two\n", 60_000)))
    assert found == AudibleChapters(
        marks=(Mark(start_us=0, title="One"), Mark(start_us=60_000_000, title="Two")), length_us=300_000_000
    )


def test_chapters_in_a_licence_are_found_too():
    whole = json.loads(document(chapter("One", 0)))
    assert chapters_of(json.dumps({"content_license": whole}).encode()) == chapters_of(document(chapter("One", 0)))


def test_a_short_heading_is_heard_with_its_first_chapter():
    assert read(
        chapter("Part One", 0, 9_999, [chapter("1", 9_999), chapter("2", 70_000)]), chapter("End", 130_000)
    ) == [
        (0, "Part One: 1"),
        (70_000, "Part One: 2"),
        (130_000, "End"),
    ]


def test_a_long_heading_is_a_chapter_by_itself():
    assert read(chapter("Part One", 0, 10_000, [chapter("1", 10_000)])) == [(0, "Part One"), (10_000, "Part One: 1")]


def test_headings_of_headings_are_all_heard_with_the_first_chapter():
    inner = chapter("Part", 3_000, 2_000, [chapter("1", 5_000), chapter("2", 70_000)])
    assert read(chapter("Book", 0, 3_000, [inner])) == [(0, "Book: Part: 1"), (70_000, "Book: Part: 2")]


def test_a_heading_without_a_title_gives_none():
    assert read(chapter("", 0, 1, [chapter("1", 1), chapter("", 9)])) == [(0, "1"), (9, "")]


@pytest.mark.parametrize("title", [None, 7, ["x"], {"a": 1}])
def test_what_is_no_text_is_no_title(title):
    """A chapter without a title was called "None"."""
    assert read(chapter(title, 0)) == [(0, "")]


def test_chapters_are_sorted_by_their_beginnings():
    assert read(chapter("B", 5_000), chapter("A", 0), chapter("C", 5_000), chapter("before", -3)) == [
        (-3, "before"),
        (0, "A"),
        (5_000, "B"),
        (5_000, "C"),
    ]


@pytest.mark.parametrize(
    "data",
    [
        document(is_accurate=False),
        document(chapter("One", 0), is_accurate=False),
        document(chapter("One", 0), is_accurate=None),
        b"{}",
        b'{"content_metadata": null}',
        b'{"content_metadata": {"chapter_info": {"runtime_length_ms": 9, "chapters": []}}}',
        b'{"content_metadata": {}}',
        b'{"content_metadata": {"chapter_info": null}}',
        b'{"content_license": {"content_metadata": {"chapter_info": {}}}}',
    ],
)
def test_without_accurate_chapters_there_are_none(data):
    assert chapters_of(data) is None


def nested(depth):
    found = chapter("deep", 0)
    for _ in range(depth):
        found = chapter("deep", 0, 1, [found])
    return found


ABSURD = {
    "not JSON": b"<html>",
    "a list": b"[]",
    "a number": b"7",
    "not UTF-8": b'{"content_metadata": "\xff"}',
    "nested without end": b"[" * 100_000,
    "a licence that is a list": b'{"content_license": [1]}',
    "information that is a list": b'{"content_metadata": {"chapter_info": [1]}}',
    "chapters that are a text": document(chapters="abc"),
    "chapters that are an object": document(chapters={"a": 1}),
    "chapters that are a number": document(chapters=7),
    "a chapter that is a text": document("abc"),
    "a chapter that is nothing": document(None),
    "no beginning": document({"title": "x", "length_ms": 1}),
    "a beginning in words": document(chapter("x", "0")),
    "no number": document(chapter("x", float("nan"))),
    "an endless beginning": document(chapter("x", float("inf"))),
    "an endless beginning below zero": document(chapter("x", float("-inf"))),
    "a beginning beyond all ages": document(chapter("x", 10**15)),
    "a number of 4000 digits": document(chapter("x", 0)).replace(b'"start_offset_ms": 0', b'"start_offset_ms": ' + b"9" * 4000),
    "a number of 5000 digits": document(chapter("x", 0)).replace(b'"start_offset_ms": 0', b'"start_offset_ms": ' + b"9" * 5000),
    "no length": document(chapter("x", 0), runtime_length_ms=None),
    "an endless length": document(chapter("x", 0), runtime_length_ms=float("inf")),
    "a length beyond all ages": document(chapter("x", 0), runtime_length_ms=1e308),
    "a length in words": document(chapter("x", 0), runtime_length_ms="300000"),
    "below it a text": document({**chapter("x", 0, 1), "chapters": "abc"}),
    "below it an object": document({**chapter("x", 0, 1), "chapters": {"a": 1}}),
    "below it a number": document({**chapter("x", 0, 1), "chapters": 7}),
    "below it a text, heading long": document({**chapter("x", 0), "chapters": "abc"}),
    "a heading without length": document({"title": "x", "start_offset_ms": 0, "chapters": [chapter("y", 0)]}),
    "nine levels": document(nested(8)),
    "two hundred levels": document(nested(200)),
    "too many": document(*(chapter("x", at) for at in range(10_001))),
    "too many below a long title": document(chapter("x" * 5000, 0, 1, [chapter("y" * 900, at) for at in range(10_001)])),
}  # fmt: skip


@pytest.mark.parametrize("absurd", ABSURD)
def test_what_is_no_chapter_data_is_a_value_error(absurd):
    with pytest.raises(ValueError, match=r"\w"):
        chapters_of(ABSURD[absurd])


def test_what_comes_after_too_many_chapters_is_not_looked_at():
    with pytest.raises(ValueError, match="too many"):
        chapters_of(document(*(chapter("x", at) for at in range(10_001)), "nonsense"))


def test_as_many_chapters_as_are_allowed_are_read_and_their_titles_stay_short():
    found = chapters_of(document(chapter("x" * 5000, 0, 1, [chapter("y" * 900, at) for at in range(10_000)])))
    assert len(found.marks) == 10_000
    assert max(len(mark.title) for mark in found.marks) == 1000
    assert len(read(nested(7))) == 1


@settings(deadline=None)
@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_document_holds_it_is_chapters_or_a_value_error(data):
    try:
        found = chapters_of(data)
    except ValueError:
        return
    assert found is None or isinstance(found, AudibleChapters)


fields = st.fixed_dictionaries(
    {},
    optional={
        "title": json_values,
        "start_offset_ms": st.integers() | st.floats() | json_values,
        "length_ms": st.integers() | st.floats() | json_values,
    },
)
trees = st.recursive(
    fields | json_values,
    lambda inside: st.tuples(fields, st.lists(inside, max_size=3) | json_values).map(
        lambda pair: {**pair[0], "chapters": pair[1]}
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    chapters=st.lists(trees, max_size=3) | json_values,
    length=st.integers() | st.floats() | json_values,
    licence=st.booleans(),
)
def test_whatever_the_chapters_are_they_are_marks_in_order_or_a_value_error(chapters, length, licence):
    info = {"is_accurate": True, "runtime_length_ms": length, "chapters": chapters}
    whole = {"content_metadata": {"chapter_info": info}}
    try:
        found = chapters_of(json.dumps({"content_license": whole} if licence else whole).encode())
    except ValueError:
        return
    starts = [mark.start_us for mark in found.marks]
    assert starts == sorted(starts)
    assert all(isinstance(start, int) and abs(start) < 10**15 for start in [*starts, found.length_us])
    for mark in found.marks:
        mark.title.encode()


@settings(deadline=None)
@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_titles_document_holds_it_is_metadata_or_a_value_error(data):
    with suppress(ValueError):
        assert isinstance(item(data), Metadata)


@pytest.mark.parametrize("wrapped", ["", "item", "product"])
def test_a_titles_document_may_be_wrapped_as_the_service_does(wrapped):
    inside = {"title": "Emma", "asin": "B00AIOM4B1"}
    found = item(json.dumps({wrapped: inside} if wrapped else inside).encode())
    assert (found.title, found.asin) == ("Emma", "B00AIOM4B1")


# --- together ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def evidence(tmp_path):
    def gather(files, audio=("Emma-AAX_44_128.aaxc",)):
        found = []
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            found.append(Sidecar(path=name, identity=identity(os.stat(path)), kind=sidecars.kind_of(name)))
        return sidecars.read_evidence(str(tmp_path), tuple(found), tuple(audio))

    return gather


def licensed(*chapters, **info):
    return json.dumps({"content_license": json.loads(document(*chapters, **info))})


def test_chapter_data_counts_from_the_download_it_was_named_like(evidence):
    audio = ("Emma-AAX_44_128.aaxc", "Persuasion-AAX_44_128.aaxc")
    found = evidence({"Persuasion-chapters.json": document(chapter("One", 0))}, audio)
    ((one),) = found.chapters
    assert (one.file, one.origin, one.length_us) == (audio[1], "Persuasion-chapters.json", 300_000_000)
    assert found.warnings == ()


def test_chapter_data_is_right_more_often_than_the_licences(evidence):
    files = {
        "Emma-AAX_44_128.voucher": licensed(chapter("licence", 0)),
        "Emma-chapters.json": document(chapter("data", 0)),
    }
    for some in (files, dict(reversed(files.items()))):
        (one,) = evidence(some).chapters
        assert one.marks[0].title == "data"
    (one,) = evidence({"Emma-AAX_44_128.voucher": files["Emma-AAX_44_128.voucher"]}).chapters
    assert one.marks[0].title == "licence"


def test_inaccurate_data_gives_way_to_the_licences(evidence):
    found = evidence(
        {
            "Emma-AAX_44_128.voucher": licensed(chapter("licence", 0)),
            "Emma-chapters.json": document(chapter("data", 0), is_accurate=False),
        }
    )
    assert [one.marks[0].title for one in found.chapters] == ["licence"]
    assert "inaccurate" in found.warnings[0]


def test_chapters_that_fit_several_files_are_used_for_none_and_said_so(evidence):
    """They were called inaccurate."""
    audio = ("1.aaxc", "2.aaxc")
    found = evidence({"Emma-chapters.json": document(chapter("One", 0))}, audio)
    assert found.chapters == ()
    assert "not clear which" in found.warnings[0]
    twice = evidence(
        {"Emma-chapters.json": document(chapter("One", 0))}, ("Emma-AAX_44_128.aaxc", "Emma-LC_64_22050_stereo.aax")
    )
    assert twice.chapters == ()


def test_the_only_file_of_a_folder_is_meant_whatever_its_name(evidence):
    found = evidence({"CD1/x-chapters.json": document(chapter("One", 0))}, ("CD1/book.aaxc", "CD2/x.aaxc"))
    assert [one.file for one in found.chapters] == ["CD1/book.aaxc"]


@pytest.mark.parametrize("content", ABSURD.values(), ids=ABSURD)
def test_bad_chapter_data_is_a_warning_and_a_bad_licence_not_even_that(evidence, content):
    found = evidence({"Emma-chapters.json": content})
    assert found.chapters == ()
    assert len(found.warnings) == 1
    assert "Emma-chapters.json" in found.warnings[0]
    if len(content) < 1 << 20:
        assert evidence({"Emma-AAX_44_128.voucher": content}).warnings == ()


def test_no_key_stands_in_the_evidence(evidence):
    found = evidence({"Emma-AAX_44_128.voucher": voucher(), "Emma.key": f"Key={KEY}\nIV={IV}\n"})
    assert found.chapters == ()
    assert not re.search("8f1d5a0c|27c49be8", repr(found), re.IGNORECASE)


@pytest.mark.parametrize("name", ["Emma-item.json", "Emma [B1].metadata.json", "B1-ITEM.JSON"])
def test_what_audible_knows_of_a_title_is_evidence(evidence, name):
    found = evidence({name: json.dumps({"title": "Emma", "series": [{"title": "Set", "sequence": "2"}]})})
    ((origin, metadata),) = found.metadata
    assert (origin, metadata.title, metadata.series[0].part) == (name, "Emma", "2")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (ODD + ".voucher", "key"), ("a.KEY", "key"), (".key", "other"), ("._a.voucher", "other"), ("voucher", "other"),
        ("a.key.txt", "other"), ("x-chapters.JSON", "chapters"), ("chapters.json", "other"), ("x-annotations.json", "annotations"),
        ("a/b/x-item.json", "metadata"), ("metadata.json", "metadata"), ("a.PDF", "document"), (".x.pdf", "other"),
        ("keys", "other"), ("a.aaxc", "other"), ("a.voucher.old", "other"),
    ],
)  # fmt: skip
def test_what_a_download_brings_is_known_by_its_name(name, kind):
    assert sidecars.kind_of(name) is SidecarKind(kind)
