"""The command line: ``charrnn``, and ``python -m charrnn``."""

import sys


def main() -> int:
    """Run the command line. Ctrl-C ends it as quietly while it is being loaded as later."""
    try:
        from charrnn.cli import main as run
    except KeyboardInterrupt:
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
