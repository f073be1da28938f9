"""What happens inside a worker process? The one entry that every task passes, and how a worker is prepared."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import forkserver
from typing import Any

import av.logging

from aiom4b.errors import Aiom4bError, Exit, Fatal, NeedsAttention, Transient

_PR_SET_PDEATHSIG = 1
_NICE = 10  # a CLI answer took 1.4 s beside two busy workers at nice 0, and 0.3 s at nice 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a task cost: seconds of CPU, and the largest resident size of its process so far, in bytes."""

    cpu_seconds: float
    peak_memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What the task returned, and what it cost."""

    value: object
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Why the task failed: an error of ours taken apart, or ``worker.error`` for anything that we did not foresee."""

    verdict: str
    code: str
    reason: str
    remedy: str
    path: str | None
    exit: int

    def error(self) -> Aiom4bError:
        """Return the error again, for the process that waits for it."""
        verdicts: dict[str, type[Aiom4bError]] = {
            "Transient": Transient,
            "NeedsAttention": NeedsAttention,
            "Fatal": Fatal,
        }
        kind = verdicts.get(self.verdict, NeedsAttention)
        return kind(self.code, self.reason, remedy=self.remedy, path=self.path, exit=Exit(self.exit))


def prepare() -> None:
    """Make this process a worker: quiet, nice, deaf to the terminal's signals, and gone when its parent is.

    SIGTERM is ignored because a service manager may send it to the whole group while the parent still lets segments in
    flight end; whoever wants a worker gone kills it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Our parent is the server that forks workers. It ends when nobody holds this pipe open any more, and hands it to every
    # worker: without closing it a busy worker would keep the server alive, and neither would ever miss the main process.
    server: Any = vars(forkserver)["_forkserver"]
    if server._forkserver_alive_fd is not None:  # noqa: SLF001 - there is no public way to it
        os.close(server._forkserver_alive_fd)  # noqa: SLF001
        server._forkserver_alive_fd = None  # noqa: SLF001
    if os.getppid() == 1:  # the parent died before the call above: the signal will never come
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICE)
    # Native code writes where it likes. A pipe that nobody reads would stop a worker for ever, so: nowhere.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    for name in [name for name in os.environ if name not in {"PATH", "LANG", "LC_ALL", "TMPDIR"}]:
        del os.environ[name]  # FFREPORT writes files, proxies reach out, tokens have no business here
    av.logging.set_level(None)


def run(function: Callable[..., object], args: tuple[object, ...]) -> Done | Failed:
    """Call ``function``; never raise. Only a dying process ends otherwise."""
    began = time.process_time()
    try:
        value = function(*args)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return Done(value=value, usage=Usage(cpu_seconds=time.process_time() - began, peak_memory=peak))
    except Aiom4bError as error:
        return Failed(
            verdict=type(error).__name__,
            code=error.code,
            reason=error.reason,
            remedy=error.remedy,
            path=error.path,
            exit=int(error.exit),
        )
    except MemoryError:
        return Failed(
            verdict="Transient",
            code="worker.memory",
            reason="A worker process ran out of memory.",
            remedy="Free memory or lower encode.workers; the work done so far is kept.",
            path=None,
            exit=int(Exit.TRY_LATER),
        )
    except Exception as error:  # noqa: BLE001 - the border of the process: whatever it is becomes a value
        where = ""
        trace = sys.exc_info()[2]
        while trace is not None:
            where = f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
            trace = trace.tb_next
        return Failed(
            verdict="NeedsAttention",
            code="worker.error",
            reason=f"A worker met something unforeseen at {where}: {type(error).__name__}: {error}",
            remedy="This is a fault of the program: please report it with this message.",
            path=None,
            exit=int(Exit.FAILED),
        )
