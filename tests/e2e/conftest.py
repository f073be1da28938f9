"""The real program, in processes of its own."""

from __future__ import annotations

import pytest

from household import House, real_program


@pytest.fixture
def house(tmp_path):
    """Return a house whose program is started anew by each call."""
    return House(tmp_path, real_program)
