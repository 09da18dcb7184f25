"""The tables in the documentation are generated from the code's own; run this file to write them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fwnode.cluster.membership import MemberState
from fwnode.firewall.parameters import PARAMETERS
from fwnode.firewall.tcp_states import TABLE, ConnectionState, SegmentKind
from fwnode.firewall.verdict import DropReason
from labs.bench.figures import COLUMNS, FIGURES, Row, cells
from labs.exit_codes import ExitCode
from labs.procedure import catalog
from labs.procedure.model import LabFile, load
from labs.simulation.invariants import INVARIANTS
from syncproto import joining, message, session

ROOT = Path(__file__).parents[2]
STATES = {
    MemberState.INITIALIZING: ("no", "starting: listens for its peers, takes the table"),
    MemberState.ACTIVE: ("yes", "fine"),
    MemberState.ACTIVE_ATTENTION: ("yes", "has a problem, but no other member is better"),
    MemberState.STANDBY: ("no", "fine, and another member is active"),
    MemberState.READY: ("no", "an older release is there, and stays active"),
    MemberState.DOWN: ("no", "has a problem, or was put down, and another member is better"),
    MemberState.LOST: ("-", "a peer that is not heard, or whose release is newer"),
}
EXIT_CODES = {
    ExitCode.HELD: "everything that was expected held, or the command did its work",
    ExitCode.FAILED: "an expectation of a lab failed, or a step of it could not be taken",
    ExitCode.USAGE: "a usage or file error; nothing was changed",
    ExitCode.WARNINGS: "passed, with warnings",
    ExitCode.CANNOT_RUN: "this machine cannot run it, or a fault did not take; `fwlab doctor` says what is missing",
    ExitCode.INTERNAL: "an error of `fwlab` itself",
    ExitCode.NOT_WRITTEN: "a result or the output could not be written (a full disk); what could not is said",
    ExitCode.INTERRUPTED: "interrupted; nothing remains of the lab",
}


def table(*header: str, rows: Iterable[Iterable[object]]) -> str:
    lines = [f"| {' | '.join(header)} |", f"| {' | '.join('---' for _ in header)} |"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines)


def messages() -> str:
    rows = ((int(kind), kind.name, _first_sentence(kind)) for kind in message.Kind)
    return table("number", "kind", "meaning", rows=rows)


def _first_sentence(kind: message.Kind) -> str:
    of_kind = next(c for c in vars(message).values() if isinstance(c, type) and getattr(c, "kind", None) is kind)
    return (of_kind.__doc__ or "").split("\n\n")[0].replace("\n    ", " ")


def session_table() -> str:
    return table("state", "message", "handler", rows=iter(sorted(session.describe())))


def joining_table() -> str:
    return table("phase", "event", "handler", rows=sorted(joining.describe()))


def states() -> str:
    return table("state", "forwards", "meaning", rows=((s.label, *STATES[s]) for s in MemberState))


def tcp() -> str:
    side = ("initiator", "responder")
    rows = ((ConnectionState(s).name, side[d], SegmentKind(e).name, following.name)
            for (s, d, e), following in sorted(TABLE.items()))
    return table("state", "from", "segment", "next state", rows=rows)


def parameters() -> str:
    rows = ((f"`{p.name}`", p.default, p.legal, p.meaning) for p in PARAMETERS.values())
    return table("parameter", "default", "legal", "meaning", rows=rows)


def reasons() -> str:
    return table("reason", "meaning", rows=((f"`{r.name}`", r.value) for r in DropReason))


def exit_codes() -> str:
    return table("code", "meaning", rows=((int(c), EXIT_CODES[c]) for c in ExitCode))


def lab_file(name: str) -> LabFile:
    return load(catalog.find(name))


def claims() -> str:
    shown = {file.name: file.header.claims for file in map(lab_file, catalog.names())}
    rows = []
    for number, text in catalog.claims().items():
        labs = ", ".join(f"`{lab}`" for lab, numbers in shown.items() if number in numbers)
        rows.append((number, text, labs or "its test alone"))
    return table("number", "claim", "labs", rows=rows)


def invariants() -> str:
    rows = ((f"`{kind.name}`", kind.sentence, kind.source) for kind in INVARIANTS)
    return table("invariant", "what must hold", "source", rows=rows)


def figures() -> str:
    """The last run of `fwlab bench all --json`, which lies beside the page."""
    last = json.loads((ROOT / "labs/bench/last.json").read_text())
    machine = last["machine"]
    peers = ", ".join(f"{name} {version}" for name, version in machine["peers"].items())
    where = (
        f"{machine['processor']} ({machine['architecture']}), {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"Linux {machine['kernel']}, Python {machine['python']}; {peers}."
    )
    titles = {"rows": "", "wire": "On the sync network:", "simulation": "In the simulated world:"}
    tables = [
        f"{title}\n\n{table(*COLUMNS, rows=(cells(Row(**row)) for row in last[kind]))}".strip()
        for kind, title in titles.items()
        if kind in last
    ]
    return "\n\n".join((where, *tables))


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "messages": ("ARCHITECTURE.md", messages),
    "session": ("ARCHITECTURE.md", session_table),
    "joining": ("ARCHITECTURE.md", joining_table),
    "states": ("ARCHITECTURE.md", states),
    "tcp": ("ARCHITECTURE.md", tcp),
    "invariants": ("ARCHITECTURE.md", invariants),
    "parameters": ("README.md", parameters),
    "reasons": ("README.md", reasons),
    "exit codes": ("README.md", exit_codes),
    "claims": ("labs/claims.md", claims),
    "figures": ("labs/bench/guide.md", figures),
}


def block(name: str, text: str) -> re.Match[str]:
    found = re.search(rf"(<!-- generated: {name} -->\n)(.*?)(<!-- end -->)", text, re.DOTALL)
    assert found, f"no block {name!r}"
    return found


@pytest.mark.parametrize("name", BLOCKS)
def test_the_documentation_shows_the_table_that_the_code_uses(name):
    file, make = BLOCKS[name]
    found = block(name, (ROOT / file).read_text())
    assert found[2].strip() == make().strip(), f"{file} is stale: run python {Path(__file__).relative_to(ROOT)}"


def test_the_page_of_figures_shows_and_explains_each():
    last = json.loads((ROOT / "labs/bench/last.json").read_text())
    assert [row["figure"] for row in last["rows"]] == list(FIGURES)
    explained = (ROOT / "labs/bench/guide.md").read_text().split("## The last figures")[0]
    assert [figure for figure in FIGURES if f"`{figure}`" not in explained] == []


def test_every_claim_is_explained_and_has_a_test():
    known = list(catalog.claims())
    for file in map(lab_file, catalog.names()):
        assert set(file.header.claims) <= set(known), file.name
    source = "".join(path.read_text() for path in (ROOT / "tests/claims").glob("test_*.py"))
    tested = {number.upper() for number in re.findall(r"^def test_([ab]\d+)_", source, re.MULTILINE)}
    assert tested == set(known)
    readme = (ROOT / "README.md").read_text()
    assert "labs/claims.md" in readme


def test_the_table_of_contents_of_labs_is_complete():
    readme = (ROOT / "README.md").read_text()
    for lab in (ROOT / "labs" / "catalog").iterdir():
        assert f"`{lab.name}`" in readme
        assert (lab / "guide.md").is_file()


def main() -> None:
    for name, (file, make) in BLOCKS.items():
        path = ROOT / file
        text = path.read_text()
        found = block(name, text)
        path.write_text(text[: found.start(2)] + make() + "\n" + text[found.end(2) :])


if __name__ == "__main__":
    sys.exit(main())
