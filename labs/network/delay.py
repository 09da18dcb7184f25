"""Hold each packet of a netfilter queue for a time, in order, then let it pass: `python -m labs.network.delay QUEUE S`.

A helper process of a delayed link, inside the node at its end: not every kernel has netem. It says `ready` when it
listens. SIGTERM lets go what it holds and ends it. It must import nothing heavy: it starts with every delay.
"""

import os
import select
import signal
import sys
import time
import warnings
from collections import deque
from typing import Any

from netfilterqueue import COPY_META, NetfilterQueue

HELD_MAX = 65_535
"""Packets held at once; the kernel drops what comes on top, as a wire's own buffer would."""
SOCKET_BUFFER_BYTES = 8 * 1024 * 1024


def hold(number: int, by_s: float) -> None:
    """Until SIGTERM."""
    ended_read, ended_write = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(ended_write, b"."))
    held: deque[tuple[float, Any]] = deque()
    queue = NetfilterQueue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a smaller buffer than asked for
        queue.bind(number, lambda packet: held.append((time.monotonic() + by_s, packet)), max_len=HELD_MAX,
                   mode=COPY_META, sock_len=SOCKET_BUFFER_BYTES)
    print("ready", flush=True)
    ended = False
    while not ended:
        wait_s = max(0.0, held[0][0] - time.monotonic()) if held else None
        readable, _, _ = select.select([queue.get_fd(), ended_read], [], [], wait_s)
        if queue.get_fd() in readable:
            queue.run(block=False)
        ended = ended_read in readable
        now = time.monotonic()
        while held and (ended or held[0][0] <= now):
            held.popleft()[1].accept()
    queue.unbind()


def main() -> None:
    """Command line of the helper."""
    try:
        hold(int(sys.argv[1]), float(sys.argv[2]))
    except OSError as error:
        print(f"queue {sys.argv[1]}: {error}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
