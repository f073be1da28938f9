"""Is every frame of an MP3 found, and nothing else? Compared with FFmpeg's demuxer and decoder, and with made-up files."""

from __future__ import annotations

import random
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sound
from aiom4b.engine import mpeg
from aiom4b.engine.mpeg import ANCHOR_FRAMES
from aiom4b.errors import NeedsAttention
from aiom4b.models import AudioFacts

HEADER_8K = b"\xff\xe3\x18\xc4"  # MPEG-2.5, 8 kbit/s, 8000 Hz, mono: frames of 72 bytes
NO_SYNC = bytes(range(1, 200))


def anchors(facts: AudioFacts) -> list[int]:
    return list(array("Q", facts.anchors))


def all_frames(data: bytes) -> list[bytes]:
    facts = mpeg.scan(data)
    return [data[at : at + size] for at, size in mpeg.frames(data, anchors(facts)[0], facts.frames + 5)]


def codes(data: bytes) -> list[str]:
    return [flaw.code for flaw in mpeg.scan(data).damage]


def made_up(count: int, seed: int = 1) -> list[bytes]:
    """Return frames whose content is full of things that look like sync words."""
    source = random.Random(seed)
    content = [source.choices((0xFF, 0xE3, 0x18, 0xC4, 0, 7), k=68) for _ in range(count)]
    return [HEADER_8K + b"\0" + bytes(body[1:]) for body in content]


VOICE = sound.speech(2, 44100)
TAGGED = sound.mp3(VOICE, 44100)
BARE = sound.mp3(VOICE, 44100, lame_tag=False)
OFFSETS = [at for at, _ in mpeg.frames(TAGGED, anchors(mpeg.scan(TAGGED))[0], 999)]


