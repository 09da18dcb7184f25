"""The virtual addresses towards a member's neighbours: who answers for them, and what the neighbours are told.

A keeper for each interface that has virtual addresses. Whether this member answers is the cluster's business, and when
the neighbours are told as well (`fwnode.cluster.announcing`).
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Mapping, Sequence
from functools import partial

from fwnode.configuration import InterfaceModel
from fwnode.datapath.address_keeper import AddressKeeper


class VirtualAddresses:
    """Watches its sockets in `selector`. `macs`: what is answered by kernel name, where it is not the interface's own.
    Raises `OSError`."""

    def __init__(
        self, interfaces: Sequence[InterfaceModel], macs: Mapping[str, bytes], selector: selectors.BaseSelector
    ) -> None:
        self._keepers = [
            AddressKeeper(i.kernel_name, i.virtual, macs.get(i.kernel_name)) for i in interfaces if i.virtual
        ]
        for keeper in self._keepers:
            for link in keeper.sockets:
                selector.register(link, selectors.EVENT_READ, partial(_answer, keeper, link))

    def answer(self, answering: bool) -> None:
        """From now on this member answers for the addresses, or does not."""
        for keeper in self._keepers:
            keeper.set_answering(answering)

    def announce(self) -> None:
        """Tell the neighbours who has the addresses."""
        for keeper in self._keepers:
            keeper.announce()

    def close(self) -> None:
        for keeper in self._keepers:
            keeper.close()


def _answer(keeper: AddressKeeper, link: socket.socket, _mask: int) -> None:
    keeper.answer(link)
