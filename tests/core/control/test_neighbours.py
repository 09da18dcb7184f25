"""Answering for the virtual addresses, as far as it goes without a network."""

from fwnode.datapath.address_keeper import TURN_MAX, AddressKeeper


class Flood:
    """A socket on which there is always one more ARP request."""

    def __init__(self) -> None:
        self.read = 0

    def recv(self, _size: int) -> bytes:
        self.read += 1
        return bytes(60)


def test_a_flood_of_requests_is_read_a_turn_at_a_time() -> None:
    """However much waits: the packets of others are looked at in between."""
    keeper = object.__new__(AddressKeeper)  # without its sockets, which need a network
    keeper._answering = False
    flood = Flood()
    for turn in (1, 2):
        keeper.answer(flood)  # type: ignore[arg-type]
        assert flood.read == turn * TURN_MAX