@pytest.mark.parametrize("kind", ["cbr", "vbr", "abr", "untagged"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", sound.MP3_RATES)
def test_frames_and_length_are_what_ffmpeg_finds(rate, channels, kind):
    settings = {"cbr": {}, "vbr": {"vbr": 4}, "abr": {"abr": True}, "untagged": {"lame_tag": False}}[kind]
    pcm = sound.speech(1, rate, channels=channels)
    data = sound.mp3(pcm, rate, joint=channels == 2, **settings)

    facts = mpeg.scan(data)

    demuxed = sound.packets(data)
    assert all_frames(data) == [payload for payload, _, _ in demuxed]
    assert (facts.start_skip, facts.end_discard) == (sum(s for _, s, _ in demuxed), sum(d for _, _, d in demuxed))
    assert sound.decoded(data).shape == (facts.channels, facts.samples)
    assert facts.samples == (facts.frames * facts.samples_per_frame if kind == "untagged" else pcm.shape[1])
    assert (facts.sample_rate, facts.channels, facts.gapless) == (rate, channels, kind != "untagged")
    assert facts.mpeg_version == (1 if rate >= 32000 else 2 if rate >= 16000 else 25)
    assert facts.declared_frames == (None if kind == "untagged" else facts.frames)
    assert facts.damage == ()


@pytest.mark.parametrize("length", [1, 47, 575, 576, 577, 1151, 1152, 1153, 2257, 2258, 5000])
def test_padding_is_taken_off_exactly_however_long_the_sound_is(length):
    pcm = sound.noise(1, 44100)[:, :length]
    data = sound.mp3(pcm, 44100)
    facts = mpeg.scan(data)
    assert facts.samples == sound.decoded(data).shape[1]
    # FFmpeg's own muxer can't write some paddings; then a little silence stays, never is a sample lost
    assert length <= facts.samples < length + 529


def test_plain_stereo_and_joint_stereo_are_two_channels():
    pcm = sound.tone(0.5, 44100, channels=2)
    for joint in (True, False):
        assert mpeg.scan(sound.mp3(pcm, 44100, joint=joint)).channels == 2


def test_a_file_that_turns_from_mono_to_stereo_has_two_channels():
    mono = sound.mp3(VOICE, 44100, lame_tag=False)
    stereo = sound.mp3(sound.speech(1, 44100, channels=2), 44100, lame_tag=False)
    facts = mpeg.scan(mono + stereo)
    assert facts.channels == 2
    assert facts.frames == mpeg.scan(mono).frames + mpeg.scan(stereo).frames


def test_the_bit_rate_is_that_of_the_audio_frames_alone():
    data = sound.mp3(VOICE, 44100, bit_rate=64000, id3=sound.id3(padding=5000)) + sound.apev2(bytes(3000))
    assert mpeg.scan(data).bit_rate == pytest.approx(64000, abs=40)


@pytest.mark.parametrize("front", [
    sound.id3(padding=100),
    sound.id3(sound.id3_text("TIT2", "a")) + sound.id3(padding=7),
    sound.id3(b"", padding=10, footer=True),
    sound.apev2(),
    sound.id3(b"\xff\xfb\x90\x00" + bytes(413) + b"\xff\xfb\x90\x00" * 200),
    bytes(1000),
    b"",
])  # fmt: skip
@pytest.mark.parametrize("back", [
    b"",
    sound.id3v1(),
    sound.apev2() + sound.id3v1(),
    sound.apev2(),
    b"LYRICSBEGIN" + b"la \xff\xfb\x90\x00 la" + b"000023LYRICS200" + sound.id3v1(),
    b"LYRICSBEGIN" + b"la la la" * 9 + b"LYRICSEND" + sound.id3v1(),
    b"TAG+" + bytes(223) + sound.id3v1(),
    sound.id3(b"", padding=30, footer=True),
])  # fmt: skip
def test_tags_at_the_ends_are_no_sound_and_no_damage(front, back):
    back = back.replace(b"000023", b"%06d" % (len(b"LYRICSBEGINla \xff\xfb\x90\x00 la")))
    plain, tagged = mpeg.scan(TAGGED), mpeg.scan(front + TAGGED + back)
    assert all_frames(front + TAGGED + back) == all_frames(TAGGED)
    assert (tagged.samples, tagged.start_skip, tagged.bit_rate) == (plain.samples, plain.start_skip, plain.bit_rate)
    assert tagged.damage == ()


@pytest.mark.parametrize(
    "between", [sound.id3(padding=3000), sound.id3v1(), sound.apev2(), sound.id3v1() + sound.id3()]
)
def test_tags_between_frames_are_skipped_without_a_word(between):
    data = sound.with_junk(TAGGED, between, OFFSETS[30])
    assert all_frames(data) == all_frames(TAGGED)
    assert codes(data) == []


def test_a_tag_behind_junk_is_skipped_even_if_it_holds_what_looks_like_frames():
    picture = sound.id3(b"".join(made_up(40)) + BARE[:1000])
    data = sound.with_junk(TAGGED, b"scar" + picture, OFFSETS[30])
    assert all_frames(data) == all_frames(TAGGED)
    assert codes(data) == ["mp3.junk"]


@pytest.mark.parametrize(
    "junk", [bytes(400), NO_SYNC * 2, b"\xff" * 400, b"\xff\xfb", b"x\xff\xfb\x90\x00" + bytes(90)]
)
def test_junk_between_frames_is_stepped_over_and_its_second_is_told(junk):
    data = sound.with_junk(TAGGED, junk, OFFSETS[38])
    (flaw,) = mpeg.scan(data).damage
    assert all_frames(data) == all_frames(TAGGED)
    assert (flaw.code, flaw.second) == ("mp3.junk", pytest.approx(38 * 1152 / 44100))
    assert f"{len(junk)} bytes at byte {OFFSETS[38]}" in flaw.detail


def test_with_zeros_between_frames_the_length_is_still_what_ffmpeg_decodes():
    data = sound.with_junk(TAGGED, bytes(1000), OFFSETS[38])
    assert mpeg.scan(data).samples == sound.decoded(data).shape[1] == VOICE.shape[1]


def test_a_header_frame_behind_junk_is_still_recognised():
    facts = mpeg.scan(b"junk" * 50 + TAGGED)
    assert facts.samples == VOICE.shape[1]
    assert [flaw.code for flaw in facts.damage] == ["mp3.junk"]


@pytest.mark.parametrize("junk", [b"scar" * 20, bytes(400)])
def test_junk_right_behind_the_header_frame_does_not_hide_its_delay_and_padding(junk):
    facts = mpeg.scan(sound.with_junk(TAGGED, junk, OFFSETS[0]))
    assert facts.samples == VOICE.shape[1]
    assert [flaw.code for flaw in facts.damage] == ["mp3.junk"]


@pytest.mark.parametrize("missing", [1, 4, 100, 200])
def test_a_last_frame_that_is_not_whole_is_left_out_and_reported(missing):
    whole = all_frames(BARE)
    data = BARE[:-missing]
    facts = mpeg.scan(data)
    assert all_frames(data) == whole[:-1]
    assert [(flaw.code, flaw.second) for flaw in facts.damage] == [
        ("mp3.truncated", pytest.approx((len(whole) - 1) * 1152 / 44100))
    ]


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_even_a_piece_of_the_last_header_counts_as_truncated(kept):
    data = TAGGED[: OFFSETS[-1] + kept]
    assert codes(data) == ["mp3.truncated"]
    assert all_frames(data) == all_frames(TAGGED)[:-1]


def test_a_cut_between_two_frames_leaves_no_trace_but_the_declared_number():
    data = TAGGED[: OFFSETS[20]]
    facts = mpeg.scan(data)
    assert (facts.frames, facts.declared_frames, facts.damage) == (20, len(OFFSETS), ())
    assert facts.end_discard == 0  # the padding went with the end: every sample that is left is sound
    assert facts.samples == sound.decoded(data).shape[1]


def test_a_cut_last_frame_before_a_tag_is_no_sign_of_an_unfinished_copy():
    assert codes(TAGGED[:-50] + sound.id3v1()) == ["mp3.last_frame_cut"]


def test_a_last_frame_that_is_the_first_of_its_anchor_is_dropped_with_it():
    data = b"".join(made_up(ANCHOR_FRAMES + 1))
    assert len(anchors(mpeg.scan(data))) == 2
    facts = mpeg.scan(data[:-1])
    assert (facts.frames, len(anchors(facts))) == (ANCHOR_FRAMES, 1)


def test_a_file_cut_from_another_says_so():
    whole = sound.mp3(sound.speech(2, 44100), 44100, bit_rate=96000, lame_tag=False)
    at = mpeg.frames(whole, 0, 30)[-1][0]
    assert "mp3.cut_from_another" not in codes(whole)
    assert codes(whole[at:]) == ["mp3.cut_from_another"]


def test_two_files_laid_end_to_end_are_kept_whole():
    facts = mpeg.scan(TAGGED + TAGGED)
    assert facts.frames == 2 * len(OFFSETS) + 1  # the second header frame decodes to silence
    assert (facts.end_discard, [flaw.code for flaw in facts.damage]) == (0, ["mp3.more_than_declared"])


def test_a_vbri_header_is_no_sound_and_its_count_is_known():
    header = b"\xff\xfb\x90\xc4" + bytes(32) + b"VBRI\0\1" + bytes(4) + bytes(4) + (52).to_bytes(4, "big")
    facts = mpeg.scan(header.ljust(417, b"\0") + BARE)
    assert (facts.frames, facts.declared_frames, facts.gapless) == (mpeg.scan(BARE).frames, 52, False)


def test_delays_of_an_unknown_encoder_are_not_believed():
    at = TAGGED.index(b"Lavf") if b"Lavf" in TAGGED[:300] else TAGGED.index(b"Lavc")
    data = TAGGED[:at] + b"Else" + TAGGED[at + 4 :]
    facts = mpeg.scan(data)
    assert (facts.start_skip, facts.end_discard, facts.gapless) == (0, 0, False)
    assert facts.samples == sound.decoded(data).shape[1]


def test_a_tag_whose_size_leads_past_the_end_does_not_hide_the_sound():
    assert mpeg.scan(b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + TAGGED).samples == VOICE.shape[1]


def refusal(data: bytes) -> str:
    with pytest.raises(NeedsAttention) as caught:
        mpeg.scan(data)
    assert caught.value.reason.endswith(".")
    assert caught.value.remedy.endswith(".")
    return caught.value.code


def test_free_format_is_refused_plainly():
    frames = [b"\xff\xfb" + bytes([2 * (n % 2)]) + b"\0" + bytes([n + 1]) * (500 + n % 2) for n in range(30)]
    assert refusal(b"".join(frames)) == "audio.free_format"
    assert refusal(sound.id3(padding=100) + b"".join(frames)) == "audio.free_format"


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xfb\x90", bytes(9999), random.Random(3).randbytes(300_000), sound.id3(padding=99)]
)
def test_what_holds_no_frames_is_not_sound(data):
    assert refusal(data) == "audio.not_audio"


def test_a_header_frame_alone_is_not_sound():
    assert refusal(TAGGED[: OFFSETS[0]]) == "audio.not_audio"


def test_sound_of_another_rate_in_the_same_file_is_never_dropped_silently():
    other = sound.mp3(sound.speech(0.5, 22050), 22050, lame_tag=False)
    assert refusal(TAGGED + other) == "audio.mixed_rates"
    assert refusal(other + TAGGED) == "audio.mixed_rates"


def test_a_file_of_which_little_can_be_read_is_refused():
    pieces = [BARE[at : at + 3000] + NO_SYNC * 5 for at in range(0, len(BARE), 3000)]
    assert refusal(b"".join(pieces)) == "audio.corrupt"


def test_a_million_scars_do_not_make_a_million_entries():
    frames = made_up(900)
    data = b"".join(frames[:4]) + b"".join(a + b + b"\x01" for a, b in zip(frames[4::2], frames[5::2], strict=True))
    facts = mpeg.scan(data)
    assert facts.frames == 900
    assert len(facts.damage) < 110
    assert f"{448 - 100} more" in facts.damage[-1].detail


def test_windows_of_the_scanner_leave_no_seam(monkeypatch):
    data = sound.with_junk(TAGGED, NO_SYNC * 3 + sound.id3(padding=400), OFFSETS[33])
    whole = mpeg.scan(data)
    for size in (37, 209, 1000):
        monkeypatch.setattr(mpeg, "_WINDOW", size)
        assert mpeg.scan(data) == whole
        assert all_frames(data) == all_frames(TAGGED)


piece = st.one_of(
    st.integers(1, 400).map(lambda n: ("frames", n)),
    st.binary(min_size=1, max_size=60).map(lambda junk: ("junk", junk)),
    st.lists(
        st.sampled_from([b"\xff", b"\xe3", b"\x18", b"\xc4", HEADER_8K, b"ID3\x04", b"TAG", b"\0"]), max_size=30
    ).map(lambda parts: ("junk", b"".join(parts))),
    st.integers(0, 200).map(lambda n: ("junk", sound.id3(padding=n))),
    st.just(("junk", sound.id3v1())),
)


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(piece, max_size=12), cut=st.integers(0, 80), seed=st.integers(0, 99))
def test_decoding_from_any_anchor_finds_exactly_the_frames_that_were_counted(pieces, cut, seed):
    supply = iter(made_up(6000, seed))
    parts = [next(supply) for _ in range(300)]
    for kind, value in pieces:
        parts += [next(supply) for _ in range(value)] if kind == "frames" else [value]
    data = b"".join(parts)
    data = data[: len(data) - cut]
    try:
        facts = mpeg.scan(data)
    except NeedsAttention as refused:
        assert refused.code == "audio.corrupt"  # noqa: PT017 - the other outcome is checked below
        return

    index = anchors(facts)
    whole = mpeg.frames(data, index[0], facts.frames + 9)

    assert len(whole) == facts.frames
    assert len(index) == -(-facts.frames // ANCHOR_FRAMES)
    assert sum(size for _, size in whole) * 8 * 8000 == pytest.approx(facts.bit_rate * facts.frames * 576, rel=1e-3)
    for number, offset in enumerate(index):
        rest = whole[number * ANCHOR_FRAMES :]
        assert mpeg.frames(data, offset, len(rest) + 9) == rest
        assert mpeg.frames(data, offset, 20) == rest[:20]


@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=8), junk=st.binary(max_size=50), seed=st.integers(0, 99)
)
def test_every_frame_is_found_where_it_was_put_whatever_lies_between(counts, junk, seed):
    junk = junk.replace(b"\xff", b"").replace(b"ID3", b"").replace(b"TAG", b"").replace(b"APE", b"")
    supply = iter(made_up(400, seed))
    data, expected = b"", []
    for count in counts:
        for _ in range(count):
            expected.append((len(data), 72))
            data += next(supply)
        data += junk
    if len(expected) >= 4 and counts[0] >= 4:
        assert mpeg.frames(data, 0, 999) == expected
