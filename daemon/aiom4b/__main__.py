"""Where does the program start?"""

import sys


def main() -> None:
    """Run the command line. Kept light: worker processes read this module again."""
    if sys.argv[1:] == ["version"]:  # asked by scripts and health checks: not worth half a second of imports
        from aiom4b import __version__

        print(f"aiom4b {__version__}")  # noqa: T201
        return
    from aiom4b.cli.main import app

    app()


if __name__ == "__main__":
    main()
