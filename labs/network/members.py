"""What is set for each member, and the configuration file that comes of it and the topology.

The file is read by `fwnode.node`; the same text configures a member in a namespace and one in a virtual machine. It
must not know processes or sockets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labs.network.topology import Topology
from labs.yaml_writer import yaml_text

DEFAULT_RELEASE = "R77.30"
RUN_DIRECTORY = Path("/run/fwpair")


def standard_policy(topology: Topology) -> dict[str, Any]:
    """The rule base of a lab that brings none: what the first switch's side opens is accepted, all else dropped."""
    inside, *outside = [name for name, switch in topology.switches.items() if not switch.sync]
    return {
        "name": "standard",
        "networks": {name: [str(network) for network in topology.switches[name].networks]
                     for name in (inside, *outside)},
        "rules": [
            {"name": "outgoing", "source": inside, "action": "accept", "track": "log"},
            {"name": "cleanup", "action": "drop", "track": "log"},
        ],
    }


@dataclass
class MemberSettings:
    """One member's settings; a change takes effect at its next start."""

    release: str = DEFAULT_RELEASE
    started: bool = True
    """Whether it is started when the lab comes up."""
    parameters: dict[str, int] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    """The rule base itself; empty means the standard policy."""


def member_configuration(topology: Topology, member: str, settings: MemberSettings, *, rate: float = 1.0,
                         epoch: float = 0.0, releases: Path | None = None, directory: Path = RUN_DIRECTORY,
                         interface_names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The member's configuration as plain data. `interface_names`: switch -> the interface on it."""
    names = interface_names or {}
    interfaces: list[dict[str, Any]] = []
    for switch_name, switch in topology.switches.items():
        entry: dict[str, Any] = {"name": switch_name}
        if switch_name in names:
            entry["device"] = names[switch_name]
        if switch.sync:
            entry["sync"] = True
        if switch.virtual:
            entry["virtual"] = [str(switch.interface(address)) for address in switch.virtual]
        entry["members"] = {name: [str(address) for address in switch.member_addresses(number)]
                            for number, name in enumerate(topology.members, start=1)}
        interfaces.append(entry)
    configuration: dict[str, Any] = {
        "member": member,
        "release": settings.release,
        "cluster": {**topology.cluster.model_dump(), "interfaces": interfaces},
        "policy": settings.policy or standard_policy(topology),
        "clock": {"rate": rate, "epoch": epoch},
        "parameters": dict(settings.parameters),
        "control": str(directory / f"{member}.sock"),
    }
    if releases is not None:
        configuration["releases"] = str(releases)
    return configuration


def configuration_text(configuration: Mapping[str, Any]) -> str:
    """The YAML text of a member's configuration, for people."""
    return yaml_text(dict(configuration))


def configuration_for_member(configuration: Mapping[str, Any]) -> str:
    """The same for a member that starts at once, as JSON, which is YAML too and is written in a moment."""
    return json.dumps(configuration, ensure_ascii=False, indent=1) + "\n"
