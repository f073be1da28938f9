"""Is everything that tags say read, is nothing hostile believed, and does a book hold what was asked for?"""

from __future__ import annotations

import hashlib
import pickle
import struct
import time
import zlib

import av
import numpy as np
import pytest
from mutagen.apev2 import APEv2
from mutagen.id3 import (
    APIC,
    CHAP,
    COMM,
    CTOC,
    ID3,
    MVIN,
    MVNM,
    TALB,
    TCOM,
    TCON,
    TDES,
    TDRC,
    TIT1,
    TIT2,
    TIT3,
    TPE1,
    TPE2,
    TPOS,
    TPUB,
    TRCK,
    TXXX,
    CTOCFlags,
)
from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm

from aiom4b.adapters import tags
from aiom4b.adapters.tags import regions
from aiom4b.errors import NeedsAttention
from aiom4b.models import BookId, Codec, FileTags, Mark, Metadata, SeriesEntry

AUDIO = (b"\xff\xfb\x90\x64" + bytes(413)) * 4
BOOK_ID = BookId("0123456789abcdef")
FULL = Metadata(
    title="The Title",
    subtitle="A Subtitle",
    authors=("Jane Doe", "John Roe"),
    narrators=("Ann Reader", "Bob Voice"),
    series=(SeriesEntry(name="Saga", part="1.5"),),
    genres=("Sci-Fi/Fantasy", "Novel"),
    year="2021-05-04",
    description="Text.\n\n" + "ä" * 800,
    publisher="House",
    language="English",
    asin="B012345678",
    isbn="9780000000000",
    copyright="2021 House",
)


@pytest.fixture
def mp3(tmp_path):
    def make(*frames, version=4, head=b"", tail=b""):
        path = tmp_path / "a.mp3"
        path.write_bytes(head + AUDIO)
        if frames:
            written = ID3()
            for frame in frames:
                written.add(frame)
            if version == 3:
                written.update_to_v23()
            written.save(path, v2_version=version)
        with open(path, "ab") as file:
            file.write(tail)
        return str(path)

    return make


