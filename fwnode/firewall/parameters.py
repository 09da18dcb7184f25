"""Kernel parameters: name, default, legal values, one-line meaning. One table, and the store that checks against it.

A release may bring other defaults (`Parameters(defaults)`); what the operator set wins over both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches


class ParameterError(ValueError):
    """Unknown name or illegal value; the message lists what is legal."""


@dataclass(frozen=True)
class Parameter:
    """One parameter: a whole number from `low` to `high`."""

    name: str
    default: int
    low: int
    high: int
    meaning: str
    at_start: bool = False
    """Read once, when the member starts."""

    @property
    def legal(self) -> str:
        """The legal values, for people."""
        if self.high - self.low == 1:
            return f"{self.low} or {self.high}"
        return f"{self.low} to {self.high}"


_DAY = 86_400

# Timeouts: clusterxl.md of the product's defaults (start 25, session 3600, end 20 or 5 by release, UDP 40, ICMP 30,
# other 60); the upper bound of a year is ours.
PARAMETERS = {
    parameter.name: parameter
    for parameter in (
        Parameter("fw_allow_out_of_state_tcp", 0, 0, 1, "1: a TCP packet without a connection is judged by the policy"),
        Parameter("fw_allow_out_of_state_icmp_error", 0, 0, 1, "1: an ICMP error about no known connection passes"),
        Parameter("fw_log_out_of_state_tcp", 1, 0, 1, "1: dropped out-of-state TCP packets are logged"),
        Parameter("tcp_start_timeout", 25, 1, _DAY, "seconds for the TCP handshake"),
        Parameter("tcp_session_timeout", 3600, 1, 365 * _DAY, "seconds an established TCP connection may be idle"),
        Parameter("tcp_end_timeout", 20, 1, _DAY, "seconds an entry stays after both FINs or a RST"),
        Parameter("udp_timeout", 40, 1, _DAY, "seconds a UDP connection may be idle"),
        Parameter("icmp_timeout", 30, 1, _DAY, "seconds an ICMP echo exchange may be idle"),
        Parameter("other_timeout", 60, 1, _DAY, "seconds a connection of another protocol may be idle"),
        Parameter("connections_limit", 1_000_000, 1, 10_000_000, "connections that the table holds at most"),
        Parameter("fw_sync_block_new_conns", -1, -1, 0, "0: sync load blocks new connections; -1: it does not"),
        Parameter("fw_sync_buffer_threshold", 80, 1, 100, "percent of the sending queue, unacknowledged, that is load"),
        Parameter("fw_sync_allowed_protocols", 24, 0, 31, "not blocked: ICMP 1, TCP 2, UDP 4, TCP data 8, UDP data 16"),
        Parameter("fw_sync_sending_queue_size", 512, 512, 1 << 20, "updates kept for retransmission", at_start=True),
        Parameter("fw_sync_recv_queue_size", 256, 256, 1 << 20, "updates held behind a missing one", at_start=True),
        Parameter("fwlab_sync_heal", 0, 0, 1, "1: a lost update is mended by a full sync of the member's own accord"),
        Parameter("fwlab_sync_flush_and_ack", 0, 0, 1, "1: packets that change the table wait for active peers' ACK"),
        Parameter("fwha_heartbeat_ms", 100, 10, 1_000, "milliseconds between two heartbeats (wall time)"),
        Parameter("fwha_dead_timeout_ms", 2_500, 50, 60_000, "milliseconds of silence after which a peer is lost"),
    )
}


def look_up(name: str) -> Parameter:
    """The parameter of that name; raises `ParameterError` with near and legal names."""
    parameter = PARAMETERS.get(name)
    if parameter is None:
        near = get_close_matches(name, PARAMETERS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ParameterError(f"unknown kernel parameter {name!r}: {hint}Known are {', '.join(PARAMETERS)}")
    return parameter


def parse_value(name: str, text: str) -> int:
    """The value written as decimal or 0x…; the product writes -1 as 0xFFFFFFFF. Raises `ParameterError`."""
    parameter = look_up(name)
    try:
        value = int(text, 0)
    except ValueError:
        raise ParameterError(f"{name}: {text!r} is not a number; legal is {parameter.legal}") from None
    return -1 if value == 0xFFFF_FFFF else value


class Parameters:
    """The values in force on one member."""

    def __init__(self, defaults: Mapping[str, int] | None = None) -> None:
        """`defaults` are a release's own; names that this lab does not model are left out."""
        self._values = {name: parameter.default for name, parameter in PARAMETERS.items()}
        self._values.update({n: v for n, v in (defaults or {}).items() if n in PARAMETERS})

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def get(self, name: str) -> int:
        """The value; raises `ParameterError` for an unknown name."""
        return self._values[look_up(name).name]

    def set(self, name: str, value: int) -> None:
        """Raises `ParameterError`, and changes nothing, for an unknown name or an illegal value."""
        parameter = look_up(name)
        if isinstance(value, bool) or not parameter.low <= value <= parameter.high:
            raise ParameterError(f"{name}: {value} is not legal; legal is {parameter.legal} ({parameter.meaning})")
        self._values[name] = value

    def set_running(self, name: str, value: int) -> None:
        """`set` on a member that runs: what is read at its start only is refused."""
        if look_up(name).at_start:
            raise ParameterError(f"{name} is read when the member starts: write it under `parameters` of its "
                                 "configuration (a lab's `members`), and start the member anew")
        self.set(name, value)

    def as_dict(self) -> dict[str, int]:
        """All parameters with their values in force."""
        return dict(self._values)
