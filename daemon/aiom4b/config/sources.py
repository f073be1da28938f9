"""Where does each value come from, and what is wrong with it? Reads every source, merges, explains."""

from __future__ import annotations

import difflib
import glob
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from aiom4b.config.tree import Settings, secrets, tables
from aiom4b.errors import Fatal
from aiom4b.redaction import keep_secret

PREFIX = "AIOM4B_"
FILE_VARIABLE = "AIOM4B_CONFIG"
SYSTEM_FILE = "/etc/aiom4b/aiom4b.toml"

_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: the dotted key ("" for a whole file), where it was said, and what is the matter."""

    key: str
    origin: str
    reason: str

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.origin}: {self.key} {self.reason}" if self.key else f"{self.origin}: {self.reason}"


class InvalidSettings(Fatal):
    """The settings can't be used; ``problems`` holds every reason at once, the message lists them line by line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            "config.invalid",
            "\n".join([f"The settings have {count}:", *map(str, problems)]),
            remedy="Correct what is listed, then run `aiom4b config check`; `aiom4b config example` shows every setting.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings, the files that were read (weakest first), and for each dotted key the source that won."""

    settings: Settings
    files: tuple[str, ...]
    origins: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    values: Mapping[_Key, object]
    origins: Mapping[_Key, str]


def load(config_file: str | None, overrides: Mapping[str, Any]) -> Settings:
    """Return the settings: ``overrides`` over the environment over credentials over the files over the defaults.

    ``config_file`` is what ``--config`` named, None to look in the usual places. ``overrides`` are the command line's
    values, nested like the tree; None stands for a flag that was not given. In files and in the environment an empty
    text means "not given". A relative path counts from its file, elsewhere from the current directory.
    Raises ``InvalidSettings`` (Fatal ``config.invalid``), naming every problem that the winning values have.
    """
    return load_with_origins(config_file, overrides).settings


def load_with_origins(config_file: str | None, overrides: Mapping[str, Any]) -> Loaded:
    """Do what ``load`` does, and tell which files were read and whose value won; raises the same.

    What is secret in them is hidden from now on wherever this process writes.
    """
    problems: list[Problem] = []
    files, layers = _read_files(config_file, problems)
    layers += [_credentials(problems), _environment(), _command_line(overrides)]
    values: dict[_Key, object] = {}
    origins: dict[_Key, str] = {}
    for layer in layers:
        values |= layer.values
        origins |= layer.origins
    cause: ValidationError | None = None
    try:
        # With the table there even if it is empty, a default that is no good is reported under its full name.
        settings = Settings.model_validate({"paths": {}, **_nested(values)})
    except ValidationError as invalid:
        cause = invalid
        problems += _explained(invalid, origins)
    if problems:
        raise InvalidSettings(problems) from cause
    for table, name in secrets():
        given = getattr(getattr(settings, table), name)
        if given is not None:
            keep_secret(given.get_secret_value())
    won = {".".join(key): origins.get(key, "default") for key in _known()}
    return Loaded(settings=settings, files=files, origins=won)


def _known() -> list[_Key]:
    return [(table, name) for table, kind in tables() for name in kind.model_fields]


def _candidates(config_file: str | None) -> list[str]:
    """Return the files that may be the main one, strongest first; one that was named must exist."""
    named = config_file or os.environ.get(FILE_VARIABLE)
    if named:
        return [os.path.abspath(os.path.expanduser(named))]
    given = os.environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]
    xdg = os.environ.get("XDG_CONFIG_HOME", "")
    user = xdg if os.path.isabs(xdg) else os.path.expanduser("~/.config")
    system = [os.path.join(given, "aiom4b.toml")] if given else []
    return [*system, SYSTEM_FILE, os.path.join(user, "aiom4b", "aiom4b.toml")]


def _read_files(config_file: str | None, problems: list[Problem]) -> tuple[tuple[str, ...], list[_Layer]]:
    """Read the first main file that exists, with what lies in ``conf.d`` beside it; drop-ins alone count too."""
    named = bool(config_file or os.environ.get(FILE_VARIABLE))
    for main in _candidates(config_file):
        drop_ins = sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(main)), "conf.d", "*.toml")))
        found: list[str] = []
        layers: list[_Layer] = []
        for path in [main, *drop_ins]:
            try:
                with open(path, "rb") as file:
                    text = file.read().decode()
                layers.append(_file(path, text))
            except (FileNotFoundError, NotADirectoryError) as error:
                if not named:
                    continue
                problems.append(Problem(key="", origin=path, reason=f"can't be read: {error.strerror}"))
            except OSError as error:
                problems.append(Problem(key="", origin=path, reason=f"can't be read: {error.strerror}"))
            except UnicodeDecodeError as error:
                line = error.object.count(b"\n", 0, error.start) + 1
                problems.append(Problem(key="", origin=f"{path}:{line}", reason="is not UTF-8"))
            except tomllib.TOMLDecodeError as error:
                line, reason = _syntax(str(error), text)
                problems.append(Problem(key="", origin=f"{path}:{line}", reason=reason))
            found.append(path)
        if found:
            return tuple(found), layers
    return (), []


def _syntax(message: str, text: str) -> tuple[int, str]:
    """Return line and reason of tomllib's message: "Invalid value (at line 3, column 7)" or "(at end of document)"."""
    at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = int(at[1]) if at and at[1] else max(len(text.splitlines()), 1)
    return line, f"is not TOML: {message[: at.start()] if at else message}"


