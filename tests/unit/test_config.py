"""Facts about the settings: who wins, what is refused, and how it is explained."""

from __future__ import annotations

import os
import re
import traceback
from pathlib import Path

import pytest

from aiom4b import config
from aiom4b.app.reload import merged
from aiom4b.config import InvalidSettings, directory_problems, load, load_with_origins
from aiom4b.errors import Exit, Fatal


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A machine of its own: no settings of whoever runs the tests are seen."""
    for name in list(os.environ):
        if name.upper().startswith(("AIOM4B_", "XDG_")) or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("aiom4b.config.sources.SYSTEM_FILE", str(tmp_path / "etc" / "aiom4b.toml"))
    return home


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def problems(config_file: str | None = None, overrides: dict | None = None) -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        load(config_file, overrides or {})
    assert caught.value.code == "config.invalid"
    assert caught.value.exit is Exit.CONFIGURATION
    found = [str(problem) for problem in caught.value.problems]
    assert caught.value.reason.splitlines()[1:] == found
    return found


# --- who wins ---------------------------------------------------------------------------------------------------------


def test_without_any_source_the_defaults_hold(home):
    settings = load(None, {})
    assert settings.paths.library is None
    assert settings.paths.state == f"{home}/.local/state/aiom4b"
    assert settings.paths.backup == f"{home}/.local/state/aiom4b/backup"
    assert (settings.backup.enabled, settings.encode.bitrate, settings.encode.workers) == (True, "auto", 0)


def test_a_stronger_source_wins_key_by_key(tmp_path, monkeypatch):
    main = write(tmp_path / "aiom4b.toml", "[encode]\nbitrate = 1\nchannels = 1\nworkers = 1\nsample_rate = 48000")
    write(tmp_path / "conf.d" / "20.toml", "[encode]\nbitrate = 3\nchannels = 1\nworkers = 3")
    write(tmp_path / "conf.d" / "10.toml", "[encode]\nbitrate = 2\nchannels = 2\nworkers = 2")
    monkeypatch.setenv("AIOM4B_ENCODE__BITRATE", "4")
    monkeypatch.setenv("AIOM4B_ENCODE__CHANNELS", "2")
    loaded = load_with_origins(main, {"encode": {"bitrate": "96k", "channels": None}})
    encode = loaded.settings.encode
    assert (encode.bitrate, encode.channels, encode.workers, encode.sample_rate) == (96_000, 2, 3, 48_000)
    assert loaded.files == (main, f"{tmp_path}/conf.d/10.toml", f"{tmp_path}/conf.d/20.toml")
    assert loaded.origins["encode.bitrate"] == "command line"
    assert loaded.origins["encode.channels"] == "AIOM4B_ENCODE__CHANNELS"
    assert loaded.origins["encode.workers"] == f"{tmp_path}/conf.d/20.toml:4"
    assert loaded.origins["encode.sample_rate"] == f"{main}:5"
    assert loaded.origins["encode.aac_coder"] == "default"


def test_the_first_main_file_that_exists_is_read_and_no_other(home, tmp_path, monkeypatch):
    user = write(home / ".config" / "aiom4b" / "aiom4b.toml", "[jobs]\nmax_concurrent = 1")
    assert load_with_origins(None, {}).files == (user,)
    system = write(tmp_path / "etc" / "aiom4b.toml", "[jobs]\nmax_concurrent = 2")
    assert load_with_origins(None, {}).files == (system,)
    given = write(tmp_path / "given" / "aiom4b.toml", "[jobs]\nmax_concurrent = 3")
    monkeypatch.setenv("CONFIGURATION_DIRECTORY", str(tmp_path / "given"))
    assert load_with_origins(None, {}).files == (given,)
    variable = write(tmp_path / "other.toml", "[jobs]\nmax_concurrent = 4")
    monkeypatch.setenv("AIOM4B_CONFIG", variable)
    assert load_with_origins(None, {}).files == (variable,)
    flag = write(tmp_path / "flag.toml", "[jobs]\nmax_concurrent = 5")
    assert load(flag, {}).jobs.max_concurrent == 5


def test_drop_ins_count_without_a_main_file(tmp_path):
    write(tmp_path / "etc" / "conf.d" / "a.toml", "[jobs]\nmax_concurrent = 9")
    assert load(None, {}).jobs.max_concurrent == 9


def test_drop_ins_are_read_in_the_order_of_their_names(tmp_path):
    names = [write(tmp_path / "etc" / "conf.d" / f"{name}.toml", "") for name in "hbfadgce"]
    assert list(load_with_origins(None, {}).files) == sorted(names)


def test_directories_given_by_systemd_come_before_those_of_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/xdg")
    assert load(None, {}).paths.state == f"{tmp_path}/xdg/aiom4b"
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/aiom4b:/var/lib/other")
    paths = load(None, {}).paths
    assert (paths.state, paths.backup) == ("/var/lib/aiom4b", "/var/lib/aiom4b/backup")


def test_the_backup_follows_a_state_directory_that_was_chosen():
    assert load(None, {"paths": {"state": "/s"}}).paths.backup == "/s/backup"


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_relative_path_counts_from_its_file_and_a_tilde_is_home(home, tmp_path, monkeypatch):
    main = write(tmp_path / "etc" / "a.toml", '[paths]\nlibrary = "books"\nbackup = "~/copies"')
    write(tmp_path / "etc" / "conf.d" / "b.toml", '[paths]\nlibrary = "more"')
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    paths = load(main, {"paths": {"state": "state"}}).paths
    assert (paths.library, paths.backup) == (f"{tmp_path}/etc/conf.d/more", f"{home}/copies")
    assert paths.state == f"{tmp_path}/here/state"


def test_a_path_keeps_dots_that_a_link_may_turn_elsewhere():
    assert load(None, {"paths": {"library": "/link/../books"}}).paths.library == "/link/../books"


def test_a_path_that_is_not_utf_8_is_taken_as_it_is(monkeypatch):
    monkeypatch.setenv("AIOM4B_PATHS__LIBRARY", os.fsdecode(b"/srv/H\xf6rbuch"))
    library = load(None, {}).paths.library
    assert library is not None
    assert os.fsencode(library) == b"/srv/H\xf6rbuch"


def test_an_empty_text_in_a_file_or_the_environment_is_not_given(tmp_path, monkeypatch):
    main = write(tmp_path / "a.toml", '[paths]\nlibrary = "/a"\nstate = ""')
    monkeypatch.setenv("AIOM4B_PATHS__LIBRARY", "")
    paths = load(main, {}).paths
    assert paths.library == "/a"
    assert paths.state.endswith("/.local/state/aiom4b")


def test_an_empty_flag_is_a_mistake_and_not_the_default():
    assert problems(None, {"paths": {"library": ""}}) == [
        "command line: paths.library should be the path of a directory; it is ''"
    ]


@pytest.mark.parametrize(
    ("written", "meant"), [("64k", 64_000), (64_000, 64_000), ("64000", 64_000), ("auto", "auto"), ("8K", 8_000)]
)
def test_a_bit_rate_is_written_in_several_ways(written, meant):
    assert load(None, {"encode": {"bitrate": written}}).encode.bitrate == meant


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bitrate", 64),
        ("bitrate", "64kb"),
        ("bitrate", True),
        ("bitrate", 600_000),
        ("channels", 3),
        ("channels", "2.0"),
        ("sample_rate", 44_000),
        ("aac_coder", "slow"),
        ("workers", -1),
        ("workers", True),
        ("workers", "many"),
        ("aac_join", ""),
        ("on_damage", "ignore"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_with_itself(key, value):
    (problem,) = problems(None, {"encode": {key: value}})
    assert problem.startswith(f"command line: encode.{key} should be ")
    assert problem.endswith(f"; it is {value!r}")


def test_settings_do_not_change_afterwards():
    settings = load(None, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.encode.workers = 3
    with pytest.raises(ValueError, match="frozen"):
        settings.encode = settings.encode


def test_making_settings_by_hand_does_not_ask_the_environment(monkeypatch):
    monkeypatch.setenv("AIOM4B_ENCODE__WORKERS", "7")
    assert config.Settings().encode.workers == 0


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_every_mistake_is_told_at_once_with_its_place_and_the_right_name(tmp_path, monkeypatch):
    main = write(tmp_path / "a.toml", '[encode]\nbitrat = "64k"\nchannels = 7\n\n[loging]\nlevel = "info"')
    broken = write(tmp_path / "conf.d" / "b.toml", "[jobs]\nmax_concurrent = = 3")
    latin = tmp_path / "conf.d" / "c.toml"
    latin.write_bytes(b"[paths]\n# H\xf6rbuch")
    monkeypatch.setenv("AIOM4B_LIBARY__TEMPLATE", "x")
    monkeypatch.setenv("AIOM4B_LIMITS__MAX_FILE", "3")
    monkeypatch.setenv("AIOM4B_JOBS", "many")
    assert sorted(problems(main, {"log": {"level": "loud"}})) == sorted(
        [
            f"{broken}:2: is not TOML: Invalid value",
            f"{latin}:2: is not UTF-8",
            f"{main}:2: encode.bitrat is not a setting; did you mean encode.bitrate?",
            f'{main}:3: encode.channels should be "auto", 1 or 2; it is 7',
            f"{main}:6: loging is not a setting; did you mean log?",
            "AIOM4B_LIBARY__TEMPLATE: libary is not a setting; did you mean library?",
            "AIOM4B_LIMITS__MAX_FILE: limits.max_file is not a setting; did you mean limits.max_files?",
            "AIOM4B_JOBS: jobs is a table with settings of its own, so it can't be 'many'",
            "command line: log.level should be 'debug', 'info', 'warning' or 'error'; it is 'loud'",
        ]
    )


def test_a_value_where_a_table_belongs_is_refused_beside_settings_of_that_table(tmp_path, monkeypatch):
    main = write(tmp_path / "a.toml", "[jobs]\nmax_concurrent = 3")
    monkeypatch.setenv("AIOM4B_JOBS", "many")
    problem, other = problems(main, {"log": {"level": "loud"}})
    assert "log.level" in other
    assert "jobs is a table with settings of its own, so it can't be 'many'" in problem


def test_a_setting_in_the_wrong_table_is_shown_its_own(tmp_path):
    main = write(tmp_path / "a.toml", 'bitrate = "64k"\n[library]\nchannels = 1')
    assert problems(main) == [
        f"{main}:3: library.channels is not a setting; did you mean encode.channels?",
        f"{main}:1: bitrate is not a setting; did you mean encode.bitrate?",
    ]


def test_the_value_of_an_unknown_name_is_never_shown(monkeypatch):
    monkeypatch.setenv("AIOM4B_AUDIBLE__PASWORD", "canary")
    assert problems() == [
        "AIOM4B_AUDIBLE__PASWORD: audible.pasword is not a setting; did you mean audible.password?",
    ]


def test_a_file_that_was_named_must_exist(tmp_path, monkeypatch):
    missing = str(tmp_path / "missing.toml")
    assert problems(missing) == [f"{missing}: can't be read: No such file or directory"]
    monkeypatch.setenv("AIOM4B_CONFIG", missing)
    assert problems() == [f"{missing}: can't be read: No such file or directory"]


def test_a_file_that_can_not_be_read_is_not_passed_over(tmp_path):
    (tmp_path / "etc" / "aiom4b.toml").mkdir(parents=True)
    assert problems() == [f"{tmp_path}/etc/aiom4b.toml: can't be read: Is a directory"]


def test_a_broken_state_directory_is_one_mistake_although_the_backup_depends_on_it():
    assert problems(None, {"paths": {"state": "~nobody-of-that-name/x"}}) == [
        "command line: paths.state begins with a home directory that is not known; it is '~nobody-of-that-name/x'"
    ]


def test_an_account_without_a_home_is_told_so_instead_of_writing_into_a_folder_named_tilde(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    first, *_ = problems()
    assert first.startswith("default: paths.state begins with a home directory that is not known")
    assert load(None, {"paths": {"state": "/s"}}).paths.backup == "/s/backup"


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_shipped_file_is_the_example():
    shipped = Path(__file__).parents[2] / "config" / "aiom4b.toml"
    assert shipped.read_text() == config.example()


def test_the_example_as_it_is_and_uncommented_gives_the_defaults(tmp_path):
    uncommented, count = re.subn(r"(?m)^#(?=\w)", "", config.example())
    assert count == len(config.flattened(load(None, {})))
    assert load(write(tmp_path / "a.toml", config.example()), {}) == load(None, {})
    loaded = load_with_origins(write(tmp_path / "b.toml", uncommented), {})
    assert loaded.settings == load(None, {})
    assert loaded.origins["encode.workers"].startswith(f"{tmp_path}/b.toml:")


# --- directories ------------------------------------------------------------------------------------------------------


def test_directories_beside_each_other_are_no_problem():
    assert directory_problems("/srv/books", "/srv/books-backup", ["/srv/inbox", "/srv/one.mp3"]) == []


def test_a_source_may_lie_inside_the_library_or_the_backup():
    assert directory_problems("/srv", "/backup", ["/srv/inbox", "/backup/set"]) == []


def test_our_directories_must_not_lie_in_one_another_or_in_a_source():
    assert directory_problems("/in/books", "/in/books/backup", ["/in"]) == [
        "The backup '/in/books/backup' lies inside the library '/in/books'.",
        "The library '/in/books' lies inside the source '/in'.",
        "The backup '/in/books/backup' lies inside the source '/in'.",
    ]
    assert directory_problems("/b/lib", "/b", []) == ["The library '/b/lib' lies inside the backup '/b'."]
    assert directory_problems("/b", "/b", []) == ["The library and the backup are the same directory, '/b'."]
    assert directory_problems("/b", None, ["/b"]) == ["The library and the source are the same directory, '/b'."]


def test_a_link_does_not_hide_where_a_directory_lies(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    settings = load(None, {"paths": {"library": f"{tmp_path}/link/books"}})
    with pytest.raises(Fatal) as caught:
        config.check_directories(settings, [f"{tmp_path}/in"])
    assert caught.value.code == "config.directories"
    config.check_directories(settings, [f"{tmp_path}/other"])


def test_a_backup_that_is_switched_off_is_in_nobodys_way():
    on = {"paths": {"library": "/b", "backup": "/b"}}
    with pytest.raises(Fatal):
        config.check_directories(load(None, on), [])
    config.check_directories(load(None, on | {"backup": {"enabled": False}}), [])


def test_a_credential_of_systemd_is_stronger_than_a_file_and_weaker_than_the_environment(tmp_path, monkeypatch):
    (tmp_path / "api.key").write_text("from-the-credential\n")
    (tmp_path / "something.else").write_text("a hook's own")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file = tmp_path / "aiom4b.toml"
    file.write_text('[api]\nkey = "from-the-settings-file"\n')
    loaded = load_with_origins(str(file), {})
    assert loaded.settings.api.key.get_secret_value() == "from-the-credential"
    assert loaded.origins["api.key"] == str(tmp_path / "api.key")
    monkeypatch.setenv("AIOM4B_API__KEY", "from-the-environment")
    assert load_with_origins(str(file), {}).settings.api.key.get_secret_value() == "from-the-environment"


def test_an_interface_on_tcp_without_a_good_key_is_refused(tmp_path):
    for table in ({"host": "127.0.0.1"}, {"host": "127.0.0.1", "port": 80}, {"key": "short-secret"}):
        with pytest.raises(InvalidSettings) as refused:
            load(None, {"api": table})
        assert "short-secret" not in str(refused.value)


def test_the_key_of_the_interface_is_never_shown():
    settings = load(None, {"api": {"host": "::1", "port": 8080, "key": "sixteen-letters-"}})
    assert config.flattened(settings)["api.key"] == "**********"


def test_origins_may_be_listed_in_one_environment_variable(monkeypatch):
    monkeypatch.setenv("AIOM4B_API__CORS_ORIGINS", "https://a.example, https://b.example")
    assert load(None, {}).api.cors_origins == ("https://a.example", "https://b.example")


# --- Audible ----------------------------------------------------------------------------------------------------------


def test_secrets_of_audible_come_from_credentials_too(tmp_path, monkeypatch):
    (tmp_path / "audible.password").write_text("correct horse battery\n")
    (tmp_path / "audible.activation_bytes").write_text("1A2B3C4D\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    loaded = load_with_origins(None, {})
    assert loaded.settings.audible.password.get_secret_value() == "correct horse battery"
    assert loaded.settings.audible.activation_bytes.get_secret_value() == "1a2b3c4d"
    assert loaded.origins["audible.password"] == str(tmp_path / "audible.password")
    shown = config.flattened(loaded.settings)
    assert (shown["audible.password"], shown["audible.activation_bytes"]) == ("**********", "**********")
    assert "horse" not in repr(loaded)
    assert "1a2b3c4d" not in repr(loaded)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("activation_bytes", "1a2b3c4", "should be 8 hex digits; it is not shown"),
        ("activation_bytes", "1a2b3c4z", "should be 8 hex digits; it is not shown"),
        ("activation_bytes", "1a2b3c4d1a2b3c4d", "should be 8 hex digits; it is not shown"),
        ("activation_bytes", "0x1a2b3c4d", "should be 8 hex digits; it is not shown"),
        ("activation_bytes", 98765432, "should be 8 hex digits in quotes; it is not shown"),
        ("activation_bytes", ["1a2b3c4z"], "should be a valid string; it is not shown"),
        ("password", "sevenup", "should have at least 8 characters; it is not shown"),
        ("password", "caf\udce9-caf\udce9", "should be UTF-8; it is not shown"),
        ("password", 1234567890, "should be a valid string; it is not shown"),
    ],
)
def test_a_secret_of_audible_that_makes_no_sense_is_refused_without_being_shown(key, value, reason):
    with pytest.raises(InvalidSettings) as caught:
        load(None, {"audible": {key: value}})
    [problem] = caught.value.problems
    assert str(problem).startswith(f"command line: audible.{key} {reason.removesuffix('; it is not shown')}")
    assert problem.reason.endswith("; it is not shown")
    told = "".join(traceback.format_exception(caught.value))
    secret = value[0] if isinstance(value, list) else str(value)
    assert secret not in told


def test_a_table_that_may_hold_a_secret_is_not_shown_either(monkeypatch):
    monkeypatch.setenv("AIOM4B_AUDIBLE", '{"password": "canary"}')
    assert problems() == ["AIOM4B_AUDIBLE: audible is a table with settings of its own, so it can't be not shown"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_download", "yes"),
        ("sync_hours", -1),
        ("sync_hours", True),
        ("sync_hours", 0.0001),
        ("sync_hours", 0.24),
        ("full_sync_days", 0),
        ("daily_licences", 0),
        ("daily_licences", 1001),
        ("transfers", 6),
        ("transfers", 0),
        ("quality", "extreme"),
    ],
)
def test_a_setting_of_audible_that_makes_no_sense_is_refused_with_itself(key, value):
    (problem,) = problems(None, {"audible": {key: value}})
    assert problem.startswith(f"command line: audible.{key} should be ")
    assert problem.endswith(f"; it is {value!r}")


def test_a_library_is_asked_every_quarter_of_an_hour_at_most():
    assert [load(None, {"audible": {"sync_hours": hours}}).audible.sync_hours for hours in (0, 0.25)] == [0, 0.25]


# --- new settings -----------------------------------------------------------------------------------------------------


def test_new_settings_of_audible_are_in_force_at_once_but_the_password():
    old = load(None, {"audible": {"password": "the old password", "transfers": 5}, "api": {"key": "x" * 16}})
    table = {"password": "the new password", "transfers": 2, "activation_bytes": "1a2b3c4d"}
    new = load(None, {"audible": table, "api": {"key": "y" * 16}})
    settings, changed, waiting = merged(old, new)
    assert (settings.audible.transfers, settings.audible.activation_bytes) == (2, new.audible.activation_bytes)
    assert changed == ("audible.transfers", "audible.activation_bytes")
    assert (settings.api, settings.audible.password) == (old.api, old.audible.password)
    assert waiting == ("api.key", "audible.password")
    assert merged(old, old) == (old, (), ())
    other = load(None, {"audible": table | {"activation_bytes": "1a2b3c4e"}, "api": {"key": "y" * 16}})
    assert merged(new, other)[1] == ("audible.activation_bytes",)
