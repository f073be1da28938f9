"""Facts about what we tell: one line an event, safe on a terminal, without secrets."""

from __future__ import annotations

import io
import json
import logging
import os
from datetime import datetime, timedelta

import pytest
import structlog

from aiom4b import logs, redaction


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Put everything back that configure() changes for the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("aiom4b")
    before = root.handlers[:], root.level, ours.level
    for name in ("JOURNAL_STREAM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(redaction, "_secrets", [])
    yield
    structlog.reset_defaults()
    root.handlers[:], level, ours_level = before
    root.setLevel(level)
    ours.setLevel(ours_level)


def told(level="info", format="json", stream=None, **event):
    stream = io.StringIO() if stream is None else stream
    logs.configure(level, format, stream)
    structlog.get_logger().info("step.completed", **event)
    return stream.getvalue()


def test_an_event_is_one_line_of_json_with_a_utc_time():
    text = told(step="convert", title="Größe", text="two\nlines\u2028or three")
    assert len(text.splitlines()) == 1
    assert "Größe" in text
    event = json.loads(text)
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert datetime.fromisoformat(event.pop("timestamp")).utcoffset() == timedelta(0)
    assert event == {
        "level": "info",
        "event": "step.completed",
        "step": "convert",
        "title": "Größe",
        "text": "two\nlines\u2028or three",
    }


def test_a_name_that_is_not_utf_8_is_told_without_a_lone_surrogate():
    text = told(name=os.fsdecode(b"H\xf6r"), lone="\ud800")
    text.encode()
    assert json.loads(text)["name"] == r"H\xf6r"
    assert json.loads(text)["lone"] == r"\ud800"


def test_a_value_that_json_does_not_know_is_told_as_text():
    assert json.loads(told(error=ValueError("no")))["error"] == "no"


def test_nothing_in_an_event_drives_a_terminal():
    name = "a\x1b[2J\x9b\u202eb"
    for text in (told(name=name, names=[name]), told(format="console", name=name, names=[name])):
        assert text.rstrip("\n").isprintable()


def test_a_traceback_belongs_to_its_event():
    for format in ("json", "console"):
        stream = io.StringIO()
        logs.configure("info", format, stream)
        try:
            raise ValueError("x\x1b[2Jy")
        except ValueError:
            structlog.get_logger().exception("job.failed")
        assert "Traceback" in stream.getvalue()
        assert "\x1b" not in stream.getvalue()
        assert len(stream.getvalue().splitlines()) == (1 if format == "json" else 5)


def test_what_is_below_the_level_is_not_told():
    assert told(level="warning") == ""
    assert told(level="info") != ""


def test_bound_context_is_in_every_event():
    with structlog.contextvars.bound_contextvars(job="7"):
        assert json.loads(told())["job"] == "7"


def test_libraries_are_heard_from_warning_up_and_in_our_form():
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logging.getLogger("strange.library").info("chatter")
    logging.getLogger("strange.library").warning("it %s", "broke")
    event = json.loads(stream.getvalue())
    assert (event["event"], event["level"], event["logger"]) == ("it broke", "warning", "strange.library")


def test_configuring_again_does_not_tell_twice():
    logs.configure("info", "json", first := io.StringIO())
    assert len(told().splitlines()) == 1
    assert first.getvalue() == ""


# --- where it goes ----------------------------------------------------------------------------------------------------


def test_auto_is_readable_on_a_terminal_and_json_elsewhere():
    assert told(format="auto").startswith("{")
    assert not told(format="auto", stream=Terminal()).startswith("{")
    assert told(format="json", stream=Terminal()).startswith("{")


def test_colours_are_for_terminals_that_did_not_forbid_them(monkeypatch):
    assert "\x1b[" in told(format="console", stream=Terminal())
    assert "\x1b[" not in told(format="console")
    monkeypatch.setenv("NO_COLOR", "")
    assert "\x1b[" in told(format="console", stream=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in told(format="console", stream=Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in told(format="console", stream=Terminal())


def test_the_journal_is_told_the_priority_of_each_line(tmp_path, monkeypatch):
    with open(tmp_path / "journal", "w+", encoding="utf-8") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.configure("info", "console", stream)
        structlog.get_logger().info("fine")
        structlog.get_logger().error("bad", exception="one\ntwo")
        stream.seek(0)
        assert [line[:3] for line in stream] == ["<6>", "<3>", "<3>", "<3>"]
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        logs.configure("info", "json", stream)
        structlog.get_logger().info("fine")
        stream.seek(0)
        assert stream.readlines()[-1].startswith("{")


def test_the_prefix_is_not_written_to_a_stream_without_a_file(monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert told().startswith("{")


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("format", ["json", "console"])
def test_a_known_secret_is_hidden_wherever_it_stands(format, stream):
    secret = 'cana"ry\nmit Grüßen\\'
    redaction.keep_secret(secret)
    text = told(
        format=format, stream=stream(), plain=f"it is {secret}.", deep={"list": [secret]}, error=OSError(secret)
    )
    assert "cana" not in text
    assert "Gr" not in text
    assert text.count("[redacted]") == 3


@pytest.mark.parametrize("quoted", [json.dumps, lambda text: json.dumps(text, ensure_ascii=False), repr])
def test_a_known_secret_is_hidden_in_a_text_that_quotes_it(quoted):
    secret = "canary\"\n'Grüße"
    redaction.keep_secret(secret)
    assert redaction.redact(f"Reply: {quoted(secret)}").strip("'\"") == 'Reply: "[redacted]'.replace('"', quoted("")[0])


def test_a_secret_that_holds_another_is_hidden_whole():
    for secret in ("canary", "canary-bird", "a canary-bird sings"):
        redaction.keep_secret(secret)
    assert redaction.redact("Hear: a canary-bird sings") == "Hear: [redacted]"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("format", ["json", "console"])
@pytest.mark.parametrize(
    "event",
    [
        {"text": "got Atna|canary/+= and Atnr|canary"},
        {"text": "-----BEGIN RSA PRIVATE KEY-----\ncanary\n-----END RSA PRIVATE KEY-----"},
        {"text": "-----BEGIN RSA PRIVATE KEY-----\ncanary, cut off"},
        {"text": json.dumps("-----BEGIN RSA PRIVATE KEY-----\ncanary")},
        {"text": "url?access_token=canary&x=1"},
        {"text": "Authorization: Bearer canary"},
        {"text": "audible_key=canary"},
        {"text": "key=0123456789abcdefcanary"[:20], "iv": "x"},
        {"reply": {"refresh_token": "canary", "cookies": "canary"}},
        {"reply": '{"adp_token": "canary"}'},
        {"reply": {"cookies": {"session": "canary"}, "password": None, "items": [{"secret": ["canary"]}]}},
        {"password": "canary"},
        {"activation_bytes": "canary"},
    ],
)
def test_what_looks_like_a_secret_is_hidden(event, format, stream):
    text = told(format=format, stream=stream(), **event)
    assert "[redacted]" in text
    assert "canary" not in text
    assert "01234567" not in text
    if format == "json":
        json.loads(text)


def test_everyday_words_are_not_taken_for_secrets():
    text = "key=encode.bitrate sha256=0123456789abcdef0123456789abcdef monkey: deadbeef00 tokens left: 3"
    assert redaction.redact(text) == text


@pytest.mark.parametrize(
    "value", [["password:"], {"password:": 1}, {"cookies": None}, "-----BEGIN KEY-----\n", ["key="]]
)
def test_hiding_never_breaks_json(value):
    json.loads(told(value=value))


def test_a_secret_that_is_too_short_to_hide_is_refused():
    with pytest.raises(ValueError, match="6 characters"):
        redaction.keep_secret("abc")


def test_a_file_gets_every_line_as_json_and_is_rotated(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "_FILE_BYTES", 2000)
    path = tmp_path / "aiom4b.log"
    console = io.StringIO()
    logs.configure("info", "console", console, file=str(path))
    try:
        for number in range(100):
            structlog.get_logger().info("book.published", number=number, password="hunter22")
    finally:
        logs.configure("info", "console", console)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 6
    events = [json.loads(line) for file in kept for line in file.read_text().splitlines()]
    assert {event["event"] for event in events} == {"book.published"}
    assert "hunter22" not in console.getvalue() + "".join(file.read_text() for file in kept)
    assert console.getvalue().count("book.published") == 100
