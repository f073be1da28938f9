"""What does a metadata.json for Audiobookshelf look like? Only what is known: "" and [] would erase what the tags say."""

from __future__ import annotations

import json

from aiom4b.models import Metadata, SeriesEntry


def metadata_json(metadata: Metadata) -> bytes:
    """Return the file's bytes; names stand in it as they are, since Audiobookshelf does not take them apart there.

    No chapters: those of the file are right, and these would replace them.
    """
    known = {
        "title": metadata.title,
        "subtitle": metadata.subtitle,
        "authors": list(metadata.authors),
        "narrators": list(metadata.narrators),
        "series": [_series(entry) for entry in metadata.series],
        "genres": list(metadata.genres),
        "publishedYear": metadata.year,
        "publisher": metadata.publisher,
        "description": metadata.description,
        "isbn": metadata.isbn,
        "asin": metadata.asin,
        "language": metadata.language,
    }
    document = {key: value for key, value in known.items() if value}
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode()


def _series(entry: SeriesEntry) -> str:
    return f"{entry.name} #{entry.part}" if entry.part else entry.name
