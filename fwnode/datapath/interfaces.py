"""Link states of a member's interfaces, as the kernel has them."""

from __future__ import annotations

import fcntl
import socket
from struct import pack, unpack

_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40


class LinkStates:
    """Asks the kernel anew each time."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def is_up(self, device: str) -> bool:
        """Whether the link is up; a device that is not there is down."""
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFFLAGS, pack("16sh14x", device.encode(), 0))
        except OSError:
            return False
        return bool(unpack("16sh14x", answer)[1] & _IFF_RUNNING)

    def close(self) -> None:
        self._socket.close()
