"""What is known of the book, by an OPF package file (versions 2 and 3, calibre's additions)?"""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring

from aiom4b.adapters import text
from aiom4b.adapters.sidecars.descriptions import year_of
from aiom4b.models import Metadata, SeriesEntry

_DC = "{http://purl.org/dc/elements/1.1/}"
_OPF = "{http://www.idpf.org/2007/opf}"


def read(data: bytes) -> Metadata:
    """Return what the package says. Raises ValueError for what is no XML, or XML that defines or fetches entities."""
    try:
        root: Any = fromstring(data)
    except (ParseError, LookupError) as error:  # what defusedxml forbids is a ValueError already
        raise ValueError("not a package file") from error
    package = _Package(root)
    titles = package.texts("title", "title-type", {"", "main"})
    published = [
        element for element in package.of("date") if element.get(f"{_OPF}event", "publication") == "publication"
    ]
    return Metadata(
        title=titles[0] if titles else "",
        subtitle=next(iter(package.texts("title", "title-type", {"subtitle"})), ""),
        authors=package.people({"", "aut"}, "creator"),
        narrators=package.people({"nrt"}, "creator", "contributor"),
        series=package.series(),
        genres=tuple(dict.fromkeys(package.texts("subject"))),
        year=next((year for element in published if (year := year_of(_text(element)))), ""),
        description=text.prose("".join(next(iter(package.of("description")), Element("none")).itertext())),
        publisher="; ".join(package.texts("publisher")),
        language=next(iter(package.texts("language")), ""),
        asin=package.identifier("asin", r"[A-Z0-9]{10}"),
        isbn=package.identifier("isbn", r"[0-9Xx][0-9Xx -]{8,16}"),
        copyright=next(iter(package.texts("rights")), ""),
    )


class _Package:
    """The metadata elements of a package, and what its ``meta`` elements add to them."""

    def __init__(self, root: Element) -> None:
        self._elements = list(root.iter())
        self._metas = [element for element in self._elements if element.tag.rpartition("}")[2] == "meta"]
        self._refined = {
            (meta.get("refines", "").removeprefix("#"), meta.get("property", "")): _text(meta)
            for meta in self._metas
            if meta.get("refines")
        }

    def of(self, name: str) -> list[Element]:
        return [element for element in self._elements if element.tag == _DC + name]

    def refined(self, element: Element, property: str) -> str:
        return self._refined.get((element.get("id", ""), property), "") if element.get("id") else ""

    def texts(self, name: str, property: str = "", wanted: set[str] | None = None) -> list[str]:
        found = self.of(name)
        if wanted is not None:
            found = [element for element in found if self.refined(element, property) in wanted]
        return [value for element in found if (value := _text(element))]

    def people(self, roles: set[str], *names: str) -> tuple[str, ...]:
        people = []
        for element in (element for name in names for element in self.of(name)):
            role = element.get(f"{_OPF}role") or element.get("role") or self.refined(element, "role")
            if role.lower() in roles:
                people.append(_text(element))
        return tuple(dict.fromkeys(person for person in people if person))

    def series(self) -> tuple[SeriesEntry, ...]:
        named = {meta.get("name", ""): text.line(meta.get("content", "")) for meta in self._metas}
        if name := named.get("calibre:series"):
            return (SeriesEntry(name=name, part=_part(named.get("calibre:series_index", ""))),)
        collections = [meta for meta in self._metas if meta.get("property") == "belongs-to-collection"]
        return tuple(
            SeriesEntry(name=_text(meta), part=_part(self.refined(meta, "group-position")))
            for meta in collections
            if _text(meta) and self.refined(meta, "collection-type") in {"", "series"}
        )

    def identifier(self, scheme: str, form: str) -> str:
        """Return the identifier of a scheme, written as an attribute or as in ``urn:isbn:…``, when it has its form."""
        for element in self.of("identifier"):
            given = (element.get(f"{_OPF}scheme") or element.get("scheme") or "").lower()
            prefix, _, value = _text(element).removeprefix("urn:").rpartition(":")
            if scheme in {given, prefix.lower()} and re.fullmatch(form, value):
                return value
        return ""


def _text(element: Element) -> str:
    return text.line("".join(element.itertext()))


def _part(index: str) -> str:
    """Return calibre's index, always a decimal number there, as people write it: ``1.0`` is 1."""
    return re.sub(r"\.0+$", "", index)
