"""`fwlab`: the command line of the labs. Parses, asks the rooms, prints; decides nothing.

The commands of other rooms are registered at the end. Every error that a person can mend is one line on stderr and an
exit code of `labs.exit_codes`.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fwnode import output
from fwnode.configuration import load_releases
from fwnode.fields import DURATION_MAX_S
from fwnode.files import FileError, load_yaml, mapping
from fwnode.policy_file import build_policy
from labs.exit_codes import ExitCode
from labs.network import background, discovery, supervisor
from labs.network.control_client import perform, request
from labs.network.errors import LabError
from labs.network.members import DEFAULT_RELEASE, MemberSettings, configuration_text, member_configuration
from labs.network.namespaces import node_sysctls
from labs.network.private import die_with_parent
from labs.network.topology import DEFAULT_TOPOLOGY, Topology, load_topology
from labs.quantities import parse_clock_rate
from labs.words import did_you_mean, lab_first
from syncproto.errors import SyncError

app = typer.Typer(name="fwlab", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="A firewall cluster on real packets in private network namespaces.",
                  epilog="Exit codes: 0 held, 1 an expectation failed, 2 usage or file error, 3 passed with warnings, "
                         "4 this machine cannot run it, 70 an error of fwlab itself, 74 output could not be written, "
                         "130 interrupted.",
                  context_settings={"help_option_names": ["-h", "--help"]})
out = Console(markup=False, emoji=False)  # names may look like markup
err = Console(stderr=True, highlight=False)

OTHER_ROOMS = ("labs.procedure.cli", "labs.sweep.cli", "labs.chaos.cli", "labs.bench.cli")
PASS_THROUGH = {"ignore_unknown_options": True, "allow_interspersed_args": False}

LabOption = Annotated[str | None, typer.Option("--lab", help="Which lab, when several are running.")]
TopologyName = Annotated[str, typer.Argument(help="A built-in topology, or a .yaml file.")]
MemberCount = Annotated[int | None, typer.Option("--members", help="So many members, 2 to 5, instead.")]
ClusterMode = Annotated[str | None, typer.Option("--mode", help="high-availability (the default), "
                                                 "load-sharing-multicast or load-sharing-unicast.")]
Releases = Annotated[list[str] | None, typer.Option("--release", metavar="MEMBER=RELEASE",
                                                    help="Software release of a member; or one for all.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fwlab {version('fwpair-lab')}")
        raise typer.Exit


@app.callback()
def _options(_: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version,
                                             help="Print the version.")] = False) -> None:
    """Options of the program itself."""


@app.command()
def up(topology: TopologyName = DEFAULT_TOPOLOGY,
       name: Annotated[str | None, typer.Option(help="The lab's name; that of the topology by default.")] = None,
       members: MemberCount = None,
       mode: ClusterMode = None,
       release: Releases = None,
       policy: Annotated[Path | None, typer.Option(help="Rule base (YAML) of every member.")] = None,
       releases: Annotated[Path | None, typer.Option(
           help="A table of releases (YAML) over the built-in one.")] = None,
       rate: Annotated[float, typer.Option(help="Lab seconds a wall second.")] = 1.0,
       member_command: Annotated[str | None, typer.Option(hidden=True)] = None) -> None:
    """Start a lab in the background; return when every member has said that it is ready."""
    try:
        parse_clock_rate(rate)
    except ValueError as error:
        raise LabError(f"--rate: {error}") from None
    shape = _topology(topology, members, mode)
    lab = discovery.check_name(shape.name if name is None else name)
    settings = _settings(shape, release or [], policy, releases)
    began = time.monotonic()
    arguments = {
        "topology": shape.model_dump(mode="json"),
        "members": {member: vars(values) for member, values in settings.items()},
        "rate": rate,
        "releases": str(releases.resolve()) if releases else None,
        "member_command": shlex.split(member_command) if member_command else None,
    }
    with background.start_detached(lab, arguments) as wait_until_up:
        with err.status(f"starting {', '.join(shape.members)} …"):
            info = wait_until_up()
        _print_lab(info, time.monotonic() - began)
        sys.stdout.flush()


@app.command("ps")
def list_running(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """The labs that are running, and their members."""
    infos = [found for lab in discovery.running() if (found := _info(lab)) is not None]
    if as_json:
        print(json.dumps(infos, indent=2))
        return
    table = Table("LAB", "TOPOLOGY", "PID", "UP FOR", "RATE", "MEMBERS", box=None, pad_edge=False)
    for info in infos:
        members = ", ".join(f"{member} {values['release']} {values['state']}"
                            for member, values in info["members"].items())
        table.add_row(info["name"], info["topology"], str(info["pid"]), _duration(info["up_s"]),
                      f"{info['rate']:g}", members)
    if infos:
        out.print(table)
    else:
        print("no lab is running; `fwlab up` starts one")


@app.command("exec", context_settings=PASS_THROUGH)
def execute(node: Annotated[str, typer.Argument(help="A host or member.")],
            command: Annotated[list[str], typer.Argument(metavar="-- CMD…")],
            lab: LabOption = None) -> None:
    """Run any program in a node; the exit code is the program's."""
    found = discovery.choose(lab)
    _check_node(found, node)
    _replace(found, node, command, {})


