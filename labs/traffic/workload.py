"""What a lab file may say about a workload, and what the processes are told. Durations are lab time; rates and paces
say how much work the machine gets, so they are per second of wall time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fwnode.fields import RealNumber, WholeNumber
from labs.quantities import Size, parse_size
from labs.traffic.durations import Duration, Spread

SESSIONS_MAX = 14_000  # one client address has some 28,000 ports towards a server port; all may connect anew once
OPEN_RATE_MAX = 5_000.0
CLIENTS_MAX = 200  # of file transfers: each is a thread
FILE_MAX = 256 * 2**20
PING_RATE_MAX = 100.0  # each ping is a process
FLOOD_RATE_MAX = 20_000.0
FLOOD_COUNT_MAX = 100_000
FLOOD_ROUNDS_MAX = 100
FLOOD_PORTS_MAX = 64
FLOOD_SOURCE_FIRST = 10_000
"""A flood's source ports begin here; all up to the last port may be used."""


def _file_size(value: object) -> int:
    size = parse_size(value)
    if size > FILE_MAX:
        raise ValueError(f"{value!r} is more than {FILE_MAX} bytes, which both ends hold in memory")
    return size


FileSize = Annotated[int, BeforeValidator(_file_size)]


class _Workload(BaseModel):
    model_config = ConfigDict(extra="forbid")

    verbs: ClassVar[frozenset[str]]
    """The steps that it takes."""
    figures: ClassVar[frozenset[str]] = frozenset()
    """What it counts besides the fates of its sessions."""
    lacks: ClassVar[Mapping[str, str]] = {}
    """World -> why this kind does not work there."""

    family: Literal["ipv4", "ipv6"] = "ipv4"
    patience: Duration = 60.0
    """How long the application waits for an answer, or for the connection to open, before it gives up."""
    says: str = ""
    """What the application is, in the words of the one who runs it."""

    @property
    def ports(self) -> tuple[str, range]:
        """The server's ports and their protocol."""
        return "", range(0)


class _OnPort(_Workload):
    port: WholeNumber = Field(ge=1, le=65535)

    @property
    def ports(self) -> tuple[str, range]:
        return "tcp", range(self.port, self.port + 1)


class Sessions(_OnPort):
    """Long-lived sessions of numbered questions and answers."""

    verbs = frozenset({"open", "speak", "reconnect", "finish"})

    kind: Literal["sessions"]
    count: WholeNumber = Field(ge=1, le=SESSIONS_MAX)
    think: Spread = (2.0, 20.0)
    """Silence between an answer and the next question; may be shorter than a second of wall time."""
    speaks_first: Literal["client", "server"] = "client"
    """Who asks once the session is open. The opening exchange is always the client's, as a login is."""
    idle: bool = False
    """Says nothing after the opening exchange until it is told to `speak`, or until the end."""
    open_rate: RealNumber = Field(default=500.0, gt=0, le=OPEN_RATE_MAX)
    """Connections opened a second of wall time."""


class Short(_OnPort):
    """New connections: open, one exchange, (stay a while, one more exchange,) close."""

    verbs = frozenset({"open", "finish"})

    kind: Literal["short"]
    rate: RealNumber = Field(default=10.0, gt=0, le=OPEN_RATE_MAX)
    """New connections a second of *wall* time."""
    count: WholeNumber | None = Field(default=None, ge=1, le=SESSIONS_MAX)
    """So many at each `open`; nothing: new ones all the time until `finish`."""
    hold: Spread = (0.0, 0.0)
    """How long a connection stays open before its second exchange; nothing: it closes after the first."""


