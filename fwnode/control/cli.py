"""`fwctl MEMBER …`: ask a member, or tell it what to do. Knows the control protocol; decides nothing."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from fwnode import output
from fwnode.control import compare, render
from fwnode.control.client import SUPERVISOR, Control, MemberError, members_here, run_directory
from fwnode.files import FileError, load_yaml, mapping
from fwnode.firewall.parameters import PARAMETERS
from fwnode.printable import printable

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Ask a firewall member, or tell it what to do.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
ctl = typer.Typer(no_args_is_help=True, help="Kernel parameters.")
policy = typer.Typer(no_args_is_help=True, help="The rule base.")
sync = typer.Typer(no_args_is_help=True, help="Synchronisation.")
app.add_typer(ctl, name="ctl")
app.add_typer(policy, name="policy")
app.add_typer(sync, name="sync")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")]

CLEARING_INTERVAL_S = 0.1
"""Wall seconds between two looks at how far the clearing of the table has come."""

_target: dict[str, Any] = {}


@app.callback()
def _choose(
    member: Annotated[str, typer.Argument(help="Name of the member, such as fw1.")],
    lab: Annotated[str | None, typer.Option("--lab", metavar="NAME", help="The lab, when several are up.")] = None,
) -> None:
    _target.update(member=member, lab=lab)


def _control() -> Control:
    return Control(run_directory(_target["lab"]) / f"{_target['member']}.sock")


def _ask(command: str, **arguments: Any) -> Any:
    control = _control()
    try:
        return control.ask(command, **arguments)
    finally:
        control.close()


def _print(data: Any, as_json: bool, text: Callable[[Any], Iterable[str]]) -> None:
    if as_json:
        print(json.dumps(data, indent=2), flush=True)
    else:
        for line in text(data):
            print(printable(line))
        sys.stdout.flush()


@app.command()
def stat(as_json: Json = False) -> None:
    """Member states, critical devices, the last failover (`cphaprob state`)."""
    _print(_ask("stat"), as_json, render.stat)


@app.command()
def devices(as_json: Json = False) -> None:
    """Critical devices and what is wrong with them (`cphaprob list`)."""
    _print(_ask("stat")["devices"], as_json, render.devices)


@app.command()
def interfaces(as_json: Json = False) -> None:
    """Cluster interfaces, their state and virtual addresses (`cphaprob -a if`)."""
    _print(_ask("stat")["interfaces"], as_json, render.interfaces)


@app.command()
def pstat(as_json: Json = False) -> None:
    """Packets, connections and sync in figures (`fw ctl pstat`)."""
    _print(_ask("pstat"), as_json, render.pstat)


@app.command()
def syncstat(as_json: Json = False) -> None:
    """Synchronisation in figures (`cphaprob syncstat`)."""
    _print(_ask("syncstat"), as_json, render.syncstat)


@app.command()
def reset(what: Annotated[str, typer.Argument(help="syncstat")] = "syncstat") -> None:
    """The figures of synchronisation count anew (`cphaprob -reset syncstat`)."""
    if what != "syncstat":
        raise MemberError(f"{what} cannot be reset; syncstat can")
    _ask("reset")
    print(f"{_target['member']}: the figures of synchronisation count from now on")


@app.command()
def status(as_json: Json = False) -> None:
    """Everything in one answer."""
    _print(_ask("status"), as_json, render.status)


@app.command()
def tab(
    table: Annotated[
        str, typer.Option("-t", help="connections, local (the member's own), or expected (announced ones).")
    ] = "connections",
    summary: Annotated[bool, typer.Option("-s", help="Only counts.")] = False,
    unlimited: Annotated[bool, typer.Option("-u", help="All rows.")] = False,
    formatted: Annotated[bool, typer.Option("-f", help="Readable; it always is.")] = False,
    rows: Annotated[int, typer.Option("-m", help="At most so many rows.", min=0)] = 16,
    clear: Annotated[bool, typer.Option("-x", help="Clear the connections, here and at the peers.")] = False,
    learned: Annotated[bool, typer.Option("--learned", help="With -x: only those learned out of state.")] = False,
    yes: Annotated[bool, typer.Option("-y", help="With -x: do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """The connections table (`fw tab -t connections`)."""
    if clear:
        _clear(table, learned, yes)
        return
    arguments = {"table": table, "summary": summary, "unlimited": unlimited, "max": rows}
    if summary or as_json:
        _print(_ask("tab", **arguments), as_json, render.tab_summary)
        return
    control = _control()
    try:
        parts = control.parts("tab", **arguments)
        head = next(parts)
        _print({**head, "rows": chain.from_iterable(part.get("rows", ()) for part in parts)}, False, render.tab)
    finally:
        control.close()


def _clear(table: str, learned: bool, yes: bool) -> None:
    what = "learned connections" if learned else "connections"
    if table != "connections":
        raise MemberError(f"the table {table} cannot be cleared; connections can")
    if not yes:
        typer.confirm(f"This ends all {what} of the cluster. Go on?", abort=True)
    _ask("clear", learned=learned)
    while (data := _ask("tab", summary=True))["clearing"]:
        time.sleep(CLEARING_INTERVAL_S)
    print(f"{_target['member']}: {data['cleared']} {what} cleared, {data['values']} connections are there")


@app.command()
def drops(follow: Follow = False, as_json: Json = False) -> None:
    """Dropped packets and why."""
    _stream("drops", follow, as_json, render.drops, lambda e: e["action"] == "drop", render.log_entry)


@app.command()
def log(follow: Follow = False, as_json: Json = False) -> None:
    """The log: drops, and accepts of rules that track them."""
    _stream("log", follow, as_json, lambda d: map(render.log_entry, d["entries"]), lambda _: True, render.log_entry)


@app.command()
def events(follow: Follow = False, as_json: Json = False) -> None:
    """What happened to the member: states, peers, sync, policy, parameters."""
    if not follow:
        _print(_ask("events")["events"], as_json, lambda entries: map(render.event, entries))
        return
    _stream("events", True, as_json, lambda _: (), lambda _: True, render.event)


def _stream(
    command: str,
    follow: bool,
    as_json: bool,
    first: Callable[[Any], Iterable[str]],
    wanted: Callable[[dict[str, Any]], bool],
    line: Callable[[dict[str, Any]], str],
) -> None:
    control = _control()
    data = control.ask(command, follow=follow)
    if not (follow and as_json):
        _print(data, as_json, first)
    if follow:
        for entry in control.follow():
            if as_json:
                print(json.dumps(entry), flush=True)
            elif "dropped" in entry:
                print(f"({entry['dropped']} more came faster than they were read here)", flush=True)
            elif wanted(entry):
                print(printable(line(entry)), flush=True)
            if output.gone():
                break


@app.command()
def down() -> None:
    """Administratively down; sync goes on (`clusterXL_admin down`)."""
    print(f"{_target['member']} is {_ask('down')['state']}")


@app.command()
def up() -> None:
    """Ends `down`; no full sync follows (`clusterXL_admin up`)."""
    print(f"{_target['member']} is {_ask('up')['state']}")


@app.command()
def stop() -> None:
    """Stop the member in good order; its connections are forgotten (`cpstop`)."""
    control = _control()
    try:
        control.ask("stop")
        control.wait_for_end()
    finally:
        control.close()
    print(f"{_target['member']} has stopped")


@app.command()
def start() -> None:
    """Start a member that was stopped or killed (`cpstart`)."""
    supervisor = run_directory(_target["lab"]) / f"{SUPERVISOR}.sock"
    if not supervisor.exists():
        service = f"systemctl start fwnode@{_target['member']}"
        raise MemberError(f"no lab here that could start it; on a machine of its own: {service}")
    control = Control(supervisor)
    try:
        control.request({"step": {"start": _target["member"]}}, timeout_s=None)
    finally:
        control.close()
    print(f"{_target['member']} is {_ask('status')['state']}")


@ctl.command("set", context_settings={"ignore_unknown_options": True})
def ctl_set(
    kind: Annotated[str, typer.Argument(help="int")],
    name: Annotated[str, typer.Argument(help="Name of the parameter.")],
    value: Annotated[str, typer.Argument(help="Decimal or 0x…")],
) -> None:
    """Set a kernel parameter until the member stops (`fw ctl set int NAME VALUE`)."""
    _only_int(kind, f"set int {kind if kind in PARAMETERS else 'NAME'} VALUE")
    for changed, now in _ask("ctl_set", name=name, value=value).items():
        print(f"{changed} = {now}")


@ctl.command("get")
def ctl_get(
    kind: Annotated[str, typer.Argument(help="int")] = "int",
    name: Annotated[str, typer.Argument(help="Name of the parameter; none for all.")] = "",
    as_json: Json = False,
) -> None:
    """Show a kernel parameter (`fw ctl get int NAME`), or all with their legal values."""
    _only_int(kind, f"get int {name or kind}")
    data = _ask("ctl_get", name=name)
    if name and not as_json:
        print(f"{name} = {data[name]['value']}")
        return
    _print(data, as_json, lambda d: (f"{n:<32} = {p['value']:<8} ({p['legal']}) {p['meaning']}" for n, p in d.items()))


def _only_int(kind: str, instead: str) -> None:
    if kind != "int":
        raise MemberError(f"parameters of kind {kind!r} do not exist: write `ctl {instead}`")


@policy.command("install")
def policy_install(file: Annotated[Path, typer.Argument(help="The rule base (YAML).")]) -> None:
    """Install a rule base; a bad file changes nothing."""
    result = _ask("policy_install", policy=mapping(load_yaml(file), str(file)), file=str(file))
    known = "are matched again" if result["on_install"] == "rematch" else "are kept"
    kept = f"NOT kept for the next start: {result['not_kept']}" if result["not_kept"] else "kept for the next start"
    rules = f"{result['rules']} rules; known connections {known}; {kept}"
    print(f"policy {result['policy']} installed on {_target['member']}: {rules}")


@sync.command("compare")
def sync_compare(as_json: Json = False) -> None:
    """Compare this member's connections with those of the other members here: how many each lacks, by kind.

    Exit code 0: equal; 1: they differ.
    """
    directory = run_directory(_target["lab"])
    members = [_target["member"], *(name for name in members_here(directory) if name != _target["member"])]
    controls = {name: control for name in members if (control := _reachable(directory / f"{name}.sock")) is not None}
    try:
        if len(controls) < 2:
            raise MemberError("there is no second running member here to compare with")
        first, _ = _look(controls)
        gone = compare.differences(first)
        if gone:
            time.sleep(compare.LOOKS_APART_S)
        second, unsynchronised = _look(controls)
        data = compare.summary(second, gone & compare.differences(second), unsynchronised)
    finally:
        for control in controls.values():
            control.close()
    _print(data, as_json, compare.show)
    if not data["equal"]:
        sys.exit(1)


def _reachable(path: Path) -> Control | None:
    try:
        return Control(path)
    except MemberError:
        return None


def _look(controls: dict[str, Control]) -> tuple[dict[str, compare.StatesByKey], int]:
    answers = {name: control.ask("keys") for name, control in controls.items()}
    return {name: compare.unpack(answer) for name, answer in answers.items()}, compare.unsynchronised(answers.values())


def lab_first(words: list[str]) -> list[str]:
    """`--lab NAME` may stand anywhere on the line; the parser wants it before the member."""
    for index, word in enumerate(words):
        length = 1 if word.startswith("--lab=") else 2 if word == "--lab" else 0
        if length:
            return words[index : index + length] + words[:index] + words[index + length :]
    return words


def member_first(words: list[str]) -> list[str]:
    """A line without a member: help needs none, and `sync compare` is about all members, so any may be asked."""
    begin = 0
    if words and words[0].startswith("--lab"):
        begin = 1 if "=" in words[0] else 2
    rest = words[begin:]
    groups = {str(info.name) for info in app.registered_groups}
    commands = {info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands} | groups
    if not rest or rest[0] not in commands or (len(rest) > 1 and rest[1] in commands):
        return words
    if {"-h", "--help"} & set(rest) or (len(rest) == 1 and rest[0] in groups):  # a group alone shows its help
        return [*words[:begin], "MEMBER", *rest]
    if rest[:2] != ["sync", "compare"]:
        raise MemberError(f"name the member first: `fwctl fw1 {' '.join(rest)}`")
    lab = words[0].partition("=")[2] or words[1] if begin else None
    return [*words[:begin], *members_here(run_directory(lab))[:1], *rest]


def run(arguments: Callable[[], list[str]], program: str = "fwctl") -> None:
    """Carry out a command line. Exit code 0, or 2 when the command, a file or the member says no; 70 for an error of
    this program itself, 74 where its output is lost."""
    output.prepare()
    sys.exit(output.finish(program, _run(arguments, program)))


def _run(arguments: Callable[[], list[str]], program: str) -> int:
    try:
        app(member_first(lab_first(arguments())), prog_name=program)
    except (MemberError, FileError) as error:
        for line in str(error).splitlines():
            print(f"{program}: {printable(line)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except Exception:
        traceback.print_exc()
        return os.EX_SOFTWARE
    return 0


def main() -> None:
    run(lambda: sys.argv[1:])
