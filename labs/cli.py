"""Entry point of `fwlab`: small, since loading the commands takes a moment in which somebody may press Ctrl-C."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from fwnode import output
from labs.exit_codes import ExitCode


def main() -> NoReturn:
    """Load the commands, then run the one that was asked for."""
    output.prepare()
    with _leaving_on_interrupt():
        from labs.fwlab import run
    run()


@contextmanager
def _leaving_on_interrupt() -> Iterator[None]:
    """Nothing has begun yet, so there is nothing to end; and a half loaded module must not see the exception."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, as behind nohup
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(ExitCode.INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    main()
