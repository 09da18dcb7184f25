"""Tries in earnest what a lab needs of the kernel: makes the bridge, inserts the rule, binds the queue.

Runs inside private namespaces only, where whatever it makes vanishes with them: as a program of its own for doctor
(prints JSON), and by `required` in the first process of every lab. It must not know what a failure means to the user.
"""

import json
import subprocess
import sys
from collections.abc import Callable

QUEUE_NUMBER = 65_000
"""A queue that no member uses."""
DIVERT_TABLE = "filter"
DIVERT_CHAIN = "FORWARD"
"""Where the members divert."""

Probe = Callable[[], None]


def _run(*argv: str) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise OSError(f"{argv[0]} is not installed") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise OSError(next((line for line in lines if "rror" in line), lines[-1]))


def _rule(tool: str, table: str, chain: str, *rule: str) -> None:
    _run(tool, "-w", "-t", table, "-A", chain, *rule)
    _run(tool, "-w", "-t", table, "-D", chain, *rule)


def _nfqueue(tool: str) -> None:
    _rule(tool, DIVERT_TABLE, DIVERT_CHAIN, "-j", "NFQUEUE", "--queue-num", str(QUEUE_NUMBER))


def _bind() -> None:
    from netfilterqueue import NetfilterQueue

    queue = NetfilterQueue()
    queue.bind(QUEUE_NUMBER, lambda packet: packet.drop())
    queue.unbind()


def _link(kind: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname="probe0", kind=kind)
        route.link("del", index=route.link_lookup(ifname="probe0")[0])


def _qdisc(kind: str, **parameters: int) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname="probe0", kind="veth")
        index = route.link_lookup(ifname="probe0")[0]
        try:
            route.tc("add", kind, index, **parameters)
        finally:
            route.link("del", index=index)


def _statistic() -> None:
    _rule("iptables", "filter", "INPUT", "-m", "statistic", "--mode", "random", "--probability", "0.5", "-j", "DROP")


def _nft_queue() -> None:
    _run("nft", "add", "table", "inet", "probe")
    _run("nft", "add", "chain", "inet", "probe", "c", "{ type filter hook forward priority 0; }")
    _run("nft", "add", "rule", "inet", "probe", "c", "queue", "num", str(QUEUE_NUMBER))


REQUIRED: dict[str, Probe] = {
    "NFQUEUE (iptables)": lambda: _nfqueue("iptables"),
    "NFQUEUE (ip6tables)": lambda: _nfqueue("ip6tables"),
    "packet queue": _bind,
    "bridge": lambda: _link("bridge"),
    "veth": lambda: _link("veth"),
}
OPTIONAL: dict[str, Probe] = {
    "tbf": lambda: _qdisc("tbf", rate=125_000, burst=10_000, latency=50_000),
    "statistic match": _statistic,
    "netem": lambda: _qdisc("netem", delay=10_000),
    "nft queue": _nft_queue,
}


def _attempt(probe: Probe) -> str:
    try:
        probe()
    except Exception as error:
        return str(getattr(error, "args", [None, ""])[-1]) or type(error).__name__
    return ""


def required() -> dict[str, str]:
    """What of the required parts fails here, and how: in the namespaces of a lab that is about to be built.

    Bridge and veth are left out: building the lab tries them at once.
    """
    names = ("NFQUEUE (iptables)", "NFQUEUE (ip6tables)", "packet queue")
    return {name: complaint for name in names if (complaint := _attempt(REQUIRED[name]))}


def main() -> None:
    """Probe everything; a JSON object of name -> complaint (empty where it works) on stdout."""
    json.dump({name: _attempt(probe) for name, probe in {**REQUIRED, **OPTIONAL}.items()}, sys.stdout)


if __name__ == "__main__":
    main()
