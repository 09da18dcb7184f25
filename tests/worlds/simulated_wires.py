"""Small worlds of hosts for the tests of wires, neighbours and virtual time."""

from __future__ import annotations

from ipaddress import ip_interface

from labs.simulation.ip_packets import UDP, ip_packet, packed, payload_of
from labs.simulation.loop import World
from labs.simulation.machine import Machine
from labs.simulation.wires import Switch

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class Segment:
    """Hosts a, b, c on one switch, and what each of them has received: time and UDP payload."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.switch = Switch(self.world, "lan")
        self.hosts: dict[str, Machine] = {}
        self.got: dict[str, list[tuple[float, bytes]]] = {}
        for number, (name, address) in enumerate(zip("abc", (A, B, C), strict=True), 1):
            host = self.hosts[name] = Machine(self.world, name)
            addresses = [ip_interface(f"{address}/24"), ip_interface(f"2001:db8::{number}/64")]
            host.plug(self.switch, "lan", f"{name}-lan", bytes((2, 0, 0, 0, 0, number)), addresses)
            got = self.got[name] = []
            host.register(UDP, lambda packet, got=got: got.append((self.world.now, payload_of(packet)[8:])))

    def link(self, name: str):
        return self.hosts[name].interfaces["lan"]

    def send(self, sender: str, to: str, data: bytes) -> None:
        host = self.hosts[sender]
        host.send_ip(udp(host.source_for(packed(to)), packed(to), data))

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)


def udp(source: bytes, destination: bytes, data: bytes, ports: tuple[int, int] = (1024, 2048)) -> bytes:
    header = ports[0].to_bytes(2) + ports[1].to_bytes(2) + (8 + len(data)).to_bytes(2) + bytes(2)
    return ip_packet(source, destination, UDP, header + data)
