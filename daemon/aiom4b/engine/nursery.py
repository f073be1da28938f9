"""Where do worker processes come from? A server that has imported what they need, and forks them off."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext

MODULES = ("aiom4b.steps.examine", "aiom4b.steps.convert", "aiom4b.steps.verify")
"""What workers are asked to run; by name, since steps stand above the engine."""


def start(preload: Sequence[str] = MODULES) -> None:
    """Start the server, if it does not run yet, and return at once; it imports the modules named by ``preload`` meanwhile.

    Worth calling before one's own imports: on a short book imports are half of the time.
    """
    forkserver.set_forkserver_preload(["aiom4b.engine.worker", *preload])
    forkserver.ensure_running()


def context() -> ForkServerContext:
    """Return the multiprocessing context whose processes come from the server."""
    return get_context("forkserver")
