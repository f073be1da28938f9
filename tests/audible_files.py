"""How does a test come by an Audible book? It makes a plain one of its own sound, and locks it as AAXC or AAX with keys it invents.

Nothing here opens anything that was bought: locking adds, sample by sample, the encryption that FFmpeg's demuxer takes away.
`decoded` says what a player would play, so that a book can be compared with the plain one to the bit.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from mutagen.mp4 import MP4, MP4Cover
from numpy.typing import NDArray

import sound
from audible_boxes import Box, box, rewrite
from household import picture

ASIN = "B00AIOM4B1"
KEY = bytes.fromhex("8f1d5a0c7be24936a15c3e90d27f6b48")
IV = bytes.fromhex("27c49be8135f0da6e29a714db85c03f6")
ACTIVATION_BYTES = bytes.fromhex("1a2b3c4d")

ATOMS: Mapping[str, str] = {
    "©nam": "The Lighthouse (Unabridged)",
    "©ART": "Ada Keeper, Bo Writer",
    "aART": "Ada Keeper, Bo Writer",
    "©alb": "The Lighthouse (Unabridged)",
    "©gen": "Audiobook",
    "©day": "2021",
    "©cmt": "A keeper counts ships.",
    "©des": "A keeper counts ships, and one night there is one too many. Read by the one who lit the lamp.",
    "cprt": "&#169;2021 Ada Keeper (P)2021 Own Press",
    "©nrt": "Noa Reader, Cy Voice",
    "©pub": "Own Press",
    "©prd": "Own Studio",
    "©too": "Own Tool 1.0",
    "prID": "BK_OWNP_000001",
    "CDEK": ASIN,
    "CDET": "ADBL",
    "VERS": "1",
    "GUID": "A1OWN2GUID3",
    "AACR": "CR!OWN00000000000000000000",
    "rldt": "05-MAR-2021",
    "@sti": "The Lighthouse",
    "@pti": "The Lighthouse",
    "@ppi": "BK_OWNP_000001P",
}
"""What Audible writes into a file, with texts of our own."""

# The default of FFmpeg's option audible_fixed_key: it is mixed into every AAX file's check.
_FIXED_KEY = bytes.fromhex("77214d4b196a87cd520045fd20a51d67")
_BLOCK = 16
_PRIMING = 1024


# --- plain books -------------------------------------------------------------------------------------------------------


def plain_book(
    path: str | Path,
    seconds: float = 6.0,
    *,
    rate: int = 22050,
    channels: int = 1,
    bit_rate: int | None = None,
    chapters: int | Sequence[tuple[float, str]] = 3,
    atoms: Mapping[str, str] | None = None,
    cover: bool = True,
    edit_list: bool = True,
    moov_last: bool = False,
    wide: bool = False,
    seed: int = 1,
    times: int = 1,
) -> Path:
    """Write an unlocked M4B with Audible's atoms, and return its path.

    64 kbit/s, or 128 kbit/s in stereo at 44100 Hz. ``chapters`` is their number, or (start in seconds, title) of each.
    ``atoms`` changes `ATOMS`; an empty text leaves one out. Without ``edit_list`` the priming is heard, as players of old
    files do. ``times`` lays the same packets one after the other, to make a long book quickly. ``wide`` uses 64-bit offsets.
    """
    path = Path(path)
    bit_rate = bit_rate or (128_000 if channels == 2 and rate == 44100 else 64_000)
    pcm = sound.speech(seconds, rate, channels=channels, seed=seed)
    if isinstance(chapters, int):
        whole = seconds * times
        chapters = [(whole * number / chapters, f"Chapter {number + 1}") for number in range(chapters)]
    muxed = path.with_name(f".{path.name}.muxed")
    _mux(muxed, sound.m4a(pcm, rate, bit_rate=bit_rate), pcm.shape[1], rate, times, chapters, edit_list=edit_list)
    tags = MP4(muxed)
    tags.clear()
    for atom, text in {**ATOMS, **(atoms or {})}.items():
        if text:
            tags[atom] = [text]
    if cover:
        tags["covr"] = [MP4Cover(picture("teal", side=500), MP4Cover.FORMAT_JPEG)]
    tags.save()
    if moov_last and not wide:
        muxed.rename(path)
    else:
        rewrite(muxed, path, b"M4B ", moov_last=moov_last, wide=wide)
        muxed.unlink()
    return path


def _mux(
    path: Path,
    encoded: bytes,
    samples: int,
    rate: int,
    times: int,
    chapters: Sequence[tuple[float, str]],
    *,
    edit_list: bool,
) -> None:
    packets = [data for data, _, _ in sound.packets(encoded, format="mp4")]
    length = samples if times == 1 else times * len(packets) * 1024 - _PRIMING
    starts = [round(start * rate) for start, _ in chapters]
    marks = [
        {"id": number, "start": start, "end": stop, "time_base": Fraction(1, rate), "metadata": {"title": title}}
        for number, (start, stop, (_, title)) in enumerate(zip(starts, [*starts[1:], length], chapters, strict=True))
    ]
    options = {"movie_timescale": str(rate), "fflags": "+bitexact", "use_editlist": str(int(edit_list))}
    with (
        av.open(io.BytesIO(encoded), format="mp4") as template,
        av.open(str(path), "w", format="ipod", options=options) as container,
    ):
        stream = container.add_stream_from_template(template.streams.audio[0])
        stream.time_base = Fraction(1, rate)
        container.set_chapters(marks)
        position = -_PRIMING
        for data in packets * times:
            packet = av.Packet(data)
            packet.stream = stream
            packet.time_base = stream.time_base
            packet.pts = packet.dts = position
            packet.duration = min(1024, length - position)
            position += 1024
            container.mux_one(packet)


# --- locking -----------------------------------------------------------------------------------------------------------


def lock_aaxc(
    plain: str | Path, out: str | Path, key: bytes = KEY, iv: bytes = IV, *, moov_last: bool = False, wide: bool = False
) -> Path:
    """Write ``plain`` as AAXC, which opens with this key and initialisation vector; 580 MB take some seconds."""
    return _locked(plain, out, b"aaxc", 1, key, iv, b"", moov_last=moov_last, wide=wide)


def lock_aax(
    plain: str | Path,
    out: str | Path,
    activation_bytes: bytes = ACTIVATION_BYTES,
    *,
    moov_last: bool = False,
    wide: bool = False,
) -> Path:
    """Write ``plain`` as AAX, which opens with these four bytes of an account."""
    key, seed = hashlib.md5(b"key" + activation_bytes).digest(), hashlib.md5(b"seed" + activation_bytes).digest()
    iv = _sha1(seed, key, _FIXED_KEY)[:_BLOCK]
    adrm = box(b"adrm", _adrm(activation_bytes, key, seed))
    return _locked(plain, out, b"aax ", 1, key, iv, adrm, moov_last=moov_last, wide=wide)


def cut(path: str | Path, at: float, out: str | Path | None = None) -> Path:
    """Write the front of a file, by default over itself: ``at`` is a share of it, or bytes (see `sound.cut`)."""
    target = Path(out or path)
    target.write_bytes(sound.cut(Path(path).read_bytes(), at))
    return target


def _locked(
    plain: str | Path,
    out: str | Path,
    brand: bytes,
    minor: int,
    key: bytes,
    iv: bytes,
    inside: bytes,
    *,
    moov_last: bool,
    wide: bool,
) -> Path:
    def lock(entry: Box) -> None:
        entry.kind = b"aavd"
        assert entry.kids is not None
        if inside:
            entry.kids.append(Box(b"adrm", inside[8:]))

    offsets, sizes = rewrite(Path(plain), Path(out), brand, minor, lock, moov_last=moov_last, wide=wide)
    _encrypt(Path(out), offsets, sizes, key, iv)
    return Path(out)


def _sha1(*parts: bytes) -> bytes:
    return hashlib.sha1(b"".join(parts)).digest()


def _adrm(activation_bytes: bytes, key: bytes, seed: bytes) -> bytes:
    """Return what FFmpeg finds the file's key in: 8 bytes skipped, 56 encrypted, 4 skipped, and the SHA-1 they must match."""
    outer_key = _sha1(_FIXED_KEY, activation_bytes)
    outer_iv = _sha1(_FIXED_KEY, outer_key, activation_bytes)
    clear = bytearray(48)
    clear[0:4], clear[8:24], clear[26:42] = activation_bytes[::-1], key, seed
    cipher = Cipher(algorithms.AES(outer_key[:_BLOCK]), modes.CBC(outer_iv[:_BLOCK])).encryptor()
    return bytes(8) + cipher.update(bytes(clear)) + bytes(8 + 4) + _sha1(outer_key[:_BLOCK], outer_iv[:_BLOCK])