class Ftp(_OnPort):
    """FTP clients that log in and fetch a file: a control connection each, and a data connection a transfer."""

    verbs = frozenset({"open", "announce", "transfer", "finish"})
    figures = frozenset({"transfers", "transferred", "failed"})

    kind: Literal["ftp"]
    port: WholeNumber = Field(default=21, ge=1, le=65535)
    count: WholeNumber = Field(default=1, ge=1, le=CLIENTS_MAX)
    mode: Literal["passive", "active"] = "passive"
    extended: bool = False
    """EPSV and EPRT over IPv4, too. Over IPv6 there is nothing else."""
    size: FileSize = 1_000_000
    pace: Size | None = None
    """Bytes a second of *wall* time that the server sends on each data connection; nothing: as fast as it goes."""
    split: bool = False
    """Each command goes out in two segments."""


class Tftp(_OnPort):
    """TFTP clients: each transfer is a new UDP conversation, answered from a new port."""

    verbs = frozenset({"open", "transfer", "finish"})
    figures = frozenset({"transfers", "transferred", "failed"})

    kind: Literal["tftp"]
    port: WholeNumber = Field(default=69, ge=1, le=65535)
    count: WholeNumber = Field(default=1, ge=1, le=CLIENTS_MAX)
    family: Literal["ipv4"] = "ipv4"
    """The server speaks IPv4 only."""
    size: FileSize = 20_000

    @property
    def ports(self) -> tuple[str, range]:
        return "udp", range(self.port, self.port + 1)


class Ping(_Workload):
    """New ICMP echo exchanges, each with an identifier of its own."""

    verbs = frozenset({"open", "finish"})
    figures = frozenset({"sent", "answered"})

    kind: Literal["ping"]
    patience: Duration = 2.0
    rate: RealNumber = Field(default=5.0, gt=0, le=PING_RATE_MAX)
    """New exchanges a second of *wall* time."""
    count: WholeNumber | None = Field(default=None, ge=1, le=SESSIONS_MAX)
    """So many at each `open`; nothing: new ones all the time until `finish`."""


class Flood(_OnPort):
    """So many new connections, as packets that were prepared beforehand: one UDP datagram or one SYN each."""

    verbs = frozenset({"open", "finish"})
    figures = frozenset({"offered", "arrived", "seconds"})

    kind: Literal["flood"]
    protocol: Literal["udp", "tcp"] = "udp"
    rate: RealNumber = Field(gt=0, le=FLOOD_RATE_MAX)
    """New connections a second of *wall* time."""
    count: WholeNumber = Field(ge=1, le=FLOOD_COUNT_MAX)
    """So many at each `open`."""
    rounds: WholeNumber = Field(default=1, ge=1, le=FLOOD_ROUNDS_MAX)
    """How often it can be opened: each time with connections of its own, which are prepared before the first."""
    server_ports: WholeNumber = Field(default=4, ge=1, le=FLOOD_PORTS_MAX)
    """The connections go to so many ports, from `port` on."""

    @property
    def ports(self) -> tuple[str, range]:
        return self.protocol, range(self.port, self.port + self.server_ports)

    @model_validator(mode="after")
    def _enough_ports(self) -> Flood:
        if self.port + self.server_ports > 65536:
            raise ValueError(f"port: {self.server_ports} ports from {self.port} on go past 65535")
        room = (65536 - FLOOD_SOURCE_FIRST) * self.server_ports
        if self.count * self.rounds > FLOOD_COUNT_MAX:
            raise ValueError(f"rounds: {self.rounds} of {self.count} connections are more than {FLOOD_COUNT_MAX}; "
                             "lower one of the two")
        if self.count * self.rounds > room:
            raise ValueError(f"count: {self.server_ports} server ports have room for {room} connections; raise "
                             "server_ports")
        return self


AnyWorkload = Sessions | Short | Ftp | Tftp | Ping | Flood
Workload = Annotated[AnyWorkload, Field(discriminator="kind")]
KINDS = ("sessions", "short", "ftp", "tftp", "ping", "flood")


def orders(name: str, workload: AnyWorkload, *, address: str, rate: float, epoch: float) -> dict[str, Any]:
    """The orders for the two processes of a workload, as JSON: durations in seconds of lab time."""
    return {**workload.model_dump(), "name": name, "address": address, "clock": {"rate": rate, "epoch": epoch}}
