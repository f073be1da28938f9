"""Does the finished file present exactly what was put in: its length, its chapters, its packets, and nothing else?"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from mutagen.mp4 import MP4

import books
import sound
from aiom4b.engine import aac, encode, inspect, media, mux
from aiom4b.engine.inspect import Expected, RangeRequest
from aiom4b.errors import NeedsAttention, Transient
from aiom4b.models import Chapter, Encoder, Method, Samples

RATE = 22050


def settings(rate=RATE, channels=1):
    return Encoder(
        bit_rate=32000 * channels, asked=32000 * channels, sample_rate=rate, channels=channels, aac_coder="fast"
    )


def encoded(pcm, encoder):
    whole = np.pad(pcm, ((0, 0), (0, -pcm.shape[1] % 1024)))
    return [packet for group in encode.packets([whole], encoder) for packet in group]


def request(folder, packets, samples, *, chapters=(), encoder=None, cuts=(), name="book.m4b", rate=RATE):
    encoder = encoder or settings(rate)
    places = [0, *cuts, len(packets)]
    pieces = []
    for number, (begin, end) in enumerate(itertools.pairwise(places)):
        path = folder / f"{number}.aac"
        path.write_bytes(aac.with_headers(packets[begin:end], rate, encoder.channels))
        pieces.append(mux.Piece(path=str(path), packets=end - begin, ours=True))
    return mux.MuxRequest(
        folder=str(folder),
        name=name,
        pieces=tuple(pieces),
        stretches=tuple(range(begin, end) for begin, end in itertools.pairwise(places)),
        encoder=encoder,
        sample_rate=rate,
        block=1024,
        priming=Samples(1024),
        samples=Samples(samples),
        chapters=tuple(chapters) or (Chapter(title="One", start=Samples(0)),),
    )


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
@pytest.mark.parametrize("samples", [1, 1023, 1024, 1025, 20001, 30720])
def test_the_presented_length_is_exact_to_the_sample(tmp_path, rate, samples):
    packets = encoded(sound.tone(samples / rate, rate)[:, :samples], settings(rate))
    mux.mux(request(tmp_path, packets, samples, rate=rate))
    facts = inspect.facts(str(tmp_path / "book.m4b"))
    assert (facts.samples, facts.priming, facts.packets) == (samples, 1024, len(packets))
    assert (facts.sample_rate, facts.channels) == (rate, 1)
    data = (tmp_path / "book.m4b").read_bytes()
    assert struct.unpack_from(">II", data, data.index(b"mvhd") + 16) == (rate, samples)  # as other readers see it
    entries, length, begin = struct.unpack_from(">III", data, data.index(b"elst") + 8)
    assert (entries, length, begin) == (1, samples, 1024)


def test_the_priming_is_hidden_from_players(tmp_path):
    voice = sound.speech(3, RATE)
    mux.mux(request(tmp_path, encoded(voice, settings()), voice.shape[1]))
    with open(tmp_path / "book.m4b", "rb") as stream:
        heard = sound.decoded(stream.read(), format="mov")[:, : voice.shape[1]]
    error = heard - voice[:, : heard.shape[1]]
    assert np.vdot(error, error) < 0.2 * np.vdot(voice, voice)  # one block late it would be above 1


@pytest.mark.parametrize("count", [1, 255, 256, 330])
def test_every_chapter_comes_back_to_the_sample(tmp_path, count):
    samples = 30 * RATE + 77
    packets = encoded(sound.silence(samples / RATE, RATE), settings())
    chapters = [Chapter(title=f"Chapter {at}", start=Samples(at * samples // count + at % 2)) for at in range(count)]
    chapters[0] = Chapter(title="Start", start=Samples(0))
    mux.mux(request(tmp_path, packets, samples, chapters=chapters))
    assert inspect.facts(str(tmp_path / "book.m4b")).chapters == tuple(chapters)
    assert len(MP4(tmp_path / "book.m4b").chapters) == min(count, 255)  # the other list, as far as it goes


def test_titles_come_back_as_they_were(tmp_path):
    titles = ["“Quoted” 'and' \"more\"", "😀 emoji 🧀", "日本語", "a" * 300, "back\\slash; semi=colon #hash", "é\u0301"]
    samples = 20000
    chapters = [Chapter(title=title, start=Samples(at * 3000)) for at, title in enumerate(titles)]
    mux.mux(request(tmp_path, encoded(sound.silence(samples / RATE, RATE), settings()), samples, chapters=chapters))
    assert [one.title for one in inspect.facts(str(tmp_path / "book.m4b")).chapters] == titles


def test_the_bytes_depend_on_the_request_alone(tmp_path, monkeypatch):
    voice = sound.speech(2, RATE)
    packets = encoded(voice, settings())
    folders = [tmp_path / "a", tmp_path / "another longer name"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        monkeypatch.setenv("TZ", ("UTC", "Asia/Tokyo")[number])
        mux.mux(request(folder, packets, voice.shape[1], cuts=((), (7, 8, 30))[number]))
    one, two = ((folder / "book.m4b").read_bytes() for folder in folders)
    assert one == two
    assert b"Lavf" not in one


def test_the_pieces_are_laid_in_order_and_reported(tmp_path):
    packets = encoded(sound.speech(2, RATE), settings())
    wanted = request(tmp_path, packets, 2 * RATE, cuts=(10, 11))
    written = mux.mux(wanted)
    parts = [packets[:10], packets[10:11], packets[11:]]
    assert [(one.packets, one.payload_bytes) for one in written] == [(len(p), sum(map(len, p))) for p in parts]
    assert [one.sha256 for one in written] == [hashlib.sha256(b"".join(p)).hexdigest() for p in parts]


def test_the_encoders_own_configuration_stands_in_the_file(tmp_path):
    mux.mux(request(tmp_path, encoded(sound.speech(1, RATE), settings()), RATE))
    assert inspect.facts(str(tmp_path / "book.m4b")).decoder_config == encode.decoder_config(settings())


def test_the_index_stands_before_the_sound(tmp_path):
    mux.mux(request(tmp_path, encoded(sound.speech(1, RATE), settings()), RATE))
    data = (tmp_path / "book.m4b").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    "name", ["a:b.m4b", "x" * 240 + ".m4b", "new\nline.m4b", "%d %s.m4b", "-.m4b", os.fsdecode(b"\xe9.m4b")]
)
def test_any_name_may_be_written(tmp_path, name):
    folder = tmp_path / "a: folder's “name” %d"
    folder.mkdir()
    if not name.isascii():
        name = "é.m4b"
    mux.mux(request(folder, encoded(sound.speech(1, RATE), settings()), RATE, name=name))
    assert name in os.listdir(folder)


def test_a_work_directory_on_a_disk_that_failed_was_called_a_fault_of_the_program(tmp_path, monkeypatch):
    wanted = request(tmp_path, encoded(sound.speech(1, RATE), settings()), RATE)

    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(Transient) as caught:
        mux.mux(wanted)
    assert (caught.value.code, caught.value.path) == ("file.io", str(tmp_path))


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EIO, "file.io"), (errno.ENOSPC, "space.full"), (0x41444E49, "mux.failed")]
)
def test_what_the_disk_says_through_ffmpeg_is_told_from_what_ffmpeg_says(tmp_path, monkeypatch, number, code):
    def fails(*_):
        raise av.error.FFmpegError(number, "as FFmpeg says")

    monkeypatch.setattr(mux, "_mux", fails)
    with pytest.raises((NeedsAttention, Transient)) as caught:
        mux.mux(request(tmp_path, encoded(sound.speech(1, RATE), settings()), RATE))
    assert caught.value.code == code


def test_a_book_on_a_disk_that_failed_was_called_no_book(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise av.error.FFmpegError(errno.EIO, "as FFmpeg says")

    monkeypatch.setattr(media, "open_mp4", fails)
    with pytest.raises(Transient) as caught:
        inspect.facts(str(tmp_path / "book.m4b"))
    assert caught.value.code == "file.io"


@pytest.mark.parametrize("harm", ["torn", "short", "empty", "garbage"])
def test_a_damaged_segment_is_named_and_may_be_made_anew(tmp_path, harm):
    wanted = request(tmp_path, encoded(sound.speech(1, RATE), settings()), RATE, cuts=(5,))
    path = tmp_path / "1.aac"
    packets = list(aac.without_headers(path.read_bytes()))
    whole = path.read_bytes()
    path.write_bytes(
        {"torn": whole[:-3], "short": aac.with_headers(packets[:-1], RATE, 1), "empty": b"", "garbage": b"x" * 99}[harm]
    )
    with pytest.raises(Transient) as caught:
        mux.mux(wanted)
    assert (caught.value.code, caught.value.path) == ("segment.damaged", str(path))


# --- AAC that is copied -----------------------------------------------------------------------------------------------


def raw_packets(path):
    return [data for _, data in media.packets(str(path), 0)]


def test_a_single_aac_book_is_copied_packet_for_packet(tmp_path):
    voice = sound.speech(9, RATE)
    source = books.source(tmp_path / "in", {"a.m4a": sound.m4a(voice, RATE)})
    plan = books.plan(source)
    assert plan.method is Method.COPY
    draft = books.make(source, plan, tmp_path / "work")
    proof = books.prove(source, plan, draft, tmp_path / "work")
    assert proof.samples == voice.shape[1]
    assert raw_packets(draft.book) == raw_packets(tmp_path / "in" / "a.m4a")
    with open(draft.book, "rb") as one, open(tmp_path / "in" / "a.m4a", "rb") as two:
        heard, original = (sound.decoded(stream.read(), format="mov") for stream in (one, two))
    np.testing.assert_array_equal(heard[:, : voice.shape[1]], original[:, : voice.shape[1]])


def test_several_aac_files_of_one_kind_are_joined_without_encoding(tmp_path):
    parts = [sound.speech(4, RATE, seed=seed) for seed in (1, 2, 3)]
    source = books.source(tmp_path / "in", {f"{at}.m4a": sound.m4a(part, RATE) for at, part in enumerate(parts)})
    plan = books.plan(source)
    assert plan.method is Method.COPY
    assert any("padding" in warning for warning in plan.warnings)
    draft = books.make(source, plan, tmp_path / "work")
    proof = books.prove(source, plan, draft, tmp_path / "work")
    copied = [packet for file in source.files for packet in raw_packets(tmp_path / "in" / file.path)]
    assert raw_packets(draft.book) == copied
    assert proof.packets == len(copied)
    facts = inspect.facts(draft.book)
    with open(draft.book, "rb") as stream:
        heard = sound.decoded(stream.read(), format="mov")[0]
    for chapter, part, file in zip(facts.chapters, parts, source.files, strict=True):
        # A chapter begins where its file's own priming begins; the first file's is hidden.
        begin = chapter.start + (file.audio.start_skip if chapter.start else 0)
        piece = heard[begin : begin + 2 * RATE]
        error = piece - part[0, : len(piece)]
        assert np.vdot(error, error) < 0.2 * np.vdot(piece, piece)


def test_several_aac_files_are_encoded_where_seamless_joins_are_wanted(tmp_path):
    parts = [sound.speech(4, RATE, seed=seed) for seed in (1, 2)]
    source = books.source(tmp_path / "in", {f"{at}.m4a": sound.m4a(part, RATE) for at, part in enumerate(parts)})
    plan = books.plan(source, copy_aac=False)
    assert plan.timeline.samples == sum(part.shape[1] for part in parts)
    draft = books.make(source, plan, tmp_path / "work")
    assert books.prove(source, plan, draft, tmp_path / "work").samples == plan.timeline.samples


def test_a_copied_packet_that_does_not_decode_is_refused(tmp_path):
    data = bytearray(sound.m4a(sound.speech(5, RATE), RATE))
    with av.open(io.BytesIO(bytes(data))) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    offset, size = places[60]
    data[offset : offset + size] = b"\xff" * size
    source = books.source(tmp_path / "in", {"a.m4a": bytes(data)})
    plan = books.plan(source)
    with pytest.raises(NeedsAttention) as caught:
        books.make(source, plan, tmp_path / "work")
    assert caught.value.code == "audio.damaged"
    assert f"second {60 * 1024 / RATE:.1f}" in caught.value.reason


@pytest.mark.parametrize("moved", [1, 40])
def test_packets_with_the_right_bytes_but_divided_elsewhere_are_refused(tmp_path, moved):
    packets = encoded(sound.speech(3, RATE), settings())
    whole = hashlib.sha256(b"".join(packets)).hexdigest()
    packets[3:5] = [packets[3] + packets[4][:moved], packets[4][moved:]]
    mux.mux(request(tmp_path, packets, 3 * RATE))
    wanted = RangeRequest(
        path=str(tmp_path / "book.m4b"),
        sample_rate=RATE,
        channels=1,
        expected=(Expected(first=0, packets=len(packets), sha256=whole),),
        windows=(),
        least=None,
        block=1024,
        decode=8,
        decoder_config=encode.decoder_config(settings()),
    )
    with pytest.raises(NeedsAttention) as caught:
        inspect.check_range(wanted)
    assert caught.value.code == "proof.decode"


# --- opening ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [0, 1, 50, 128])
def test_packets_are_numbered_from_the_first_one_in_the_file_wherever_reading_starts(tmp_path, start):
    packets = encoded(sound.speech(6, RATE), settings())
    mux.mux(request(tmp_path, packets, 6 * RATE))
    found = list(media.packets(str(tmp_path / "book.m4b"), start))
    assert found == list(enumerate(packets))[start:]


def test_channels_that_differ_are_not_mixed_up():
    frames = [
        av.AudioFrame.from_ndarray(np.zeros((channels, 64), np.float32), format="fltp", layout=layout)
        for channels, layout in ((1, "mono"), (2, "stereo"))
    ]
    with pytest.raises(ValueError, match="channels"):
        media.pcm_of(frames, 2)


@pytest.mark.parametrize("samples", [960, 1024, 1152])
def test_only_the_samples_of_a_plane_are_taken_not_its_spare_room(samples):
    pcm = np.arange(2 * samples, dtype=np.float32).reshape(2, samples)
    frame = av.AudioFrame.from_ndarray(pcm, format="fltp", layout="stereo")
    np.testing.assert_array_equal(media.pcm_of([frame, frame], 2), np.concatenate([pcm, pcm], axis=1))


def test_a_file_that_is_no_book_is_called_so(tmp_path):
    path = tmp_path / "x.m4b"
    path.write_bytes(b"no book at all" * 100)
    with pytest.raises(NeedsAttention) as caught:
        inspect.facts(str(path))
    assert caught.value.code == "proof.unreadable"


def test_a_range_that_the_file_does_not_reach_is_refused(tmp_path):
    packets = encoded(sound.speech(2, RATE), settings())
    mux.mux(request(tmp_path, packets, 2 * RATE))
    wanted = RangeRequest(
        path=str(tmp_path / "book.m4b"),
        sample_rate=RATE,
        channels=1,
        expected=(Expected(first=0, packets=len(packets) + 1, sha256=""),),
        windows=(),
        least=1.5,
        block=1024,
        decode=0,
        decoder_config=encode.decoder_config(settings()),
    )
    with pytest.raises(NeedsAttention) as caught:
        inspect.check_range(wanted)
    assert caught.value.code == "proof.packets"


def test_time_stamps_and_samples_are_two_clocks_that_agree(tmp_path):
    samples = 330 * 700
    packets = encoded(sound.silence(samples / RATE, RATE), settings())
    mux.mux(request(tmp_path, packets, samples))
    with av.open(str(tmp_path / "book.m4b")) as container:
        stream = container.streams.audio[0]
        stamps = [packet.pts for packet in container.demux(stream) if packet.size]
        assert stream.time_base == Fraction(1, RATE)
    assert stamps == list(range(-1024, -1024 + 1024 * len(packets), 1024))