def _encrypt(path: Path, offsets: NDArray[np.int64], sizes: NDArray[np.int64], key: bytes, iv: bytes) -> None:
    """Encrypt samples in place: AES-CBC over the whole blocks of each, begun anew for each, the rest left in clear.

    The n-th blocks of all samples don't depend on each other: they go through one call, thousands of samples at a time.
    """
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    data = np.memmap(path, np.uint8, "r+")
    cells = np.ndarray((len(data) - _BLOCK + 1,), f"V{_BLOCK}", buffer=data, strides=(1,))  # a block at every byte
    for at in range(0, len(sizes), 1 << 16):
        blocks = sizes[at : at + (1 << 16)] // _BLOCK
        longest_first = np.argsort(-blocks, kind="stable")
        blocks, starts = blocks[longest_first], offsets[at : at + (1 << 16)][longest_first]
        chain = np.tile(np.frombuffer(iv, np.uint8), (len(blocks), 1))
        for number in range(int(blocks.max(initial=0))):
            still = int(np.searchsorted(-blocks, -number))
            places = starts[:still] + _BLOCK * number
            mixed = cells[places].view(np.uint8).reshape(-1, _BLOCK) ^ chain[:still]
            chain = np.frombuffer(cipher.update(mixed.tobytes()), np.uint8).reshape(-1, _BLOCK)
            cells[places] = chain.reshape(-1).view(f"V{_BLOCK}")
    data.flush()


# --- what is heard -----------------------------------------------------------------------------------------------------


def keys(*, key: bytes | None = None, iv: bytes | None = None, activation_bytes: bytes | None = None) -> dict[str, str]:
    """Return FFmpeg's options that open a locked book."""
    given = {"audible_key": key, "audible_iv": iv, "activation_bytes": activation_bytes}
    return {name: value.hex() for name, value in given.items() if value is not None}


def decoded(path: str | Path, **secrets: bytes) -> str:
    """Return the SHA-256 of what a player plays: float samples, interleaved, priming hidden, the end cut as the file says.

    ``secrets`` as in `keys`. Raises av.error.FFmpegError where the sound can't be decoded.
    """
    digest = hashlib.sha256()
    options = keys(**secrets) | {"err_detect": "explode"}
    with av.open(str(path), format="mp4", options=options, metadata_errors="replace") as container:
        stream = container.streams.audio[0]
        left = round(stream.duration * stream.time_base * stream.rate)
        for frame in container.decode(stream):
            samples = frame.to_ndarray()[:, :left]
            left -= samples.shape[1]
            digest.update(np.ascontiguousarray(samples.T))
    assert left == 0, f"{path} ends {left} samples before it says"
    return digest.hexdigest()
