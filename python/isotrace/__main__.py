"""The program `isotrace`, the same as the binary."""

import signal
import sys

from . import _isotrace


def main() -> None:
    # The program has its own way of being interrupted.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_isotrace.main(["isotrace", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