@app.command()
def shell(node: Annotated[str, typer.Argument(help="A host or member.")], lab: LabOption = None) -> None:
    """A shell in a node; `fwctl` is on its PATH."""
    found = discovery.choose(lab)
    _check_node(found, node)
    prompt = rf"\[\e[1m\][{found.name} {node}]\[\e[0m\] \w\$ "
    interactive = ["-i"] if os.isatty(0) else []  # without a terminal its input is a script
    _replace(found, node, ["bash", "--noprofile", "--norc", *interactive], {"PS1": prompt})


@app.command(context_settings={"allow_interspersed_args": True})
def capture(link: Annotated[str, typer.Argument(help="A switch (lan) or a link, NODE-SWITCH (fw1-sync).")],
            write: Annotated[str, typer.Option("-w", "--write", metavar="FILE", help="pcap file, or - for a pipe.")],
            count: Annotated[int | None, typer.Option(min=1, help="End after so many packets.")] = None,
            seconds: Annotated[float | None, typer.Option(help="End after so many wall seconds.")] = None,
            expression: Annotated[list[str] | None, typer.Argument(
                metavar="[FILTER…]", help="A filter as tcpdump takes it, such as: udp port 8116")] = None,
            lab: LabOption = None) -> None:
    """Capture what passes a switch or a link; ends on Ctrl-C, after --count packets or after --seconds."""
    if seconds is not None and not 0 <= seconds <= DURATION_MAX_S:
        raise LabError(f"--seconds: {seconds} is no time to wait; write 0 to {DURATION_MAX_S:,.0f}")
    found = discovery.choose(lab)
    links = _ask(found, {"info": {}})
    legal = [*links["switches"], *links["links"]]
    if link not in legal:
        raise LabError(f"there is no link or switch {link}{did_you_mean(link, legal)}; there are {', '.join(legal)}")
    program = _compile_filter(expression or [])
    arguments = ["--program", program] if program else []
    arguments += ["--count", str(count)] if count is not None else []
    arguments += ["--seconds", str(seconds)] if seconds is not None else []
    # The file is opened out here, so that it belongs to the caller, and lies where he sees it.
    try:
        target = sys.stdout.buffer if write == "-" else Path(write).open("wb")  # noqa: SIM115
    except OSError as error:
        raise LabError(f"{write}: cannot be written: {error.strerror}") from None
    program_path = str(Path(__file__).parent / "network" / "capture.py")
    argv = found.enter(None, [sys.executable, "-I", program_path, link, *arguments])
    with target:
        code = _run_capture(argv, target)
    raise typer.Exit(code)


