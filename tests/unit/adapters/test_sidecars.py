"""Do the files beside the audio give the evidence that they hold, and never trouble?"""

from __future__ import annotations

import json
import os
import pickle

import pytest

from aiom4b.adapters import sidecars
from aiom4b.adapters.files import identity
from aiom4b.adapters.sidecars.evidence import TEXT_LIMIT
from aiom4b.models import ChapterList, Evidence, Mark, Metadata, SeriesEntry, Sidecar, SidecarKind


@pytest.fixture
def evidence(tmp_path):
    def gather(files, audio=("book.mp3",)):
        found = []
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            found.append(Sidecar(path=name, identity=identity(os.stat(path)), kind=sidecars.kind_of(name)))
        return sidecars.read_evidence(str(tmp_path), tuple(found), tuple(audio))

    return gather


def marks(*pairs):
    return tuple(Mark(start_us=round(seconds * 1_000_000), title=title) for seconds, title in pairs)


def only(evidence_found):
    assert evidence_found.warnings == ()
    [(_, metadata)] = evidence_found.metadata
    return metadata


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cover.jpg", "cover"), ("Folder.JPG", "cover"), ("CD1/any.webp", "cover"), ("back.jpg", "other"),
        ("AlbumArtSmall.jpg", "other"), ("._cover.jpg", "other"), ("a.CUE", "cue"), ("chapters.txt", "chapters"),
        ("Book.chapters.txt", "chapters"), ("ffmetadata.txt", "chapters"), ("x.ffmeta", "chapters"), ("a.m3u8", "playlist"),
        ("a.pls", "playlist"), ("metadata.json", "metadata"), ("other.json", "other"), ("metadata.opf", "metadata"),
        ("desc.txt", "metadata"), ("reader.txt", "metadata"), ("x.nfo", "metadata"), ("notes.txt", "other"), ("b.pdf", "document"),
            ("Emma-AAX_44_128.voucher", "key"), ("Emma [B1].KEY", "key"), ("Emma-chapters.json", "chapters"),
            ("Emma-annotations.json", "annotations"), ("B1-item.json", "metadata"), ("Emma [B1].metadata.json", "metadata"),
    ],
)  # fmt: skip
def test_a_name_tells_what_a_file_is_for(name, kind):
    assert sidecars.kind_of(name) is SidecarKind(kind)


def test_nothing_beside_the_audio_is_no_evidence(evidence):
    assert evidence({"cover.jpg": "not read", "notes.txt": "not read"}) == Evidence()


# --- chapters ---------------------------------------------------------------------------------------------------------


def test_a_cue_over_several_files_is_one_list_for_each(evidence):
    sheet = """\ufeffTITLE "Whole"
FILE "Disc 1.wav" WAVE
  TRACK 01 AUDIO
    TITLE "One"
    INDEX 01 00:00:00
  TRACK 02 AUDIO
    TITLE "Two"
    INDEX 00 71:58:00
    INDEX 01 72:00:15
  TRACK 03 AUDIO
    TITLE "Three"
    INDEX 00 80:00:00
FILE DISC 2.MP3 MP3
    INDEX 01 00:00:00
FILE "gone.wav" WAVE
  TRACK 04 AUDIO
    INDEX 01 00:00:00
"""
    found = evidence({"x.cue": sheet}, ("disc 1.mp3", "disc 2.mp3"))
    assert found.chapters == (
        ChapterList(origin="x.cue", file="disc 1.mp3", marks=marks((0, "One"), (4320.2, "Two"))),
        ChapterList(origin="x.cue", file="disc 2.mp3", marks=marks((0, "Three"))),
    )
    assert "gone.wav" in found.warnings[0]


def test_a_cue_in_another_encoding_in_a_sub_folder_means_the_file_beside_it(evidence):
    sheet = 'FILE "Teil.mp3" MP3\nTRACK 01 AUDIO\nTITLE "Für dich"\nINDEX 01 00:01:00'.encode("cp1252")
    found = evidence({"CD2/a.cue": sheet}, ("CD1/Teil.mp3", "CD2/Teil.mp3"))
    assert found.chapters == (ChapterList(origin="CD2/a.cue", file="CD2/Teil.mp3", marks=marks((1, "Für dich"))),)