def _file(path: str, text: str) -> _Layer:
    values = dict(_leaves(tomllib.loads(text)))
    given = {key: value for key, value in values.items() if value != ""}
    lines = _lines(text)
    return _Layer(
        values=_anchored(given, os.path.dirname(path)),
        origins={key: f"{path}:{lines[key]}" if key in lines else path for key in given},
    )


def _lines(text: str) -> dict[_Key, int]:
    """Guess the line of each key, which tomllib doesn't tell; a key that is written in a rarer way is left out."""
    table: _Key = ()
    lines: dict[_Key, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([\w.-]+)\]", line):
            table = tuple(header[1].split("."))
            lines.setdefault(table, number)
        elif assignment := re.match(r"\s*([\w.-]+)\s*=", line):
            lines.setdefault((*table, *assignment[1].split(".")), number)
    return lines


def _credentials(problems: list[Problem]) -> _Layer:
    """Read the credentials that systemd gave us (systemd.exec(5)): files named like settings, ``api.key``.

    Others are none of our business: a unit may be given what its hooks need.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY", "")
    values: dict[_Key, object] = {}
    origins: dict[_Key, str] = {}
    for key in _known() if directory else ():
        path = os.path.join(directory, ".".join(key))
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read().strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(key=".".join(key), origin=path, reason=f"can't be read: {type(error).__name__}"))
            continue
        if text:
            values[key], origins[key] = text, path
    return _Layer(values=_anchored(values, None), origins=origins)


def _environment() -> _Layer:
    values = dict(_leaves(EnvSettingsSource(Settings)()))
    origins = {key: PREFIX + "__".join(key).upper() for key in values}
    known = dict(tables())
    # The library passes over a variable whose table it doesn't know.
    for name, value in os.environ.items():
        key = tuple(name.removeprefix(PREFIX).lower().split("__"))
        if value and name.startswith(PREFIX) and name != FILE_VARIABLE and key[0] not in known:
            values[key], origins[key] = value, name
    return _Layer(values=_anchored(values, None), origins=origins)


def _command_line(overrides: Mapping[str, Any]) -> _Layer:
    values = {key: value for key, value in _leaves(overrides) if value is not None}
    return _Layer(values=_anchored(values, None), origins=dict.fromkeys(values, "command line"))


def _leaves(tree: Mapping[str, Any], above: _Key = ()) -> Iterator[tuple[_Key, object]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _nested(values: Mapping[_Key, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key in sorted(values, key=len):
        branch: Any = tree
        for name in key[:-1]:
            branch = branch.setdefault(name, {})
            if not isinstance(branch, dict):
                break  # a value stands where a table belongs: the tree keeps it and will refuse it
        else:
            branch.setdefault(key[-1], values[key])
    return tree


def _anchored(values: Mapping[_Key, object], base: str | None) -> dict[_Key, object]:
    """Return the values with every path made absolute, from ``base`` or from the current directory."""
    return {
        key: _absolute(value, base)
        if isinstance(value, str) and (key[0] == "paths" or key == ("log", "file"))
        else value
        for key, value in values.items()
    }


def _absolute(path: str, base: str | None) -> str:
    expanded = os.path.expanduser(path)
    # A home that nobody knows, and an empty path, stay as they are, to be refused.
    if not path or expanded.startswith("~") or os.path.isabs(expanded):
        return expanded
    # Not normalised: behind a symbolic link ".." is another directory than the text tells.
    return os.path.join(base or os.getcwd(), expanded)


def _explained(invalid: ValidationError, origins: Mapping[_Key, str]) -> Iterator[Problem]:
    for error in invalid.errors():
        key = tuple(str(part) for part in error["loc"])[:2]
        if error["type"] == "default_factory_not_called":
            continue  # it depends on a setting that has a problem of its own
        sources = {
            origin: None for path, origin in origins.items() if path[: len(key)] == key or key[: len(path)] == path
        }
        yield Problem(key=".".join(key), origin=", ".join(sources) or "default", reason=_reason(error, key))


def _reason(error: ErrorDetails, key: _Key) -> str:
    value = repr(error["input"])
    if any(secret[: len(key)] == key for secret in secrets()):
        value = "not shown"  # a table is as secret as what may be in it
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    match error["type"]:
        case "extra_forbidden":
            # The value is not shown: under a mistyped name it may be anything, a password too.
            right = _nearest(key)
            return f"is not a setting; did you mean {right}?" if right else "is not a setting"
        case "value_error":
            return f"{error['ctx']['error']}; it is {shown}"
        case "model_type":
            return f"is a table with settings of its own, so it can't be {shown}"
        case _:
            return f"{error['msg'].removeprefix('Input ')}; it is {shown}"


def _nearest(key: _Key) -> str | None:
    """Return the dotted name that was probably meant: in the same table, else anywhere, else a table."""
    if len(key) == 1 and (close := difflib.get_close_matches(key[0], dict(tables()), n=1)):
        return close[0]
    known = _known()
    for names in ([path for path in known if path[0] == key[0]], known):
        close = difflib.get_close_matches(key[-1], [path[-1] for path in names], n=1)
        if close:
            return next(".".join(path) for path in names if path[-1] == close[0])
    return None