@app.command()
def down(name: Annotated[str | None, typer.Argument(help="Which lab; else the only one, which `up` started.")] = None,
         name_option: Annotated[str | None, typer.Option("--name", "--lab", hidden=True)] = None) -> None:
    """End a lab; nothing of it remains."""
    wanted = name_option if name is None else name
    lab = discovery.choose_to_end() if wanted is None else discovery.choose(wanted)
    supervisor.stop(lab)
    print(f"{lab.name}: down")


@app.command("do", context_settings=PASS_THROUGH)
def do_step(step: Annotated[str, typer.Argument(help="start, stop, kill, pause, upgrade, cut, limit, lose, delay, …")],
            arguments: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE…]")] = None,
            lab: LabOption = None) -> None:
    """Do one step or fault to a lab that is up, such as: fwlab do lose link=fw2-sync share=20% way=in"""
    from labs.procedure.asked import read_step, step_arguments

    words = arguments or []
    value: object = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    if plain:
        if len(words) > 1:
            raise LabError(f"{step}: {plain[0]!r} is no KEY=VALUE")
        value = plain[0]
    values = step_arguments(step, value)
    if step == "policy":
        file = str(values.pop("policy"))
        values.update(rules=_rule_base(Path(file)), origin=file)
    read_step(step, values)
    result = asyncio.run(perform(discovery.choose(lab).supervisor_socket, {step: values}, err.print))
    if result is not None:
        print(json.dumps(result, indent=2) if isinstance(result, (dict, list)) else result)


@app.command()
def config(node: Annotated[str, typer.Argument(help="A member; a host too with --sysctl or --network.")],
           topology: Annotated[str, typer.Option(help="A built-in topology, or a .yaml file.")] = DEFAULT_TOPOLOGY,
           members: MemberCount = None,
           release: Releases = None,
           policy: Annotated[Path | None, typer.Option(help="Rule base (YAML).")] = None,
           interface: Annotated[list[str] | None, typer.Option(
               metavar="SWITCH=NAME", help="The interface on a switch, where it has another name.")] = None,
           sysctl: Annotated[bool, typer.Option("--sysctl", help="Print the node's sysctl.d file instead.")] = False,
           network: Annotated[bool, typer.Option(
               "--network", help="Print the commands that give the node its addresses instead.")] = False) -> None:
    """Print a member's configuration file, as a lab would write it: for machines outside of a lab."""
    shape = _topology(topology, members)
    names = _pairs("--interface", interface or [], list(shape.switches))
    if node not in shape.nodes or (node not in shape.members and not (sysctl or network)):
        raise LabError(f"there is no {'node' if sysctl or network else 'member'} {node}; "
                       f"there are {', '.join(shape.nodes if sysctl or network else shape.members)}")
    if sysctl:
        print("".join(f"{key} = {value}\n" for key, value in node_sysctls(node in shape.members).items()), end="")
    elif network:
        print(_network_script(shape, node, names), end="")
    else:
        settings = _settings(shape, release or [], policy)[node]
        print(configuration_text(member_configuration(shape, node, settings, interface_names=names)), end="")


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """What this machine has and lacks for a lab, and how to mend it."""
    from labs.network import doctor as room

    findings = room.examine()
    if as_json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        room.print_table(findings, out)
    raise typer.Exit(room.exit_code(findings))


# -- helpers --------------------------------------------------------------------------------------------------------


def _topology(source: str, members: int | None, mode: str | None = None) -> Topology:
    shape = load_topology(source, "topology")
    if members is not None:
        shape = load_topology({**shape.model_dump(mode="json"), "members": members}, "--members")
    if mode is not None:
        cluster = {**shape.cluster.model_dump(), "mode": mode}
        shape = load_topology({**shape.model_dump(mode="json"), "cluster": cluster}, "--mode")
    return shape


