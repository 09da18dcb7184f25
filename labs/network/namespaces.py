"""Network namespaces, switches and links, made and read back through pyroute2.

Runs inside the supervisor's private namespaces. A namespace is entered by a *thread*: a network namespace belongs to
a thread, so one thread a node creates it, sets its sysctls and configures its interfaces, and no process is started for
it; the thread stays in the node's mount namespace. It must not know members, labs or what a topology file looks like.
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fwnode.fields import IPInterface
from labs.network import file_systems
from labs.network.errors import FaultError, MachineError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

NETNS_DIRECTORY = Path("/run/netns")
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MNT_DETACH = 2
IFF_UP = 1
IFA_F_NODAD = 0x02
LOOPBACK_INDEX = 1
LINK_TIMEOUT_S = 3.0
"""Wall seconds for a port to follow; the kernel looks at carriers at least once a second."""
LINK_POLL_S = 0.005

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)

SYSCTLS_EVERY_NODE: Mapping[str, str] = {
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.accept_redirects": "0",
    "net.ipv4.conf.default.accept_redirects": "0",
    "net.ipv6.conf.all.accept_redirects": "0",
    "net.ipv6.conf.default.accept_redirects": "0",
    "net.ipv6.conf.all.accept_ra": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    # Duplicate address detection would make every address unusable for its first second.
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.all.dad_transmits": "0",
    "net.ipv6.conf.default.dad_transmits": "0",
}
SYSCTLS_MEMBER: Mapping[str, str] = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv6.conf.default.forwarding": "1",
    # The virtual address sits on lo; the member process answers ARP for it, the kernel must not.
    "net.ipv4.conf.all.arp_ignore": "1",
    "net.ipv4.conf.default.arp_ignore": "1",
    "net.ipv4.conf.all.arp_announce": "2",
    "net.ipv4.conf.default.arp_announce": "2",
}


def node_sysctls(member: bool) -> dict[str, str]:
    """What a node's kernel is set to, also used for virtual machines. Order matters: forwarding resets others."""
    return {**(SYSCTLS_MEMBER if member else {}), **SYSCTLS_EVERY_NODE}


def write_sysctl(name: str, value: str) -> None:
    """Set one sysctl of the calling thread's network namespace and read it back."""
    path = Path("/proc/sys") / name.replace(".", "/")
    try:
        path.write_text(value)
        seen = path.read_text().strip()
    except OSError as error:
        raise MachineError(f"sysctl {name} cannot be set to {value}: {error.strerror}") from None
    if seen != value:
        raise MachineError(f"sysctl {name} is {seen} after it was set to {value}")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()) != 0:
        code = ctypes.get_errno()
        raise MachineError(f"mounting {kind} on {target} failed: {os.strerror(code)}")


def name_nodes(directory: Path, addresses: Mapping[str, Iterable[str]]) -> None:
    """Give the lab a hosts file of its own (`ping server` works) and no name server: a lab has no way out, and a
    program that asks one would wait for its answer. Both files lie in `directory` and cover the machine's."""
    lines = [f"{address} {name}" for name, own in addresses.items() for address in own]
    files = {"/etc/hosts": "\n".join(["127.0.0.1 localhost", "::1 localhost", *lines, ""]), "/etc/resolv.conf": ""}
    for target, text in files.items():
        mine = directory / Path(target).name
        mine.write_text(text)
        covered = Path(target).resolve()  # resolv.conf may be a link into /run, which is the lab's own and empty
        if not covered.exists() and covered.is_relative_to("/run"):
            covered.parent.mkdir(parents=True, exist_ok=True)
            covered.touch()
        if covered.exists():
            mount(str(mine), str(covered), "none", MS_BIND)


