"""What has the owner decided? One frozen tree of settings, and which source each value came from."""

from aiom4b.config.directories import check_directories, directory_problems
from aiom4b.config.example import example, toml
from aiom4b.config.sources import InvalidSettings, Loaded, Problem, load, load_with_origins
from aiom4b.config.tree import (
    ApiSettings,
    AudibleSettings,
    BackupSettings,
    EncodeSettings,
    JobSettings,
    LibrarySettings,
    LimitSettings,
    LogSettings,
    PathSettings,
    Settings,
    WatchSettings,
    flattened,
)

__all__ = [
    "ApiSettings",
    "AudibleSettings",
    "BackupSettings",
    "EncodeSettings",
    "InvalidSettings",
    "JobSettings",
    "LibrarySettings",
    "LimitSettings",
    "Loaded",
    "LogSettings",
    "PathSettings",
    "Problem",
    "Settings",
    "WatchSettings",
    "check_directories",
    "directory_problems",
    "example",
    "flattened",
    "load",
    "load_with_origins",
    "toml",
]