def _settings(shape: Topology, releases: Iterable[str], policy: Path | None,
              table: Path | None = None) -> dict[str, MemberSettings]:
    """The members' settings, checked here: a wrong file is told once and by its own name, before anything starts."""
    words = list(releases)
    for_all = words[-1] if words and "=" not in words[-1] else DEFAULT_RELEASE
    chosen = _pairs("--release", [word for word in words if "=" in word], shape.members)
    rules = _rule_base(policy, shape) if policy is not None else {}
    known = load_releases(str(table.resolve()) if table else "")
    for word in {for_all, *chosen.values()}:
        known.release(word)
    return {member: MemberSettings(release=chosen.get(member, for_all), policy=dict(rules))
            for member in shape.members}


def _pairs(option: str, words: Iterable[str], legal: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value or key not in legal:
            raise LabError(f"{option} {word}: expected one of {', '.join(legal)}, then = and a value")
        found[key] = value
    return found


def _rule_base(path: Path, shape: Topology | None = None) -> dict[str, Any]:
    """A rule base as it is written; checked where the members' names are known (else the member checks it)."""
    rules = mapping(load_yaml(path), str(path))
    if shape is not None:
        build_policy(rules, str(path), frozenset(shape.members))
    return rules


def _info(lab: discovery.RunningLab) -> dict[str, Any] | None:
    """A lab's info with the pid of this side; None where it went away or does not answer yet."""
    try:
        return {**_ask(lab, {"info": {}}), "pid": lab.pid}
    except LabError:
        return None


def _ask(lab: discovery.RunningLab, message: dict[str, Any]) -> Any:
    return asyncio.run(request(lab.supervisor_socket, message, timeout_s=120.0))


def _check_node(lab: discovery.RunningLab, node: str) -> None:
    directory = lab.root / "run/netns"
    if not (directory / node).exists():
        known = sorted(path.name for path in directory.glob("*"))
        raise LabError(f"there is no node {node} in lab {lab.name}{did_you_mean(node, known)}; "
                       f"there are {', '.join(known)}")


def _replace(lab: discovery.RunningLab, node: str, command: list[str], extra: dict[str, str]) -> NoReturn:
    from labs.network.lab import node_environment

    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        raise LabError("give a command after --")
    argv = lab.enter(node, command)
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, {**os.environ, **node_environment(lab.name, node), **extra})
    except OSError as error:
        raise LabError(f"{argv[0]} cannot be started: {error.strerror}") from None


def _run_capture(argv: list[str], target: IO[bytes]) -> int:
    """Run the capture; Ctrl-C ends it in order. It holds a pipe open as long as it may still be writing."""
    alive_read, alive_write = os.pipe()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(argv, stdout=target, pass_fds=(alive_write,), preexec_fn=die_with_parent())
    os.close(alive_write)
    interrupted = False
    while True:
        try:
            code = process.wait()
            os.read(alive_read, 1)
            os.close(alive_read)
            if code == 1:  # Python's or nsenter's own: they have said why
                return ExitCode.INTERNAL
            return ExitCode.HELD if interrupted else code
        except KeyboardInterrupt:
            interrupted = True
            process.terminate()  # nsenter; the capture gets SIGTERM by its death, if the terminal did not reach it


def _compile_filter(expression: list[str]) -> str:
    """A filter as the kernel takes it. tcpdump translates without opening a device."""
    if not expression:
        return ""
    try:
        done = subprocess.run(["tcpdump", "-y", "EN10MB", "-s", "262144", "-ddd", *expression],
                              capture_output=True, text=True, check=False)
    except OSError:
        raise LabError("a filter needs tcpdump, which is not installed") from None
    if done.returncode != 0:
        raise LabError(f"filter {' '.join(expression)!r}: {done.stderr.strip().splitlines()[-1]}")
    return ",".join(done.stdout.split("\n")).strip(",")


