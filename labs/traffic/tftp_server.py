"""The server process of a TFTP workload: tftpy, which answers each request from a new port. Nothing touches a disk."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from tftpy import TftpServer

from fwnode.node_process import raise_file_limit
from labs.traffic.stdio_commands import say, serve_commands
from labs.traffic.transfers import content

RETRANSMIT_S = 1
ANY = "0.0.0.0"


def make_server(orders: dict[str, Any]) -> Any:
    """Listening; OSError where the port is taken."""
    memory = os.memfd_create("file")  # the server insists on locking it, so it has to be a file
    os.write(memory, content(orders["size"]))
    file = f"/proc/self/fd/{memory}"
    with tempfile.TemporaryDirectory() as nowhere:  # it must be there, and is gone before the first request
        return TftpServer(nowhere, dyn_file_func=lambda _name, **_who: Path(file).open("rb"))


async def main(orders: dict[str, Any]) -> None:
    logging.disable(logging.CRITICAL)
    server = make_server(orders)
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as trial:
            trial.bind((ANY, orders["port"]))
    except OSError as error:
        say({"milestone": "failed", "error": f"cannot listen on port {orders['port']}: {error}"})
        return
    threading.Thread(target=lambda: server.listen(ANY, orders["port"], timeout=RETRANSMIT_S), daemon=True).start()
    await asyncio.to_thread(server.is_running.wait)
    say({"milestone": "ready"})
    await serve_commands({})


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