class Namespaces:
    """The nodes' namespaces of one lab: creates them, runs functions inside them, removes them."""

    def __init__(self) -> None:
        self.directory = NETNS_DIRECTORY
        self._threads: dict[str, ThreadPoolExecutor] = {}

    def path(self, node: str) -> Path:
        """Where the namespace is bind-mounted; `nsenter --net=` takes it."""
        return self.directory / node

    def create(self, sysctls: Mapping[str, Mapping[str, str]]) -> None:
        """One namespace for each key, with these sysctls, lo up."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for node in sysctls:
            self._threads[node] = ThreadPoolExecutor(1, thread_name_prefix=f"netns-{node}")
        _join(self._threads[node].submit(self._create_here, node, values) for node, values in sysctls.items())

    def _create_here(self, node: str, sysctls: Mapping[str, str]) -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            raise MachineError(f"a network namespace for {node} was refused: {os.strerror(ctypes.get_errno())}")
        self.path(node).touch(exist_ok=False)
        mount("/proc/thread-self/ns/net", str(self.path(node)), "none", MS_BIND)
        for name, value in sysctls.items():
            write_sysctl(name, value)
        with _netlink() as route:
            route.link("set", index=LOOPBACK_INDEX, state="up")

    def configure(self, plans: Mapping[str, Callable[[], None]]) -> None:
        """Run one function inside each of these nodes, at the same time."""
        _join(self._threads[node].submit(plan) for node, plan in plans.items())

    def furnish(self) -> None:
        """Give every node its view of the machine's files. The last thing to be done inside the nodes; their threads
        stay, for a mount namespace lives as long as somebody is in it."""
        _join(executor.submit(file_systems.furnish, node) for node, executor in self._threads.items())
        ids = _join(executor.submit(threading.get_native_id) for executor in self._threads.values())
        file_systems.publish(dict(zip(self._threads, ids, strict=True)))

    def release_threads(self) -> None:
        """The threads inside the namespaces end."""
        for executor in self._threads.values():
            executor.shutdown(wait=True)
        self._threads.clear()

    def remove(self) -> None:
        """Unmount every namespace. The kernel ends one when nothing uses it any more."""
        self.release_threads()
        if not self.directory.is_dir():
            return
        for path in self.directory.iterdir():
            _libc.umount2(str(path).encode(), MNT_DETACH)
            path.unlink()


def _join(futures: Iterable["Future[T]"]) -> list[T]:
    """Wait for all of them, then raise the first failure: no thread is left working behind an exception."""
    waiting = list(futures)
    for future in waiting:
        future.exception()
    return [future.result() for future in waiting]


def configure_node(interfaces: Mapping[str, Iterable[IPInterface]],
                   gateways: Iterable[IPv4Address | IPv6Address]) -> None:
    """Inside a node: interfaces up, addresses (no duplicate address detection), default routes."""
    with _netlink() as route:
        for name, addresses in interfaces.items():
            index = _index(route, name)
            route.link("set", index=index, state="up")
            for address in addresses:
                if address.version == 4:
                    route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen,
                               broadcast=str(address.network.broadcast_address))
                else:
                    route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen,
                               flags=IFA_F_NODAD)
        for gateway in gateways:
            route.route("add", dst="default" if gateway.version == 4 else "::/0", gateway=str(gateway))


def quiet_bridge_netfilter() -> None:
    """A bridge must not hand its frames to iptables: the rules belong to the nodes, not to the wires."""
    for path in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
        with suppress(OSError):
            path.write_text("0")


def create_switches(switches: Iterable[str]) -> None:
    """Linux bridges in the calling thread's namespace: no spanning tree, no delay, multicast flooded as on a hub."""
    with _netlink() as route:
        route.link("set", index=LOOPBACK_INDEX, state="up")
        for switch in switches:
            route.link("add", ifname=switch, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
            route.link("set", index=_index(route, switch), state="up")


def create_links(links: Iterable[tuple[str, str, str, Path]]) -> None:
    """veth pairs: (link name = switch-side end, switch, interface name in the node, the node's namespace)."""
    with _netlink() as route:
        for link, switch, interface, namespace in links:
            route.link("add", ifname=link, kind="veth", peer={"ifname": interface, "net_ns_fd": str(namespace)})
            route.link("set", index=_index(route, link), master=_index(route, switch), state="up")


def delete_links(names: Iterable[str]) -> None:
    """Remove these links of the calling thread's namespace, where they are there."""
    from pyroute2.netlink.exceptions import NetlinkError

    with _netlink() as route:
        for name in names:
            for index in route.link_lookup(ifname=name):
                with suppress(NetlinkError):
                    route.link("del", index=index)


def set_links(states: Mapping[str, bool]) -> None:
    """Switch-side ports up or down, then read back: a link that did not follow is an error."""
    with _netlink() as route:
        for link, up in states.items():
            route.link("set", index=_index(route, link), state="up" if up else "down")
    await_links(states)


def await_links(states: Mapping[str, bool]) -> None:
    """Return when every port is as it should be. A switch forwards only once the carrier has been noticed."""
    deadline = time.monotonic() + LINK_TIMEOUT_S
    while wrong := _not_yet(states):
        if time.monotonic() > deadline:
            raise FaultError(f"the state of these links was set but did not take: {', '.join(wrong)}")
        time.sleep(LINK_POLL_S)


def _not_yet(states: Mapping[str, bool]) -> list[str]:
    with _netlink() as route:
        seen = {str(link.get("ifname")): (bool(link["flags"] & IFF_UP), link.get("operstate"))
                for link in route.get_links()}
    # LOWERLAYERDOWN: up on our side, and the node itself keeps its end down.
    settled = {True: ("UP", "LOWERLAYERDOWN"), False: ("DOWN",)}
    return [link for link, up in states.items()
            if seen.get(link, (None, ""))[0] is not up or seen[link][1] not in settled[up]]


def read_links() -> dict[str, bool]:
    """Name -> administratively up, for every link of the calling thread's namespace."""
    with _netlink() as route:
        return {str(link.get("ifname")): bool(link["flags"] & IFF_UP) for link in route.get_links()}


def _netlink() -> "IPRoute":
    """Loaded by those who touch the kernel: it takes as long as all the rest that most commands need."""
    from pyroute2 import IPRoute

    return IPRoute()


def _index(route: "IPRoute", name: str) -> int:
    found = route.link_lookup(ifname=name)
    if not found:
        raise MachineError(f"there is no interface {name}")
    return int(found[0])
