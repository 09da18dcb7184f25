"""The client process of a TFTP workload: tftpy clients, a new conversation for each transfer."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from typing import Any

from tftpy import TftpClient, TftpException, TftpTimeout

from fwnode.node_process import raise_file_limit
from labs.traffic.threads import serve
from labs.traffic.transfers import Heard, patience_of

FILE = "file"
TRIES = 3
"""Of a packet that is not answered; the patience is shared among them."""


class TftpFileClient:
    """A `FileClient`, and blocks: `tftpy`."""

    lasting = False

    def __init__(self, orders: dict[str, Any]) -> None:
        self.orders = orders
        self.timeout_s = patience_of(orders) / TRIES

    def fetch(self, heard: Heard) -> bytes:
        file = io.BytesIO()
        try:
            client = TftpClient(self.orders["address"], self.orders["port"])
            client.download(FILE, file, packethook=lambda _: heard(), timeout=self.timeout_s, retries=TRIES)
        except TftpTimeout as error:
            raise TimeoutError(str(error)) from None
        except TftpException as error:
            raise ConnectionRefusedError(str(error)) from None
        return file.getvalue()

    def log_in(self) -> None:
        """Nothing to do: TFTP has no login."""

    def announce(self) -> None:
        """Nothing to do: TFTP announces no data connection."""

    def log_out(self) -> None:
        """Nothing to do: TFTP has no logout."""

    def drop(self) -> None:
        """Nothing to do: each conversation ends by itself."""


async def main(orders: dict[str, Any]) -> None:
    logging.disable(logging.CRITICAL)
    await serve(orders, lambda: TftpFileClient(orders))


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(main(json.loads(sys.argv[1])))
