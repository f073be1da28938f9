"""Does every picture become a plain cover, and does no picture cost more than it may?"""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from aiom4b.adapters import covers
from aiom4b.errors import NeedsAttention


def picture(mode="RGB", size=(64, 48), format="JPEG", colour=None, **options):
    out = BytesIO()
    Image.new(mode, size, colour if colour is not None else 0).save(out, format, **options)
    return out.getvalue()


def opened(cover):
    shown = Image.open(BytesIO(cover.jpeg))
    shown.load()
    assert (shown.format, shown.mode, shown.size) == ("JPEG", "RGB", (cover.width, cover.height))
    assert not shown.info.get("progressive")
    return shown


def refused(data):
    with pytest.raises(NeedsAttention) as caught:
        covers.sane_jpeg(data)
    assert caught.value.code == "cover.unusable"
    return caught.value.reason


def test_a_sane_jpeg_passes_byte_for_byte():
    data = picture(colour=(9, 8, 7))
    assert covers.sane_jpeg(data) == covers.Cover(jpeg=data, width=64, height=48)


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("CMYK", "JPEG", {}), ("L", "JPEG", {}), ("RGB", "JPEG", {"progressive": True}), ("P", "PNG", {}), ("1", "PNG", {}),
        ("RGB", "WEBP", {}), ("P", "GIF", {}), ("RGB", "BMP", {}), ("RGB", "TIFF", {}), ("RGBA", "PNG", {}), ("LA", "PNG", {}),
    ],
)  # fmt: skip
def test_every_other_picture_becomes_one_the_same_way_each_time(mode, format, options):
    data = picture(mode, format=format, **options)
    cover = covers.sane_jpeg(data)
    opened(cover)
    assert cover.warnings
    assert covers.sane_jpeg(data) == cover


def test_what_is_transparent_becomes_white():
    assert min(opened(covers.sane_jpeg(picture("RGBA", format="PNG", colour=(0, 0, 0, 0)))).getpixel((5, 5))) > 250


def test_sixteen_bits_of_grey_keep_their_brightness():
    out = BytesIO()
    Image.fromarray(np.full((32, 32), 0x8000, np.uint16)).save(out, "PNG")
    assert abs(opened(covers.sane_jpeg(out.getvalue())).getpixel((3, 3))[0] - 128) < 3


def test_a_turned_picture_is_put_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    cover = covers.sane_jpeg(picture(exif=exif))
    assert (cover.width, cover.height) == (48, 64)
    assert opened(cover).getexif().get(0x0112, 1) == 1


def test_a_large_picture_is_made_smaller_in_its_shape():
    cover = covers.sane_jpeg(picture(size=(3000, 1500)))
    assert (cover.width, cover.height) == (2400, 1200)


def test_a_heavy_picture_is_made_lighter():
    noise = np.random.default_rng(1).integers(0, 256, (1500, 1500, 3), np.uint8)
    out = BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=100)
    assert len(out.getvalue()) > covers.JPEG_BYTES
    cover = covers.sane_jpeg(out.getvalue())
    assert len(cover.jpeg) <= covers.JPEG_BYTES
    assert opened(cover)


def bomb(side):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 20_000, 100_000])
def test_a_bomb_is_refused_by_its_head(side, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    refused(bomb(side))


def test_too_many_bytes_are_refused_unread():
    assert "MiB" in refused(picture() + bytes(covers.INPUT_BYTES))


@pytest.mark.parametrize(
    "data",
    [b"", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\xff\xd8\xff", picture(size=(1, 1)), picture(format="ICO")],
)
def test_what_is_no_usable_picture_is_refused(data):
    refused(data)


def test_half_a_picture_is_refused():
    noise = np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)
    out = BytesIO()
    Image.fromarray(noise).save(out, "JPEG")
    refused(out.getvalue()[: len(out.getvalue()) // 2])
