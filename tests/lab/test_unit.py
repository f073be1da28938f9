"""Facts about the systemd unit, as systemd itself reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "aiom4b.service"

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed"),
]


@pytest.fixture
def unit(tmp_path):
    """Return the unit with a program that exists: where aiom4b is installed is the machine's business."""
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/aiom4b/bin/aiom4b", "/bin/true"))
    return copy


def test_systemd_finds_nothing_to_complain_about(unit):
    # It ends with 0 whatever it reads; only silence says that every line was understood.
    said = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", unit], check=True, capture_output=True, text=True, timeout=60
    )
    assert (said.stdout, said.stderr) == ("", "")


def test_the_service_is_shut_in_as_far_as_its_work_allows(unit):
    # 20 stands for an exposure of 2.0.
    subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", unit],
        check=True,
        capture_output=True,
        timeout=60,
    )
