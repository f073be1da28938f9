"""What else might be called an Audible file, and can't be unlocked? One of each kind, only just recognisable; sound none can hear."""

from __future__ import annotations

import struct
from collections.abc import Callable

import sound
from audible_boxes import Box, box, tree

_LOW_COMPLEXITY = 2


def aa() -> bytes:
    """Return the head of an ``.aa`` file, the format before AAX: its size, its mark, a table of contents."""
    body = struct.pack(">III", 0x57907536, 2, 0) + struct.pack(">III", 0, 200, 64) + struct.pack(">III", 1, 264, 3000)
    tags = b"".join(
        struct.pack(">BII", 0, len(name), len(value)) + name + value
        for name, value in ((b"title", b"The Lighthouse"), (b"codec", b"mp332"), (b"author", b"Ada Keeper"))
    )
    whole = (body + tags).ljust(4092, b"\x5a")
    return struct.pack(">I", len(whole) + 4) + whole


def adh() -> bytes:
    """Return the stub that a browser got instead of a book: an address to be opened by a helper program."""
    return (
        b"assemble_url=http%3A%2F%2Fcds.audible.com%2Fdownload&cust_id=own&title=The+Lighthouse"
        b"&product_id=BK_OWNP_000001&codec=LC_64_22050_stereo&awtype=AAX&domain=www.audible.com"
    )


def cenc() -> bytes:
    """Return an MP4 under Common Encryption, which Widevine opens: ``enca`` with a ``sinf``."""

    def protect(entry: Box) -> None:
        entry.kind = b"enca"
        kinds = box(b"frma", b"mp4a") + box(b"schm", bytes(4) + b"cenc" + struct.pack(">I", 1 << 16))
        assert entry.kids is not None
        entry.kids.append(Box(b"sinf", kinds + box(b"schi", box(b"tenc", bytes(6) + b"\x01\x08" + bytes(range(16))))))

    return _changed(protect)


def dash() -> bytes:
    """Return what streaming downloads as one file: fragments after an index, encrypted as in `cenc`."""
    fragments = sound.m4a(_tone(), 22050, fragmented=True)
    at = fragments.index(b"moof") - 4
    index = box(b"sidx", bytes(4) + struct.pack(">IIIIHH", 1, 22050, 0, 0, 0, 0))
    ftyp = box(b"ftyp", b"dash" + bytes(4) + b"iso6mp41")
    return ftyp + _top(cenc(), b"moov") + index + fragments[at:]


def usac() -> bytes:
    """Return an MP4 whose sound is xHE-AAC: ``mp4a`` of object type 42."""

    def describe(entry: Box) -> None:
        esds = entry.at(b"esds")
        config = esds.data.index(b"\x05\x80\x80\x80") + 5
        rate_and_channels = int.from_bytes(esds.data[config : config + 2], "big") >> 3 & 0xFF
        assert esds.data[config] >> 3 == _LOW_COMPLEXITY
        new = (31 << 11 | (42 - 32) << 5) << 8 | rate_and_channels << 5  # 5 bits escape, 6 bits, 4 + 4
        esds.data = esds.data[:config] + new.to_bytes(3, "big") + esds.data[config + 3 :]

    return _changed(describe)


def dolby_digital_plus() -> bytes:
    """Return an MP4 of ``ec-3``, as Dolby Atmos comes."""
    return _changed(_becomes(b"ec-3", box(b"dec3", bytes((0x0C, 0, 0x60, 0x0F, 0)))))


def dolby_ac4() -> bytes:
    """Return an MP4 of ``ac-4``."""
    return _changed(_becomes(b"ac-4", box(b"dac4", bytes((0x20, 0xA4, 1, 0x40, 0, 0, 0)))))


def _becomes(kind: bytes, description: bytes) -> Callable[[Box], None]:
    def become(entry: Box) -> None:
        entry.kind = kind
        entry.kids = [Box(description[4:8], description[8:])]

    return become


def _tone() -> sound.PCM:
    return sound.tone(1.0, 22050)


def _changed(edit: Callable[[Box], None]) -> bytes:
    """Return an MP4 with another description of its sound; the movie box is last, so that nothing moves."""
    whole = sound.m4a(_tone(), 22050)
    movie = _top(whole, b"moov")
    moov = tree(b"moov", movie[8:])
    edit(moov.at(b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4a"))
    return whole[: -len(movie)] + moov.written()


def _top(whole: bytes, wanted: bytes) -> bytes:
    at = 0
    while at < len(whole):
        size, kind = struct.unpack_from(">I4s", whole, at)
        if kind == wanted:
            return whole[at : at + size]
        at += size
    raise AssertionError(wanted)
