"""Facts about `aiom4b config …`: what a person and a script see, and the exit code."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aiom4b import config as settings
from aiom4b import redaction
from aiom4b.cli import output
from aiom4b.cli.config import app
from aiom4b.errors import NeedsAttention, Transient


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A machine of its own: no settings of whoever runs the tests are seen."""
    for name in list(os.environ):
        if name.upper().startswith(("AIOM4B_", "XDG_")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("aiom4b.config.sources.SYSTEM_FILE", str(tmp_path / "etc" / "aiom4b.toml"))
    monkeypatch.setattr(redaction, "_secrets", [])


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_show_prints_toml_that_means_the_same_settings(tmp_path):
    main = written(tmp_path / "a.toml", '[encode]\nbitrate = "96k"\n[paths]\nlibrary = "books \\" \\u0007\\u007f"')
    shown = run("show", "--config", main)
    assert shown.exit_code == 0
    assert tomllib.loads(shown.stdout)["paths"]["library"] == f'{tmp_path}/books " \a\x7f'
    again = written(tmp_path / "b.toml", shown.stdout)
    assert settings.load(again, {}) == settings.load(main, {})


def test_show_tells_where_each_value_comes_from(tmp_path, monkeypatch):
    main = written(tmp_path / "a.toml", "[encode]\nchannels = 1")
    monkeypatch.setenv("AIOM4B_ENCODE__BITRATE", "64k")
    lines = run("show", "--config", main, "--origin").stdout.splitlines()
    assert f"channels = 1  # {main}:2" in lines
    assert "bitrate = 64000  # AIOM4B_ENCODE__BITRATE" in lines
    assert 'aac_coder = "fast"  # default' in lines


def test_show_answers_in_one_json_document(tmp_path):
    main = written(tmp_path / "a.toml", "[encode]\nchannels = 1")
    document = json.loads(run("show", "--config", main, "--json").stdout)
    assert (document["ok"], document["files"]) == (True, [main])
    assert {"key": "encode.channels", "value": 1} in document["settings"]
    document = json.loads(run("show", "--config", main, "--json", "--origin").stdout)
    assert {"key": "encode.channels", "value": 1, "origin": f"{main}:2"} in document["settings"]


def test_a_library_that_is_not_utf_8_is_shown_escaped(monkeypatch):
    monkeypatch.setenv("AIOM4B_PATHS__LIBRARY", os.fsdecode(b"/srv/H\xf6r\x1b[2J"))
    shown = run("show")
    assert r"H\xf6r" in shown.stdout
    assert "\x1b" not in shown.stdout
    values = {row["key"]: row["value"] for row in json.loads(run("show", "--json").stdout)["settings"]}
    assert values["paths.library"] == "/srv/H\\xf6r\x1b[2J"


def test_example_prints_the_shipped_file():
    assert run("example").stdout == (Path(__file__).parents[2] / "config" / "aiom4b.toml").read_text()


def test_check_finds_nothing_wrong_with_the_example(tmp_path):
    main = written(tmp_path / "a.toml", settings.example())
    checked = run("check", "--config", main)
    assert (checked.exit_code, checked.stdout) == (0, "")
    assert main in checked.stderr
    assert json.loads(run("check", "--config", main, "--json").stdout) == {"ok": True, "files": [main]}


@pytest.mark.parametrize("command", ["show", "check"])
def test_mistakes_are_all_told_on_stderr_with_exit_code_78(tmp_path, command):
    main = written(tmp_path / "a.toml", "[encode]\nchanels = 1\nworkers = -1")
    failed = run(command, "--config", main)
    assert (failed.exit_code, failed.stdout) == (78, "")
    assert f"{main}:2: encode.chanels is not a setting; did you mean encode.channels?" in failed.stderr
    assert f"{main}:3: encode.workers should be greater than or equal to 0; it is -1" in failed.stderr
    assert "[config.invalid]" in failed.stderr
    assert "remedy: " in failed.stderr


@pytest.mark.parametrize("command", ["show", "check"])
def test_mistakes_are_one_json_document_if_asked(tmp_path, command):
    main = written(tmp_path / "a.toml", "[encode]\nchanels = 1\nworkers = -1")
    failed = run(command, "--config", main, "--json")
    assert (failed.exit_code, failed.stderr) == (78, "")
    document = json.loads(failed.stdout)
    assert document["ok"] is False
    assert set(document["error"]) == {"code", "message", "remedy"}
    assert document["error"]["code"] == "config.invalid"
    assert [(problem["key"], problem["origin"]) for problem in document["problems"]] == [
        ("encode.workers", f"{main}:3"),
        ("encode.chanels", f"{main}:2"),
    ]


def test_check_refuses_a_backup_inside_the_library(tmp_path):
    main = written(tmp_path / "a.toml", '[paths]\nlibrary = "books"\nbackup = "books/backup"')
    assert run("show", "--config", main).exit_code == 0
    failed = run("check", "--config", main, "--json")
    assert failed.exit_code == 78
    assert json.loads(failed.stdout)["error"]["code"] == "config.directories"


# --- how errors look --------------------------------------------------------------------------------------------------


def failure(error, capsys, *, json):
    with pytest.raises(output.typer.Exit) as left:
        output.fail(error, json)
    return left.value.exit_code, capsys.readouterr()


def test_a_name_in_an_error_can_neither_drive_the_terminal_nor_pass_for_another_line(capsys):
    error = NeedsAttention("a.b", "No \x1b[2J\udcff[bold]\u202e\nremedy: run this", remedy="Do\nthat.")
    code, told = failure(error, capsys, json=False)
    assert (code, told.out) == (1, "")
    assert told.err.splitlines() == [
        r"error: No \x1b[2J\xff[bold]\u202e",
        "  remedy: run this [a.b]",
        "remedy: Do",
        "  that.",
    ]


def test_an_error_in_json_keeps_its_text_and_hides_its_secrets(capsys):
    redaction.keep_secret("canary")
    code, told = failure(Transient("a.b", 'A "canary" \udcff\u202e', remedy="Wait."), capsys, json=True)
    assert (code, told.err) == (75, "")
    assert "\u202e" not in told.out
    message = 'A "[redacted]" \\xff\u202e'
    assert json.loads(told.out)["error"] == {"code": "a.b", "message": message, "remedy": "Wait."}


def test_an_error_for_people_hides_its_secrets(capsys):
    redaction.keep_secret("canary")
    _, told = failure(Transient("a.b", "The canary", remedy="Feed the canary"), capsys, json=False)
    assert "canary" not in told.err


def test_a_long_reason_is_not_broken_into_lines(capsys):
    _, told = failure(Transient("a.b", "word " * 60, remedy="Wait."), capsys, json=False)
    assert len(told.err.splitlines()) == 2


def test_a_title_in_brackets_is_not_taken_for_markup(capsys):
    output.console().print("[bold]Title")
    output.talk("[bold]Title")
    assert capsys.readouterr().err == "[bold]Title\n" * 2
