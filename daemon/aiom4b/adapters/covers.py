"""How does any picture become a cover that every player shows? The only user of Pillow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageOps

from aiom4b.errors import NeedsAttention

SIDE = 2400
"""Longest side of a cover in pixels."""
JPEG_BYTES = 3 << 20
INPUT_BYTES = 20 << 20
_INPUT_SIDE = 10_000
_INPUT_PIXELS = 50_000_000
_SMALLEST_SIDE = 16
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_UPRIGHT = (None, 1)
_ORIENTATION = 0x0112
# Longest side and quality, the next when the bytes are too many: noise of 1000 x 1000 at 70 stays below 1 MB.
_ATTEMPTS = ((SIDE, 90), (SIDE, 75), (1600, 75), (1000, 70))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """A baseline RGB JPEG of at most `SIDE` x `SIDE` pixels and `JPEG_BYTES` bytes, and what was done to get it."""

    jpeg: bytes
    width: int
    height: int
    warnings: tuple[str, ...] = ()


def sane_jpeg(data: bytes) -> Cover:
    """Return the picture in ``data`` as a cover, whatever its format is called outside.

    A JPEG that is one already passes byte for byte. Everything else is turned upright, laid on white, brought to RGB,
    made small enough and encoded: the same bytes each time (with one version of Pillow). Pictures of more than 20 MiB,
    10,000 pixels a side or 50 million pixels are refused before any pixel is decoded.

    Raises NeedsAttention ``cover.unusable`` when no cover can be made of it.
    """
    if len(data) > INPUT_BYTES:
        raise _unusable(f"it has {len(data) >> 20} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about its own pixel limit and odd EXIF; ours decides below
            return _cover(data)
    except NeedsAttention:
        raise
    except Exception as error:
        # Broken pictures have made Pillow raise OSError, SyntaxError, ValueError, struct.error and its own bomb error.
        raise _unusable(f"it can't be decoded ({type(error).__name__})") from error


def _cover(data: bytes) -> Cover:
    with Image.open(BytesIO(data), formats=_FORMATS) as opened:
        width, height = opened.size
        if max(width, height) > _INPUT_SIDE or width * height > _INPUT_PIXELS:
            raise _unusable(f"it has {width} x {height} pixels")
        if min(width, height) < _SMALLEST_SIDE:
            raise _unusable(f"it has only {width} x {height} pixels")
        opened.load()
        is_sane = (
            opened.format == "JPEG"
            and opened.mode == "RGB"
            and not opened.info.get("progressive")
            and opened.getexif().get(_ORIENTATION) in _UPRIGHT
            and max(width, height) <= SIDE
            and len(data) <= JPEG_BYTES
        )
        if is_sane:
            return Cover(jpeg=data, width=width, height=height)
        # A profile describes the colours of its own mode: that of a CMYK picture would be wrong in RGB.
        profile = opened.info.get("icc_profile") if opened.mode in {"RGB", "RGBA"} else None
        done = f"The cover ({opened.format} {opened.mode}, {width} x {height} pixels, {len(data)} bytes) was made a plain JPEG."
        picture = _rgb(ImageOps.exif_transpose(opened))
    for side, quality in _ATTEMPTS:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = BytesIO()
        picture.save(out, "JPEG", quality=quality, icc_profile=profile)
        if out.tell() <= JPEG_BYTES:
            return Cover(jpeg=out.getvalue(), width=picture.width, height=picture.height, warnings=(done,))
    raise _unusable("it stays too large, however small it is made")


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow's own conversion would cut everything over 255 to white
        picture = picture.convert("I").point(lambda value: value / 257).convert("L")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(paper, picture)
    # A copy without the metadata of the original, which `save` would take over.
    plain = Image.new("RGB", picture.size)
    plain.paste(picture.convert("RGB"))
    return plain


def _unusable(why: str) -> NeedsAttention:
    return NeedsAttention(
        "cover.unusable",
        f"The picture can't be used as a cover: {why}.",
        remedy="Put another picture named cover.jpg beside the audio if the book shall have a cover.",
    )
