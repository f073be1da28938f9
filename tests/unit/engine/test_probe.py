"""Is a file known by its bytes, measured exactly, and is no other file opened because of what it says?"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sys

import av
import pytest

import sound
from aiom4b.engine import boxes, mpeg, probe
from aiom4b.engine.probe import Examined, ProbeLimits
from aiom4b.errors import Aiom4bError, NeedsAttention, Transient
from aiom4b.models import AudioFacts, Codec, Mark
from sound import box

LIMITS = ProbeLimits(max_file_size=1 << 30)
VOICE = sound.speech(3.1, 22050)
MP3 = sound.mp3(VOICE, 22050)
M4A = sound.m4a(VOICE, 22050)
LC_CONFIG = bytes.fromhex("138856e500")  # AAC LC, 22050 Hz, mono; 2b7: SBR absent
SBR_CONFIG = bytes.fromhex("138856e5a0")  # the same; 2b7: SBR present, 44100 Hz


@pytest.fixture
def examine(tmp_path):
    def look(data: bytes, name: str = "a book.mp3", limits: ProbeLimits = LIMITS) -> Examined:
        path = tmp_path / name
        path.write_bytes(data)
        return probe.examine(str(path), limits)

    return look


@pytest.fixture
def refusal(examine, tmp_path):
    def look(data: bytes, name: str = "a book.mp3", limits: ProbeLimits = LIMITS) -> str:
        with pytest.raises(NeedsAttention) as caught:
            examine(data, name, limits)
        assert caught.value.path == str(tmp_path / name)
        assert caught.value.reason.endswith(".")
        assert caught.value.remedy.endswith(".")
        return caught.value.code

    return look


def patched(data: bytes, what: bytes, offset: int, new: bytes) -> bytes:
    """Return the file with ``new`` written ``offset`` bytes behind the start of the first box type ``what``."""
    at = data.index(what) + offset
    return data[:at] + new + data[at + len(new) :]


def test_an_mp3_is_hashed_identified_and_measured_in_one_look(examine, tmp_path):
    found = examine(MP3, "whatever.txt")
    status = os.stat(tmp_path / "whatever.txt")
    assert found.sha256 == hashlib.sha256(MP3).hexdigest()
    assert (found.identity.size, found.identity.inode) == (len(MP3), status.st_ino)
    assert (found.identity.mtime_ns, found.identity.ctime_ns) == (status.st_mtime_ns, status.st_ctime_ns)
    assert found.audio == mpeg.scan(MP3)
    assert found.chapters == ()


@pytest.mark.parametrize("block", [1, 7, 100, 4096])
@pytest.mark.parametrize("leap", [0, 50, 1 << 20])
def test_the_hash_is_of_every_byte_once_however_the_reading_goes(tmp_path, monkeypatch, block, leap):
    monkeypatch.setattr(probe, "_BLOCK", block)
    monkeypatch.setattr(probe, "_LEAP", leap)
    data = bytes(range(256)) * 3
    (tmp_path / "x").write_bytes(data)
    descriptor = os.open(tmp_path / "x", os.O_RDONLY)
    try:
        view = probe._Hashing(descriptor, len(data))
        for part in (slice(700, None), slice(0, 30), slice(10, 90), slice(300, 310), slice(90, 400), slice(5, 9)):
            assert view[part] == data[part]
        assert view[5] == data[5]
        assert view.sha256() == hashlib.sha256(data).hexdigest()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("size", [1024, 1025, 5000, 68355])
@pytest.mark.parametrize("timescale", [22050, 1000])
@pytest.mark.parametrize("channels", [1, 2])
def test_an_m4a_presents_exactly_the_samples_it_was_made_of(examine, size, timescale, channels):
    pcm = sound.speech(3.1, 22050, channels=channels)[:, :size]
    data = sound.m4a(pcm, 22050, movie_timescale=timescale)
    found = examine(data, "a.m4a")
    audio = found.audio
    # with its edit list in milliseconds FFmpeg itself loses the last packet of 1025 samples
    with av.open(io.BytesIO(data), options={"ignore_editlist": "1"}) as container:
        packets = sum(1 for packet in container.demux(audio=0) if packet.size)
        config = container.streams.audio[0].codec_context.extradata
    assert (audio.codec, audio.samples, audio.start_skip, audio.frames) == (Codec.AAC, size, 1024, packets)
    assert audio.end_discard == packets * 1024 - 1024 - size
    assert (audio.sample_rate, audio.channels, audio.samples_per_frame) == (22050, channels, 1024)
    assert (audio.decoder_config, audio.anchors, audio.declared_frames) == (config, b"", None)
    assert (audio.gapless, audio.mpeg_version, audio.damage) == (True, 0, ())
    assert found.sha256 == hashlib.sha256(data).hexdigest()


def test_the_bit_rate_of_aac_is_that_of_its_packets(examine):
    with av.open(io.BytesIO(M4A)) as container:
        payload = sum(packet.size for packet in container.demux(audio=0))
    audio = examine(M4A).audio
    assert audio.bit_rate == round(payload * 8 * 22050 / (audio.frames * 1024))


def test_what_decodes_to_twice_the_samples_is_measured_at_twice_the_rate(examine):
    assert LC_CONFIG in M4A
    audio = examine(M4A.replace(LC_CONFIG, SBR_CONFIG)).audio
    assert (audio.sample_rate, audio.samples_per_frame, audio.start_skip) == (44100, 2048, 2048)
    assert audio.samples == 2 * VOICE.shape[1]
    assert audio.decoder_config == SBR_CONFIG


def test_chapters_of_an_mp4_come_along_beyond_255(examine):
    marks = [(n * 0.01, f"Chapter {n + 1} – é") for n in range(300)]
    found = examine(sound.m4a(VOICE, 22050, chapters=marks))
    assert len(found.chapters) == 300
    assert found.chapters[299] == Mark(start_us=pytest.approx(2_990_000, abs=50), title="Chapter 300 – é")


def test_an_edit_list_that_hides_a_part_is_followed(examine):
    # elst: version and flags, count, duration in movie ticks (here samples), first tick of the media
    edit = (20000).to_bytes(4, "big") + (3000).to_bytes(4, "big")
    audio = examine(patched(M4A, b"elst", 12, edit)).audio
    assert (audio.start_skip, audio.samples) == (3000, 20000)
    assert audio.end_discard == audio.frames * 1024 - 23000


def test_without_an_edit_list_everything_is_kept(examine):
    audio = examine(patched(M4A, b"edts", 0, b"free")).audio
    assert (audio.start_skip, audio.gapless) == (0, False)
    assert audio.samples == 1024 + VOICE.shape[1]


def test_an_edit_list_of_several_pieces_is_refused(refusal):
    two = box(b"elst", bytes(4) + (2).to_bytes(4, "big") + bytes(range(12)) + bytes(range(12)))
    at = M4A.index(b"edts") - 4
    old = int.from_bytes(M4A[at : at + 4], "big")
    grown = box(b"edts", two)
    data = bytearray(M4A[:at] + grown + M4A[at + old :])
    for parent in (b"moov", b"trak"):
        where = bytes(data).index(parent) - 4
        size = int.from_bytes(data[where : where + 4], "big") + len(grown) - old
        data[where : where + 4] = size.to_bytes(4, "big")
    assert refusal(bytes(data)) == "audio.edited"


def test_a_wrong_table_of_durations_hides_no_sound(examine):
    at = M4A.index(b"stts") + 12
    data = patched(M4A, b"stts", 16, (100).to_bytes(4, "big"))
    assert int.from_bytes(M4A[at + 4 : at + 8], "big") == 1024
    audio = examine(patched(data, b"edts", 0, b"free")).audio
    assert audio.samples == audio.frames * 1024
    assert [flaw.code for flaw in audio.damage] == ["mp4.wrong_durations"]


def test_a_file_with_a_tag_in_a_foreign_encoding_is_read(examine):
    data = sound.m4a(VOICE, 22050, tags={"title": "Mxrchen"})
    assert examine(data.replace(b"Mxrchen", b"M\xe4rchen")).audio.samples == VOICE.shape[1]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "file.empty"),
        (b"#EXTM3U\n#EXTINF:10,\nbait.mp3\n", "audio.not_audio"),
        (b"ffconcat version 1.0\nfile bait.mp3\n", "audio.not_audio"),
        (b'FILE "bait.mp3" MP3\n  TRACK 01 AUDIO\n', "audio.not_audio"),
        (b"\xef\xbb\xbfM\xe4rchen\r\n", "audio.not_audio"),
        ("Ein Märchen".encode("utf-16"), "audio.not_audio"),
        (b"\xff\xd8\xff\xe0" + bytes(500), "audio.not_audio"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "audio.not_audio"),
        (b"PK\x03\x04" + bytes(500), "audio.not_audio"),
        (bytes(5000), "audio.not_audio"),
        (b"RIFF\0\0\0\0WAVEfmt " + bytes(500), "audio.unsupported_codec"),
        (b"fLaC" + bytes(500), "audio.unsupported_codec"),
        (b"OggS" + bytes(500), "audio.unsupported_codec"),
        ((b"\xff\xf1\x50\x40\x02\x00\xfc" + bytes(9)) * 9, "audio.unsupported_codec"),
        (b"\0\0\0\x10\x57\x90\x75\x36" + bytes(500), "audio.unsupported_codec"),
        (M4A[: len(M4A) // 2], "audio.truncated"),
        (M4A[:-1], "audio.truncated"),
        (M4A[:60], "audio.truncated"),
        (box(b"ftyp", b"M4A \0\0\0\0") + box(b"mdat", bytes(99)), "audio.truncated"),
        (box(b"ftyp", b"M4A \0\0\0\0") + box(b"moov", b"\0\0\xff\xff") + box(b"mdat"), "audio.no_sound"),
        (box(b"ftyp", b"M4A \0\0\0\0") + box(b"moov", b"\0\0\xff\xfftrak"), "audio.corrupt"),
        (patched(M4A, b"mp4a", 0, b"enca"), "audio.encrypted"),
        (patched(M4A, b"mp4a", 0, b"aavd"), "audio.corrupt"),
        (patched(M4A, b"mp4a", 0, b"ec-3"), "audio.unsupported_codec"),
        (patched(M4A, b"soun", 0, b"text"), "audio.no_sound"),
        (patched(M4A, b"soun", 0, b"vide"), "audio.video"),
        (patched(M4A, b"stsz", 12, b"\xff\xff\xff\xff"), "audio.corrupt"),
        (patched(M4A, b"stts", 8, b"\xff\xff\xff\xff"), "audio.corrupt"),
        (patched(M4A, b"mdhd", 16, b"\0\0\0\0"), "audio.corrupt"),
        (patched(M4A, b"stco", 12, b"\x7f\0\0\0"), "audio.truncated"),
        (sound.m4a(VOICE, 22050, codec="alac"), "audio.unsupported_codec"),
        (sound.m4a(VOICE, 22050, fragmented=True), "audio.fragmented"),
        (sound.mp3(VOICE, 22050)[:-3000], "audio.truncated"),
    ],
)
def test_everything_else_is_refused_with_its_own_code(refusal, data, code):
    assert refusal(data) == code


def test_whatever_is_cut_or_broken_in_an_mp4_never_escapes_as_a_foreign_error(examine):
    head = len(M4A) - M4A.index(b"moov")
    for at in range(len(M4A) - head, len(M4A), 23):
        for new in (b"\xff", b"\0"):
            data = M4A[:at] + new + M4A[at + 1 :]
            try:
                boxes.sound_track(data)
            except NeedsAttention as refused:
                assert refused.code.startswith("audio.")  # noqa: PT017 - most bytes do no harm


def test_an_mp3_that_lacks_more_than_one_declared_frame_names_file_and_second(examine):
    frames = mpeg.frames(MP3, int.from_bytes(mpeg.scan(MP3).anchors[:8], "little"), 999)
    assert examine(MP3[: frames[-1][0]]).audio.frames == len(frames) - 1
    with pytest.raises(NeedsAttention) as caught:
        examine(MP3[: frames[-2][0]], "part 7.mp3")
    seconds = f"{(len(frames) - 2) * 576 / 22050:.1f}"
    assert "part 7.mp3" in caught.value.reason
    assert f"second {seconds}" in caught.value.reason


def test_too_large_a_file_is_refused_unread(refusal, monkeypatch):
    monkeypatch.setattr(os, "pread", None)
    assert refusal(MP3, limits=ProbeLimits(max_file_size=len(MP3) - 1)) == "file.too_large"


def test_a_file_of_just_the_allowed_size_is_read(examine):
    assert examine(MP3, limits=ProbeLimits(max_file_size=len(MP3))).audio.frames


@pytest.mark.parametrize("text", [
    "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{bait}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile '{bait}'\n",
    "[playlist]\nFile1={bait}\n",
])  # fmt: skip
def test_a_playlist_named_mp3_makes_nobody_open_another_file(examine, tmp_path, monkeypatch, text):
    bait = tmp_path / "bait.mp3"
    bait.write_bytes(MP3)
    opened = []
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: pytest.fail("FFmpeg saw the file"))
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
    with pytest.raises(NeedsAttention):
        examine(text.format(bait=bait).encode(), "evil.mp3")
    assert os.fspath(bait) not in [os.fsdecode(name) for name in opened if isinstance(name, str | bytes)]
    assert any("evil.mp3" in name for name in opened if isinstance(name, str))


def test_an_mp3_is_never_shown_to_ffmpeg(examine, monkeypatch):
    monkeypatch.setattr(av, "open", lambda *args, **kwargs: pytest.fail("FFmpeg saw the file"))
    assert examine(MP3).audio.frames


def test_an_mp4_named_mp3_is_an_mp4(examine):
    assert examine(M4A, "really.mp3").audio.codec is Codec.AAC


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "real.mp3").write_bytes(MP3)
    (tmp_path / "link.mp3").symlink_to("real.mp3")
    with pytest.raises(NeedsAttention) as caught:
        probe.examine(str(tmp_path / "link.mp3"), LIMITS)
    assert caught.value.code == "file.not_regular"


@pytest.mark.parametrize("spoil", ["grow", "shrink", "touch", "swap"])
def test_a_file_that_changes_while_it_is_read_is_looked_at_again_later(tmp_path, monkeypatch, spoil):
    path = tmp_path / "x.mp3"
    path.write_bytes(MP3)
    scan = mpeg.scan

    def interrupted(data: mpeg.Sliceable) -> AudioFacts:
        match spoil:
            case "grow":
                path.write_bytes(MP3 + b"more")
            case "shrink":
                os.truncate(path, 100)
            case "touch":
                os.utime(path, ns=(1, 1))
            case "swap":
                (tmp_path / "y").write_bytes(MP3)
                os.replace(tmp_path / "y", path)
        return scan(data)

    monkeypatch.setattr(mpeg, "scan", interrupted)
    with pytest.raises(Transient) as caught:
        probe.examine(str(path), LIMITS)
    assert (caught.value.code, caught.value.path) == ("source.changed", str(path))


def test_a_failing_disk_is_an_error_and_not_a_short_file(examine, monkeypatch):
    def broken(descriptor: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(Aiom4bError) as caught:
        examine(MP3)
    assert caught.value.code == "file.io"


def test_no_descriptor_is_left_open(examine):
    before = len(os.listdir("/proc/self/fd"))
    examine(MP3)
    examine(M4A)
    with pytest.raises(NeedsAttention):
        examine(b"text")
    assert len(os.listdir("/proc/self/fd")) == before
