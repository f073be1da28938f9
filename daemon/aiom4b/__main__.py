"""Where does the program start?"""

import io
import os
import resource
import sys


def main() -> None:
    """Run the command line. Kept light: worker processes read this module again."""
    _stand_on_firm_ground()
    _leave_no_memory_behind()
    if sys.argv[1:] == ["version"]:  # asked by scripts and health checks: not worth half a second of imports
        from aiom4b import __version__

        print(f"aiom4b {__version__}")  # noqa: T201
        return
    from aiom4b.cli.main import app

    app()


def _stand_on_firm_ground() -> None:
    """See to standard streams that are open, and to names in UTF-8, whatever the shell or a cron job gave us."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            # Closed: the next file that is opened would get its number, and what is printed would go into that.
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            if nowhere > 2:
                os.close(nowhere)
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a title must not end the program where only ASCII is understood
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        # In another encoding names are misread, and a book's name can't be written.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - no shell


def _leave_no_memory_behind() -> None:
    """Let no crash write memory to a disk, our own or that of a worker, who inherits this: keys and tokens are in it."""
    # Only the soft limit: whoever looks for a fault can lift it with prlimit.
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


if __name__ == "__main__":
    main()