def test_a_name_that_fits_two_files_means_neither(evidence):
    found = evidence({"a.cue": 'FILE "t.mp3" MP3\nTRACK 01 AUDIO\nINDEX 01 0:0:0'}, ("CD1/t.mp3", "CD2/t.mp3"))
    assert found.chapters == ()
    assert found.warnings


FORMS = {
    "lines": "# a comment\n00:00:00.000 One\n00:01:02.500 - Two\n1:00:00 Three\nnonsense\n",
    "ogm": "CHAPTER01=00:00:00.000\nCHAPTER01NAME=One\nCHAPTER02=00:01:02.500\nCHAPTER02NAME=Two\nCHAPTER03=01:00:00.000\nCHAPTER03NAME=Three",
    "labels": "0.000000\t62.5\tOne\n62,500000\t3600\tTwo\n3600\t3601\tThree\n",
    "ffmetadata": ";FFMETADATA1\ntitle=Book\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=62500\ntitle=One\n"
    "[CHAPTER]\nSTART=62500000000\nEND=5\ntitle=Two\n[CHAPTER]\nTIMEBASE=1/2\nSTART=7200\n;x\ntitle=Three\n[STREAM]\ntitle=no\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_chapter_list_is_read(evidence, form):
    found = evidence({"chapters.txt": FORMS[form]}, ("1.mp3", "2.mp3"))
    expected = marks((0, "One"), (62.5, "Two"), (3600, "Three"))
    assert found == Evidence(chapters=(ChapterList(origin="chapters.txt", file=None, marks=expected),))


def test_escapes_in_ffmetadata_are_undone(evidence):
    written = ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=1\ntitle=a\\=b \\; c \\# \\\\ two\\\nlines [x]\n"
    assert evidence({"a.ffmeta": written}).chapters[0].marks == marks((1, "a=b ; c # \\ two lines [x]"))


@pytest.mark.parametrize(
    ("name", "audio", "file"),
    [
        ("chapters.txt", ("1.mp3", "2.mp3"), None),
        ("2.chapters.txt", ("1.mp3", "2.mp3"), "2.mp3"),
        ("chapters.txt", ("1.mp3",), "1.mp3"),
        ("CD2/chapters.txt", ("CD1/1.mp3", "CD2/2.mp3"), "CD2/2.mp3"),
        ("CD/chapters.txt", ("CD/1.mp3", "CD/2.mp3"), None),
    ],
)
def test_a_chapter_list_counts_from_the_file_that_it_names(evidence, name, audio, file):
    assert evidence({name: "00:00:00 One"}, audio).chapters[0].file == file


def test_a_chapter_list_of_one_disc_with_several_files_is_not_taken_for_the_book(evidence):
    found = evidence({"CD2/chapters.txt": "00:00:00 One"}, ("CD1/1.mp3", "CD2/1.mp3", "CD2/2.mp3"))
    assert found.chapters == ()
    assert found.warnings


# --- play orders ------------------------------------------------------------------------------------------------------


def test_a_playlist_is_read_whatever_the_case_slashes_and_suffix(evidence):
    written = "#EXTM3U\n#EXTINF:1,x\nCD1\\B.mp3\nfile:///home/me/cd1/a%20b.MP3\nC.flac\nhttp://x/none.mp3\n"
    found = evidence({"x.m3u": written}, ("CD1/a b.mp3", "CD1/b.mp3", "c.mp3"))
    assert found.playlists == (("x.m3u", ("CD1/b.mp3", "CD1/a b.mp3", "c.mp3")),)
    assert "1 of 4" in found.warnings[0]


def test_a_pls_plays_by_its_numbers(evidence):
    found = evidence(
        {"x.pls": "[playlist]\nFile10=c.mp3\nFile2=b.mp3\nTitle2=x\nFile1=a.mp3\n"}, ("a.mp3", "b.mp3", "c.mp3")
    )
    assert found == Evidence(playlists=(("x.pls", ("a.mp3", "b.mp3", "c.mp3")),))


def test_a_playlist_holds_names_that_are_no_utf_8(evidence):
    name = os.fsdecode(b"\xff\xfe.mp3")
    found = evidence({"x.m3u": "01.mp3\n"}, (name, "01.mp3"))
    assert found.playlists == (("x.m3u", ("01.mp3",)),)
    assert pickle.loads(pickle.dumps(found)) == found


# --- metadata ---------------------------------------------------------------------------------------------------------

JSON = {
    "title": "T", "subtitle": None, "authors": ["Dr. Seuss", "King, Jr."], "narrators": [], "series": ["Saga #1.5", "Lone"],
    "genres": ["A", "A"], "publishedYear": 2001, "publishedDate": None, "description": "a\r\n\r\nb", "publisher": "",
    "chapters": [{"id": 0, "start": 0, "end": 62.5, "title": "One"}, {"id": 1, "start": 62.5, "end": 70, "title": "Two"}],
}  # fmt: skip


def test_metadata_json_is_read_with_its_chapters(evidence):
    found = evidence({"metadata.json": json.dumps(JSON)})
    assert only(found) == Metadata(
        title="T",
        authors=("Dr. Seuss", "King, Jr."),
        series=(SeriesEntry(name="Saga", part="1.5"), SeriesEntry(name="Lone")),
        genres=("A",),
        year="2001",
        description="a\n\nb",
    )
    assert found.chapters == (ChapterList(origin="metadata.json", file=None, marks=marks((0, "One"), (62.5, "Two"))),)


@pytest.mark.parametrize("start", ["NaN", "Infinity", "-1", "true", '"0"', "null"])
def test_nonsense_among_the_chapters_costs_the_chapters_and_not_the_rest(evidence, start):
    found = evidence({"metadata.json": f'{{"title": "T", "chapters": [{{"start": {start}, "title": "x"}}]}}'})
    assert found.metadata == (("metadata.json", Metadata(title="T")),)
    assert found.chapters == ()
    assert "no chapters" in found.warnings[0]


OPF2 = """<?xml version="1.0"?><!DOCTYPE package>
<package xmlns="http://www.idpf.org/2007/opf" version="2.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:opf="http://www.idpf.org/2007/opf"><dc:title>T &amp; U</dc:title><dc:creator opf:role="aut" opf:file-as="x">Jane</dc:creator>
<dc:creator opf:role="ill">Nobody</dc:creator><dc:creator opf:role="nrt">Ann</dc:creator><dc:contributor opf:role="bkp">calibre</dc:contributor>
<dc:subject>A</dc:subject><dc:date opf:event="conversion">1999</dc:date><dc:date>2001-01-01</dc:date><dc:language>en</dc:language>
<dc:description>&lt;p&gt;Text&lt;/p&gt;</dc:description><dc:publisher>House</dc:publisher><dc:rights>2001 House</dc:rights>
<dc:identifier opf:scheme="uuid">1-2</dc:identifier><dc:identifier opf:scheme="ISBN">9780000000000</dc:identifier>
<dc:identifier opf:scheme="ASIN">B012345678</dc:identifier>
<meta name="calibre:series" content="Saga"/><meta name="calibre:series_index" content="2.0"/></metadata></package>"""
OPF3 = """<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title id="t1">T &amp; U</dc:title><dc:title id="t2">Sub</dc:title><meta refines="#t2" property="title-type">subtitle</meta>
<dc:creator id="a">Jane</dc:creator><meta refines="#a" property="role" scheme="marc:relators">aut</meta>
<dc:contributor id="n">Ann</dc:contributor><meta refines="#n" property="role">nrt</meta><dc:identifier>urn:isbn:9780000000000</dc:identifier>
<meta property="belongs-to-collection" id="c">Saga</meta><meta refines="#c" property="group-position">2</meta></metadata></package>"""


def test_an_opf_of_version_2_is_read(evidence):
    assert only(evidence({"metadata.opf": OPF2})) == Metadata(
        title="T & U", authors=("Jane",), narrators=("Ann",), series=(SeriesEntry(name="Saga", part="2"),), genres=("A",),
        year="2001", description="<p>Text</p>", publisher="House", language="en", asin="B012345678", isbn="9780000000000",
        copyright="2001 House",
    )  # fmt: skip


def test_an_opf_of_version_3_is_read(evidence):
    assert only(evidence({"book.opf": OPF3})) == Metadata(
        title="T & U", subtitle="Sub", authors=("Jane",), narrators=("Ann",), series=(SeriesEntry(name="Saga", part="2"),),
        isbn="9780000000000",
    )  # fmt: skip


def test_an_opf_can_neither_fetch_nor_grow(evidence, tmp_path):
    (tmp_path / "secret").write_text("SECRET")
    bodies = (f'<!ENTITY e SYSTEM "file://{tmp_path}/secret">', '<!ENTITY a "x"><!ENTITY e "&a;&a;&a;">')
    for body in bodies:
        written = OPF2.replace("<!DOCTYPE package>", f"<!DOCTYPE package [{body}]>").replace("T &amp; U", "&e;")
        found = evidence({"metadata.opf": written})
        assert found.metadata == ()
        assert found.warnings


def test_text_files_give_description_and_readers(evidence):
    found = evidence({"desc.txt": "One\r\ntwo\n", "reader.txt": "Ann Reader, Bob Voice; Doe, Jane\n"})
    assert found.metadata == (
        ("desc.txt", Metadata(description="One\ntwo")),
        ("reader.txt", Metadata(narrators=("Ann Reader", "Bob Voice", "Doe, Jane"))),
    )


def test_an_nfo_of_labels_is_read(evidence):
    nfo = (
        "General Information\n===================\n Title:           T: a story\n Author:  Jane Doe\n Read By......: Ann\n"
        " Series Name: Saga\n Position in Series: 2\n Genre: A, B\n Bitrate: 64\n Copyright: 2001\n\n"
        "Book Description\n================\nFirst line.\nSecond: line.\n"
    )
    assert only(evidence({"x.nfo": nfo})) == Metadata(
        title="T: a story", authors=("Jane Doe",), narrators=("Ann",), series=(SeriesEntry(name="Saga", part="2"),),
        genres=("A", "B"), copyright="2001", description="First line.\nSecond: line.",
    )  # fmt: skip


def test_an_nfo_about_something_else_is_not_believed(evidence):
    found = evidence({"x.nfo": "Greets: everybody\nTitle: only this\nhttp://x.y"})
    assert found.metadata == ()
    assert found.warnings


def test_the_strongest_metadata_stands_first(evidence):
    found = evidence(
        {
            "a.nfo": "Title: N\nAuthor: A B",
            "desc.txt": "D",
            "CD1/metadata.opf": OPF2,
            "metadata.opf": OPF3,
            "metadata.json": '{"title": "J"}',
        }
    )
    assert [origin for origin, _ in found.metadata] == [
        "metadata.json",
        "metadata.opf",
        "CD1/metadata.opf",
        "desc.txt",
        "a.nfo",
    ]


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.json", "{"), ("metadata.json", "[1]"), ("metadata.json", "[" * 100_000), ("metadata.json", '{"other": 1}'),
        ("metadata.json", '{"title": ' + "9" * 5000 + "}"), ("metadata.json", b"\xff\xfe\x00"),
        ("x.opf", "<a>"), ("x.opf", ""),
        ("x.opf", '<?xml version="1.0" encoding="nonsense"?><a/>'), ("chapters.txt", "no times at all"), ("chapters.txt", b"\0\xff" * 99),
        ("chapters.txt", ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/0\nSTART=1\n"), ("desc.txt", " \0 "),
        ("desc.txt", b"x" * (TEXT_LIMIT + 1)), ("chapters.txt", "00:00:01 x\n" * 10_001),
    ],
)  # fmt: skip
def test_a_bad_sidecar_is_a_warning_and_never_an_error(evidence, name, content):
    found = evidence({name: content})
    assert (found.metadata, found.chapters) == ((), ())
    [warning] = found.warnings
    assert warning.startswith(name)


def test_a_sidecar_that_is_a_link_is_not_followed(evidence, tmp_path):
    evidence({"real": "secret"})
    os.symlink(tmp_path / "real", tmp_path / "desc.txt")
    found = evidence({})
    link = Sidecar(path="desc.txt", identity=identity(os.stat(tmp_path / "real")), kind=SidecarKind.METADATA)
    found = sidecars.read_evidence(str(tmp_path), (link,), ())
    assert found.metadata == ()
    assert "not a regular file" in found.warnings[0]
