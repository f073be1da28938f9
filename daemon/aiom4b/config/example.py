"""How does a settings file look? The complete example, and how a value is written."""

from __future__ import annotations

import json
import textwrap

from aiom4b.config.tree import tables

_HEAD = """\
# Settings of aiom4b. Each is shown with its default; remove the # in front of a name to change it.
# Stronger than this file: *.toml in the directory conf.d beside it, in the order of their names; then environment
# variables (encode.bitrate is AIOM4B_ENCODE__BITRATE); then the command line.
# `aiom4b config check` finds mistakes, `aiom4b config show --origin` tells where each value comes from."""


def toml(value: object) -> str:
    """Write one value as TOML; None, which TOML lacks, as the empty text that means "not given"."""
    if value is None:
        return '""'
    # TOML's basic strings know JSON's escapes; DEL is the one character that only TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def example() -> str:
    """Return a complete settings file in which every setting is explained and commented out, with its default."""
    blocks = [_HEAD]
    for table, kind in tables():
        blocks.append(f"{_comment(kind.__doc__ or '')}\n[{table}]")
        for name, field in kind.model_fields.items():
            default = None if field.default_factory else field.default
            blocks.append(f"{_comment(field.description or '')}\n#{name} = {toml(default)}")
    return "\n\n".join(blocks) + "\n"


def _comment(text: str) -> str:
    return textwrap.fill(text, width=110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