@pytest.fixture
def m4b(tmp_path):
    path = str(tmp_path / "book.m4b")
    with av.open(path, "w", format="ipod", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def id3(body, version=4, size=None, flags=0):
    size = len(body) if size is None else size
    return b"ID3" + bytes([version, 0, flags]) + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + body


def frame(name, data, flags=0):
    return name + struct.pack(">IH", len(data), flags) + data


def read(path):
    return tags.read_tags(path, Codec.MP3)


@pytest.mark.parametrize("version", [3, 4])
def test_every_field_is_read(mp3, version):
    found = read(
        mp3(
            TIT2(3, "Chapter 1"), TALB(3, "Book"), TPE1(3, ["Jane", "John"]), TPE2(3, "Jane"), TCOM(3, "Ann"),
            TXXX(3, "Narrator", "Bob"), TIT3(3, "Sub"), TXXX(3, "series", "Saga"), TXXX(3, "SERIES_PART", "1.5"),
            TCON(3, "(101)"), TDRC(3, "2001-02-03"), TDES(3, "Line\nbreak"), COMM(3, "eng", "iTunSMPB", "00 00"),
            COMM(3, "eng", "", "A comment"), TPUB(3, "House"), TXXX(3, "LANGUAGE", "German"), TXXX(3, "ISBN", "978"),
            TXXX(3, "AUDIBLE_ASIN", "B0"), TRCK(3, "03/12"), TPOS(3, "1/2"),
            version=version,
        )
    )  # fmt: skip
    assert found == FileTags(
        title="Chapter 1", album="Book", artist=found.artist, album_artist="Jane", composer="Ann", narrator="Bob",
        subtitle="Sub", series="Saga", series_part="1.5", genre="Speech", date="2001-02-03", description="Line\nbreak",
        comment="A comment", publisher="House", language="German", isbn="978", asin="B0",
        track=3, track_total=12, disc=1, disc_total=2,
    )  # fmt: skip
    assert found.artist == ("Jane; John" if version == 4 else "Jane/John")
    assert pickle.loads(pickle.dumps(found)) == found


def test_an_asin_is_the_same_however_it_is_written(mp3):
    assert read(mp3(TXXX(3, "ASIN", "b00aiom4b1"))).asin == "B00AIOM4B1"


def test_what_programs_note_for_themselves_is_no_comment(mp3):
    assert read(mp3(COMM(3, "eng", "iTunNORM", "00 00"))).comment == ""


def test_a_composer_is_not_taken_for_the_narrator(mp3):
    assert read(mp3(TCOM(3, "Ann"))).narrator == ""


def test_a_file_without_tags_says_nothing(mp3):
    assert read(mp3()) == FileTags()


def test_a_2_2_tag_is_read(mp3):
    body = b"TT2\0\0\x06\0Title" + b"TRK\0\0\x05\x003/12"
    found = read(mp3(head=id3(body, version=2)))
    assert (found.title, found.track, found.track_total) == ("Title", 3, 12)


def test_an_unsynchronised_tag_is_read(mp3):
    data = b"\x01" + "ÿþ".encode("utf-16")
    body = frame(b"TIT2", data).replace(b"\xff", b"\xff\0")
    assert read(mp3(head=id3(body, version=3, flags=0x80))).title == "ÿþ"


def test_an_old_tag_at_the_end_fills_what_the_new_one_lacks(mp3):
    v1 = b"TAG" + b"Old title".ljust(30, b"\0") + b"Old artist".ljust(30, b"\0") + bytes(30) + b"1999"
    v1 += b"cut comment".ljust(28, b"\0") + b"\0\x07\x65"
    found = read(mp3(TIT2(3, "New title"), tail=v1))
    assert (found.title, found.artist, found.date, found.track) == ("New title", "Old artist", "1999", 7)
    assert found.genre == "Speech"


def test_ape_is_weaker_than_id3(mp3):
    path = mp3(TIT2(3, "From ID3"))
    ape = APEv2()
    ape.update({"Title": "From APE", "Narrator": "Ann", "Track": "4/9"})
    ape.save(path)
    found = read(path)
    assert (found.title, found.narrator, found.track, found.track_total) == ("From ID3", "Ann", 4, 9)


def test_an_ape_tag_before_an_old_tag_is_read(mp3):
    path = mp3()
    ape = APEv2()
    ape["Album"] = "From APE"
    ape.save(path)
    with open(path, "ab") as file:
        file.write(b"TAG" + bytes(125))
    assert read(path).album == "From APE"


def test_titles_in_a_wrong_code_page_are_repaired_by_all_the_texts_together(mp3):
    def wrong(value):
        return value.encode("cp1251").decode("latin-1")

    chapter = CHAP("c1", 0, 1000, sub_frames=[TIT2(0, wrong("Том 2"))])
    found = read(mp3(TIT2(0, wrong("Том 1")), TALB(0, wrong("Война и мир")), TPE1(3, "Ægir"), chapter))
    assert (found.title, found.album, found.artist) == ("Том 1", "Война и мир", "Ægir")
    assert found.chapters[0].title == "Том 2"


def test_controls_in_tags_are_removed(mp3):
    assert read(mp3(TIT2(3, "a\x1b[0m\u202e b\r\nc"))).title == "a[0m b c"


@pytest.mark.parametrize("grouping", [TIT1(3, "Saga #2; Other #3.5")])
def test_a_grouping_with_numbers_is_a_series(mp3, grouping):
    found = read(mp3(grouping))
    assert (found.series, found.series_part) == ("Saga; Other", "2; 3.5")


def test_a_grouping_without_a_number_is_no_series(mp3):
    assert read(mp3(TIT1(3, "Audiobooks"))).series == ""


def test_movements_are_a_series(mp3):
    found = read(mp3(MVNM(3, "Saga"), MVIN(3, "2/5")))
    assert (found.series, found.series_part) == ("Saga", "2")


@pytest.mark.parametrize(
    ("written", "expected"), [("0", (None, None)), ("7", (7, None)), ("A1", (None, None)), ("03 of 12", (3, 12))]
)
def test_track_numbers_as_people_write_them(mp3, written, expected):
    found = read(mp3(TRCK(3, written)))
    assert (found.track, found.track_total) == expected


def test_chapters_are_ordered_by_start_then_by_the_contents(mp3):
    found = read(
        mp3(
            CTOC("toc", CTOCFlags.TOP_LEVEL | CTOCFlags.ORDERED, ["b", "a", "c"]),
            CHAP("c", 5000, 9000, sub_frames=[TIT2(3, "3rd")]),
            CHAP("a", 0, 5000, sub_frames=[TIT2(3, "2nd")]),
            CHAP("b", 0, 5000, sub_frames=[TIT2(3, "1st")]),
            CHAP("d", 0xFFFFFFFF, 0xFFFFFFFF),
        )
    )
    assert found.chapters == (
        Mark(start_us=0, title="1st"),
        Mark(start_us=0, title="2nd"),
        Mark(start_us=5_000_000, title="3rd"),
    )
    assert found.title == ""


def test_overdrive_markers_are_read_though_they_are_no_xml(mp3):
    xml = (
        "<Markers><Marker><Name>Tom &amp; Jerry &nbsp;& Co</Name><Time>0:00.000</Time></Marker>"
        "<Marker><Name>Late</Name><Time>1:02:03.5</Time></Marker><Marker><Time>10:00</Time><Name>Two</Name></Marker>"
        "<Marker><Name>Never</Name><Time>soon</Time></Marker></Markers>"
    )
    assert read(mp3(TXXX(3, "OverDrive MediaMarkers", xml))).markers == (
        Mark(start_us=0, title="Tom & Jerry & Co"),
        Mark(start_us=600_000_000, title="Two"),
        Mark(start_us=3_723_500_000, title="Late"),
    )


def test_the_front_cover_is_taken_else_the_largest(mp3):
    large, front = b"large picture", b"front"
    path = mp3(APIC(3, "image/png", 4, "back", large), APIC(3, "image/png", 3, "front", front))
    assert tags.embedded_cover(path, Codec.MP3) == front
    assert read(path).cover == hashlib.sha256(front).hexdigest()
    path = mp3(
        APIC(3, "image/png", 0, "b", large),
        APIC(3, "image/png", 4, "c", b"small"),
        APIC(3, "-->", 3, "", b"http://x/" * 9),
    )
    assert tags.embedded_cover(path, Codec.MP3) == large
    assert tags.embedded_cover(mp3(), Codec.MP3) is None


def test_an_enormous_picture_is_left_out(mp3):
    path = mp3(APIC(3, "image/png", 3, "", bytes((20 << 20) + 1)))
    assert tags.embedded_cover(path, Codec.MP3) is None
    assert "20 MiB" in read(path).warnings[0]


def test_an_enormous_tag_is_skipped_with_a_warning(mp3):
    path = mp3(head=id3(b"", size=200 << 20))
    assert "200 MiB" in read(path).warnings[0]


def test_a_tag_cut_off_by_the_end_of_the_file_gives_what_it_still_holds(mp3):
    path = mp3(head=id3(frame(b"TIT2", b"\0Title"), size=100_000))
    found = read(path)
    assert found.title == "Title"
    assert found.warnings


@pytest.mark.parametrize("version", [3, 4])
def test_a_tag_of_countless_frames_is_not_parsed(mp3, version):
    found = read(mp3(head=id3(frame(b"TIT2", b"\0T") * (regions.ITEM_LIMIT + 1), version=version)))
    assert found.title == ""
    assert "frames" in found.warnings[0]


def test_frames_are_counted_by_the_sizes_that_2_4_prescribes_too(mp3):
    long = b"TXXX" + bytes([0, 0, 1, 72, 0, 0]) + b"\0" + b"x" * 199
    assert "frames" in read(mp3(head=id3(long + frame(b"TIT2", b"\0T") * regions.ITEM_LIMIT))).warnings[0]


def test_a_packed_frame_is_read_but_a_bomb_is_not(mp3):
    small = struct.pack(">I", 6) + zlib.compress(b"\0Title")
    assert read(mp3(head=id3(frame(b"TIT2", small, 0x80), version=3))).title == "Title"
    bomb = struct.pack(">I", 1) + zlib.compress(bytes(17 << 20))
    assert "unpacks" in read(mp3(head=id3(frame(b"TIT2", bomb, 0x80), version=3))).warnings[0]


def test_no_damage_to_a_tag_ever_raises(mp3):
    rng = np.random.default_rng(1)
    good = ID3()
    for one in (
        TIT2(3, "T"),
        CHAP("c", 0, 1, sub_frames=[TIT2(3, "x")]),
        APIC(3, "image/png", 3, "", b"p" * 50),
        TRCK(3, "1"),
    ):
        good.add(one)
    path = mp3()
    good.save(path)
    with open(path, "rb") as file:
        data = np.frombuffer(file.read(), np.uint8)
    for _ in range(200):
        bad = data.copy()
        bad[rng.integers(0, 200, 6)] = rng.integers(0, 256, 6)
        with open(path, "wb") as file:
            file.write(bad.tobytes())
        read(path)


def test_a_broken_ape_key_costs_no_time(mp3):
    footer = b"APETAGEX" + struct.pack("<IIII", 2000, regions.APE_LIMIT, 1, 0) + bytes(8)
    path = mp3(tail=struct.pack("<II", 4, 0) + b"k" * (regions.APE_LIMIT - 40) + footer)
    started = time.process_time()
    assert read(path).warnings
    assert time.process_time() - started < 15


def test_a_missing_file_is_an_error_and_not_an_empty_tag(tmp_path):
    with pytest.raises(NeedsAttention) as caught:
        read(str(tmp_path / "none.mp3"))
    assert caught.value.code == "file.missing"


def test_mp4_tags_are_read(m4b):
    book = MP4(m4b)
    book.tags.update(
        {
            "©nam": ["T"],
            "©alb": ["B"],
            "©ART": ["A1", "A2"],
            "trkn": [(1, 3)],
            "desc": ["d"],
            "©mvn": ["Saga"],
            "©mvi": [4],
        }
    )
    book.tags["----:com.apple.iTunes:Narrator"] = [MP4FreeForm("Zoë".encode())]
    book.tags["covr"] = [MP4Cover(b"first"), MP4Cover(b"second, larger")]
    book.save()
    found = tags.read_tags(m4b, Codec.AAC)
    assert (found.title, found.album, found.artist, found.narrator) == ("T", "B", "A1; A2", "Zoë")
    assert (found.series, found.series_part, found.track, found.track_total) == ("Saga", "4", 1, 3)
    assert tags.embedded_cover(m4b, Codec.AAC) == b"first"
    assert found.warnings == ()


def test_something_else_than_mp4_says_nothing(tmp_path):
    path = tmp_path / "a.m4a"
    for data in (b"", b"RIFF" * 100, struct.pack(">I4s", 8, b"moov") * 10_000, struct.pack(">I4sQ", 1, b"moov", 2**63)):
        path.write_bytes(data)
        assert tags.read_tags(str(path), Codec.AAC).title == ""


def test_the_atoms_of_a_book():
    free = "----:com.apple.iTunes:"
    assert tags.book_tags(FULL, book_id=BOOK_ID, tool="aiom4b 1") == {
        "©nam": "The Title", "©alb": "The Title", "©ART": "Jane Doe; John Roe", "aART": "Jane Doe; John Roe",
        "©wrt": "Ann Reader; Bob Voice", "©gen": "Sci-Fi; Fantasy; Novel", "©day": "2021",
        "desc": FULL.description, "ldes": FULL.description, "cprt": "2021 House", "©too": "aiom4b 1",
        free + "SUBTITLE": "A Subtitle", free + "PUBLISHER": "House", free + "LANGUAGE": "English",
        free + "ASIN": "B012345678", free + "ISBN": "9780000000000", free + "SERIES": "Saga", free + "SERIES-PART": "1.5",
        "----:com.aiom4b:BOOK_ID": BOOK_ID, "stik": 2, "pgap": True,
    }  # fmt: skip


def test_what_is_unknown_is_absent_from_a_book():
    found = tags.book_tags(Metadata(title="T"), book_id=BOOK_ID, tool="x")
    assert set(found) == {"©nam", "©alb", "©too", "----:com.aiom4b:BOOK_ID", "stik", "pgap"}


def test_several_series_never_swap_their_numbers():
    def written(*series):
        found = tags.book_tags(Metadata(series=series), book_id=BOOK_ID, tool="x")
        return {key.rpartition(":")[2]: value for key, value in found.items() if "SERIES" in key or key == "©grp"}

    one, two, three = SeriesEntry(name="A", part="1"), SeriesEntry(name="B", part="2"), SeriesEntry(name="C")
    assert written(one, two) == {"SERIES": "A; B", "SERIES-PART": "1; 2"}
    assert written(three) == {"SERIES": "C"}
    assert written(three, one) == {"©grp": "C; A #1"}


def test_a_book_holds_exactly_what_was_written(m4b):
    with av.open(m4b) as container:
        before = [bytes(packet) for packet in container.demux(audio=0)]
    wanted = tags.book_tags(FULL, book_id=BOOK_ID, tool="aiom4b 1")
    tags.write_tags(m4b, wanted, b"\xff\xd8\xff cover")
    assert tags.read_back(m4b) == wanted | {"covr": hashlib.sha256(b"\xff\xd8\xff cover").hexdigest()}
    assert tags.book_id_of(m4b) == BOOK_ID
    with av.open(m4b) as container:
        assert [bytes(packet) for packet in container.demux(audio=0)] == before


def test_writing_replaces_whatever_was_there_and_gives_the_same_bytes(m4b):
    wanted = tags.book_tags(FULL, book_id=BOOK_ID, tool="aiom4b 1")
    tags.write_tags(m4b, wanted, b"\x89PNG cover")
    with open(m4b, "rb") as file:
        first = file.read()
    tags.write_tags(m4b, {"©nam": "other", "©cmt": "left over"}, None)
    assert tags.read_back(m4b) == {"©nam": "other", "©cmt": "left over"}
    tags.write_tags(m4b, wanted, b"\x89PNG cover")
    with open(m4b, "rb") as file:
        assert file.read() == first


def test_two_values_of_one_atom_are_not_taken_for_one(m4b):
    tags.write_tags(m4b, {"©ART": "A; B"}, None)
    book = MP4(m4b)
    book.tags["©ART"] = ["A", "B"]
    book.save()
    assert tags.read_back(m4b)["©ART"] != "A; B"


def test_a_file_that_is_no_book_of_ours_has_no_id(m4b, mp3):
    assert tags.book_id_of(m4b) is None
    assert tags.book_id_of(mp3(TIT2(3, "x"))) is None
    tags.write_tags(m4b, {"----:com.aiom4b:BOOK_ID": "../../etc"}, None)
    assert tags.book_id_of(m4b) is None


def test_tags_are_not_written_into_something_else(mp3):
    with pytest.raises(NeedsAttention) as caught:
        tags.write_tags(mp3(), {"©nam": "x"}, None)
    assert caught.value.code == "tags.not_written"
