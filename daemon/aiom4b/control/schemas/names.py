"""How do names travel through JSON, when names are bytes? As text that can be shown, and in base64 where that isn't enough."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from aiom4b.adapters.files import displayable
from aiom4b.models import Name


def exactly(name: str | None) -> str | None:
    """Return a name's bytes in base64 where what is shown of it (`displayable`) would not find it again, else None."""
    if name is None or displayable(name) == name:
        return None
    return base64.b64encode(os.fsencode(name)).decode("ascii")


def shown(name: str | None) -> str | None:
    """Return a name fit for JSON and terminals, None for None."""
    return None if name is None else displayable(name)


def named(value: object) -> str:
    """Return the name that somebody sent, as ``os.fsdecode`` would give it; raises ValueError when it is none."""
    if isinstance(value, dict) and list(value) == ["name_b64"] and isinstance(value["name_b64"], str):
        value = os.fsdecode(base64.b64decode(value["name_b64"], validate=True))
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError('should be a name, or {"name_b64": its bytes in base64}')
    try:
        length = len(os.fsencode(value))
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character") from error  # a surrogate that stands for no byte
    if length > 4096:
        raise ValueError("is longer than any path can be")
    return value


TEXT_OR_BYTES = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"name_b64": {"type": "string", "format": "byte"}}, "required": ["name_b64"]},
    ],
    "description": "A name as text or, where it is not UTF-8, its bytes in base64.",
}
GivenName = Annotated[Name, BeforeValidator(named), WithJsonSchema(TEXT_OR_BYTES)]
Exact = Annotated[
    str | None,
    Field(default=None, exclude_if=lambda value: value is None, description="The exact bytes in base64, if needed."),
]


def all_exactly(names: Sequence[str]) -> list[str] | None:
    """Return the bytes of all names in base64 if any of them needs it, else None."""
    if all(exactly(name) is None for name in names):
        return None
    return [base64.b64encode(os.fsencode(name)).decode("ascii") for name in names]


def readable(text: str) -> str:
    r"""Return ``text`` with its lines, and without surrogates, which JSON can't carry: bytes show as ``\xff``."""
    return "\n".join(map(displayable, text.split("\n")))


def all_readable(value: Any) -> Any:
    """Return JSON values with every text in them made `readable`."""
    match value:
        case str():
            return readable(value)
        case dict():
            return {readable(str(key)): all_readable(below) for key, below in value.items()}
        case list() | tuple():
            return [all_readable(below) for below in value]
        case _:
            return value