def _network_script(shape: Topology, node: str, names: dict[str, str]) -> str:
    """What `Lab.build` does in a namespace, as commands; a machine keeps its own default route."""
    lines: list[str] = []
    for switch, addresses in shape.interfaces(node).items():
        name = names.get(switch, switch)
        lines.append(f"ip link set dev {name} up")
        # `default` is too late for an interface that is there already.
        lines += [f"sysctl -qw {key.replace('.default.', f'.{name}.')}={value}"
                  for key, value in node_sysctls(node in shape.members).items() if ".default." in key]
        for address in addresses:
            nodad = " nodad" if address.version == 6 else ""
            lines.append(f"ip -{address.version} address replace {address} dev {name}{nodad}")
    for gateway in shape.gateways(node) if node in shape.hosts else []:
        own = shape.hosts[node].switch
        lines += [f"ip -{gateway.version} route replace {network} via {gateway}"
                  for switch, values in shape.switches.items() if switch != own and not values.sync
                  for network in values.networks if network.version == gateway.version]
    return "".join(f"{line}\n" for line in lines)


def _print_lab(info: dict[str, Any], seconds: float) -> None:
    table = Table("NODE", "INTERFACE", "ADDRESSES", "RELEASE", "STATE", box=None, pad_edge=False)
    for node, values in info["nodes"].items():
        member = info["members"].get(node, {})
        for number, (interface, addresses) in enumerate(values["interfaces"].items()):
            first = number == 0
            table.add_row(node if first else "", interface, "  ".join(addresses),
                          member.get("release", "") if first else "", member.get("state", "") if first else "")
    for switch, addresses in info["virtual"].items():
        table.add_row("(virtual)", switch, "  ".join(addresses))
    name = (info["name"], "bold")
    out.print(Text.assemble("lab ", name, f" is up after {seconds:.1f} s, {info['rate']:g} lab seconds a second"))
    out.print(table)
    lab = f" --lab {info['name']}" if len(discovery.names()) > 1 else ""
    hosts = [node for node, values in info["nodes"].items() if values["kind"] == "host"]
    member = next(iter(info["members"]))
    out.print("next:")
    if len(hosts) > 1:
        far = next(iter(info["nodes"][hosts[-1]]["interfaces"].values()))[0].split("/")[0]
        out.print(f"  fwlab exec{lab} {hosts[0]} -- ping -c 3 {far}", highlight=False)
    out.print(f"  fwctl{lab} {member} stat", highlight=False)
    out.print(f"  fwlab shell{lab} {member}", highlight=False)
    out.print(f"  fwlab down {info['name']}", highlight=False)


def _duration(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours} h {minute} min" if hours else f"{minute} min {second} s" if minute else f"{second} s"


def _register_other_rooms() -> None:
    """Commands of rooms that build on this one. One that does not load must not keep `doctor` from saying why."""
    for name in OTHER_ROOMS:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            cast(Callable[[typer.Typer], None], importlib.import_module(name).register)(app)
        except ImportError as error:
            print(f"fwlab: the commands of {name} are missing: {error}", file=sys.stderr)


_register_other_rooms()


def run() -> NoReturn:
    """Run the command that the command line asks for."""
    sys.exit(output.finish("fwlab", _run()))


def _run() -> int:
    try:
        code = app(lab_first(sys.argv[1:]), standalone_mode=False)
    except LabError as error:
        print(f"fwlab: {error}", file=sys.stderr)
        code = error.exit_code
    except (FileError, SyncError) as error:
        print(f"fwlab: {error}", file=sys.stderr)
        code = ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except Exception as error:
        show = getattr(error, "show", None)  # click's own: a usage error
        if show is None:
            traceback.print_exc()
            print("fwlab: this is an error of fwlab itself", file=sys.stderr)
            return ExitCode.INTERNAL
        show()
        code = ExitCode.USAGE
    return code if isinstance(code, int) else ExitCode.HELD
