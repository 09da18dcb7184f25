"""Rule bases as people write them: what they match, and what a broken one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from firewall_wire import POLICY, address, key_of
from hypothesis import given
from hypothesis import strategies as st
from properties import examples

from fwnode.fields import parse_duration
from fwnode.files import FileError, load_yaml
from fwnode.firewall.policy import Implied, OnInstall, Policy
from fwnode.policy_file import build_policy
from syncproto.codec import encode
from syncproto.limits import NAME_MAX, SERVICE_NAME_MAX
from syncproto.message import Heartbeat

MEMBERS = frozenset({"fw1", "fw2"})


def problems(data: Any) -> list[str]:
    with pytest.raises(FileError) as error:
        build_policy(data, "rules.yaml", MEMBERS)
    return error.value.problems


def with_rules(*rules: dict[str, Any], **more: Any) -> Policy:
    return build_policy({**POLICY, "rules": list(rules), **more}, "rules.yaml", MEMBERS)


def question(source: str, destination: str, protocol: int = 6, port: int = 80) -> bytes:
    return bytes((protocol,)) + address(source) + address(destination) + b"\x9c\x41" + port.to_bytes(2, "big")


def test_the_first_rule_that_matches_decides() -> None:
    policy = with_rules(
        {"name": "one", "source": "192.0.2.7", "action": "reject"},
        {"name": "two", "source": "inside", "service": ["http", "dns"], "action": "accept", "track": "log"},
        {"name": "three", "service": "http", "action": "drop"},
    )
    cases = {
        ("192.0.2.7", "198.51.100.1", 6, 80): ("reject", 1, "http"),
        ("192.0.2.8", "198.51.100.1", 6, 80): ("accept", 2, "http"),
        ("192.0.2.8", "198.51.100.1", 17, 53): ("accept", 2, "dns"),
        ("192.0.2.8", "198.51.100.1", 6, 53): ("drop", 0, "tcp"),
        ("198.51.100.1", "192.0.2.8", 6, 80): ("drop", 3, "http"),
        ("2001:db8:1::5", "2001:db8:2::5", 6, 80): ("accept", 2, "http"),
        ("2001:db8:3::5", "2001:db8:2::5", 6, 80): ("drop", 3, "http"),
    }
    found = {}
    for (source, destination, protocol, port), _ in cases.items():
        match = policy.match(question(source, destination, protocol, port), -1)
        found[source, destination, protocol, port] = (match.action.value, match.rule, match.service)
    assert found == cases
    assert policy.match(question("192.0.2.8", "198.51.100.1"), -1).log


def test_what_no_rule_matches_meets_the_implied_cleanup() -> None:
    match = with_rules().match(key_of(), -1)
    assert (match.action.value, match.rule, match.rule_name) == ("drop", Implied.CLEANUP, "implied cleanup")


@given(st.integers(0, 65_535), st.integers(0, 255))
def test_a_port_range_covers_its_ends_and_nothing_beyond(port: int, protocol: int) -> None:
    policy = with_rules({"service": "range", "action": "accept"},
                        services={"range": {"protocol": "tcp", "port": "8000-8010"}})  # fmt: skip
    accepted = policy.match(question("192.0.2.8", "198.51.100.1", protocol, port), -1).action.value == "accept"
    assert accepted is (protocol == 6 and 8000 <= port <= 8010)


def test_services_of_icmp_cover_both_families() -> None:
    policy = with_rules({"service": "echo-request", "action": "accept"})
    four, six = question("192.0.2.8", "192.0.2.9", 1, 0), question("2001:db8:1::5", "2001:db8:2::5", 58, 0)
    answers = [policy.match(k, t).action.value for k, t in ((four, 8), (six, 128), (four, 13), (six, 135))]
    assert answers == ["accept", "accept", "drop", "drop"]
    every = with_rules({"service": "icmp", "action": "accept"})
    assert [every.match(k, t).action.value for k, t in ((four, 13), (six, 135))] == ["accept", "accept"]


def test_predefined_services_are_those_of_the_field() -> None:
    ports = {"http": 80, "https": 443, "ssh": 22, "ftp": 21, "telnet": 23, "oracle": 1521, "postgresql": 5432}
    ports["FW1"] = 256
    datagrams = {"dns": 53, "ntp": 123, "tftp": 69, "sip": 5060}
    for name, port in {**ports, **datagrams}.items():
        policy = with_rules({"service": name, "action": "accept"})
        protocol = 17 if name in datagrams else 6
        match = policy.match(question("192.0.2.8", "198.51.100.1", protocol, port), -1)
        assert (match.action.value, match.service) == ("accept", name)


def test_a_service_of_ones_own_replaces_a_predefined_one() -> None:
    policy = with_rules({"service": "oracle", "action": "accept"},
                        services={"oracle": {"protocol": "tcp", "port": 1521, "session_timeout": "90d"}})  # fmt: skip
    assert policy.match(question("192.0.2.8", "198.51.100.1", 6, 1521), -1).session_timeout == 90 * 86_400


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    policy = build_policy(POLICY, "rules.yaml")
    keys = [question("192.0.2.8", "198.51.100.1", p, port) for p in (1, 6, 17, 47) for port in (0, 53, 80, 1521)]
    first = [policy.match(k, 8 if k[0] == 1 else -1) for k in keys]
    assert [policy.match(k, 8 if k[0] == 1 else -1) for k in reversed(keys)] == first[::-1]


def test_settings_default_to_a_closed_firewall_that_lets_its_members_talk() -> None:
    policy = with_rules()
    assert (policy.control_connections, policy.outgoing, policy.icmp_errors) == (True, True, True)
    assert not policy.allows_out_of_state("fw1")
    assert policy.on_install is OnInstall.REMATCH


def test_all_problems_of_a_policy_are_told_at_once_with_their_keys() -> None:
    told = problems(
        {
            "name": "broken",
            "networks": {"inside": ["192.0.2.0/33", "192.0.2.1/24"]},
            "services": {"odd": {"protocol": "tcp", "port": "8010-8000", "session_timeout": 90}},
            "rules": [
                {"source": "nowhere", "service": "nothing", "action": "permit"},
                {"destinations": "inside", "action": "drop"},
            ],
            "on_instal": "keep",
        }
    )
    text = "\n".join(told)
    for key, words in {
        "networks.inside[0]": "not a network",
        "networks.inside[1]": "host bits",
        "services.odd.port": "port range",
        "services.odd.session_timeout": "90 has no unit; write a number with its unit",
        "rules[0].action": "accept",
        "rules[0].source": "nowhere",
        "rules[0].service": "nothing",
        "rules[1].destinations": "unknown key",
        "on_instal": "unknown key",
    }.items():
        assert any(line.startswith(f"rules.yaml: {key}: ") and words in line for line in told), f"{key} in\n{text}"


def test_all_dangling_names_are_told_at_once_with_what_is_known() -> None:
    told = problems(
        {
            **POLICY,
            "services": {"odd": {"protocol": 47, "port": 80}, "ping": {"protocol": "udp", "icmp": "echo"}},
            "rules": [
                {"source": ["inside", "nowhere"], "destination": ["any", "lost"], "action": "accept"},
                {"service": ["any", "nothing"], "action": "accept"},
            ],
            "out_of_state": {"exceptions": ["fw9"]},
        }
    )
    text = "\n".join(told)
    for key, words in {
        "services.odd.port": "only tcp and udp have ports",
        "services.ping.icmp": "only for protocol icmp",
        "rules[0].source": "'nowhere'; known are inside, outside",
        "rules[0].destination": "'lost'",
        "rules[1].service": "'nothing'; known are",
        "out_of_state.exceptions": "'fw9'; members are fw1, fw2",
    }.items():
        assert any(line.startswith(f"rules.yaml: {key}: ") and words in line for line in told), f"{key} in\n{text}"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"networks": {"odd": [80]}}, "networks.odd[0]: 80 is not a network"),
        ({"networks": {"odd": [True]}}, "networks.odd[0]: true is not a network"),
        ({"services": {"s": {"protocol": "tcp", "session_timeout": "0s"}}}, "services.s.session_timeout: "),
        ({"services": {"s": {"protocol": "tcp", "port": 0}}}, "services.s.port: "),
        ({"services": {"s": {"protocol": "tcp", "inspect": "ftp"}}}, "services.s.inspect: ftp needs"),
        ({"services": {"s": {"protocol": "tcp", "port": 69, "inspect": "tftp"}}}, "services.s.inspect: tftp needs"),
        ({"services": {"s": {"protocol": "udp", "port": 1, "inspect": "rsh"}}}, "services.s.inspect: "),
        ({"services": {"s": {"protocol": "tcp", "port": 65536}}}, "services.s.port: "),
        ({"services": {"s": {"protocol": "tpc"}}}, "services.s.protocol"),
        ({"services": {"s": {"protocol": 256}}}, "services.s.protocol"),
        ({"implied_rules": {"fw1": True}}, "implied_rules.fw1: unknown key"),
        ({"name": "n" * 200}, "name: 'nnn"),
        ({"name": "ü" * 65}, "name: 'üü"),
        ({"name": ""}, "name: '' has 0 bytes; write 1 to 128, which is what a message between members carries"),
        ({"name": "a\x1b[2J"}, "name: 'a\\x1b[2J' has characters that cannot be shown"),
        ({"name": "a\ud800"}, "name: 'a\\ud800' has characters that cannot be shown"),
        ({"name": "a\u202eb"}, "name: 'a\\u202eb' has characters that cannot be shown"),
        ({"services": {"s" * 65: {"protocol": "tcp"}}}, "services." + "s" * 65 + ": 'sss"),
        ({"networks": {"n" * 129: ["192.0.2.0/24"]}}, "networks." + "n" * 129 + ": 'nnn"),
        ({"networks": {"any": ["192.0.2.0/24"]}}, "networks.any: any stands for everything; choose another name"),
        ({"networks": {"a": ["192.0.2.0/24"]}, "hosts": {"a": ["192.0.2.1"]}}, "hosts.a: a network has this name, too"),
        ({"networks": {"a": ["fe80::1%eth0"]}}, "networks.a[0]: 'fe80::1%eth0' is not a network or address"),
        ({"rules": [{"name": "a\nb", "action": "drop"}]}, "rules[0].name: 'a\\nb' has characters that cannot be"),
        ({"services": {"s": {"protocol": "tcp", "session_timeout": "9" * 400 + "s"}}}, "services.s.session_timeout: "),
        ({"services": {"s": {"protocol": "tcp", "session_timeout": "3651d"}}}, "services.s.session_timeout: '3651d'"),
        ({"services": {"s": {"protocol": "tcp", "synchronise_after": "0.0001ms"}}}, "services.s.synchronise_after: "),
        ({"services": {"s": {"protocol": "tcp", "port": "9" * 20_000}}}, "services.s.port: '999"),
        ({"services": {"s": {"protocol": "tcp", "port": "٣"}}}, "services.s.port: '٣' is not a port"),
        ({"services": {"s": {"protocol": 10**400}}}, "services.s.protocol: is a number of very many digits; write"),
        ({"rules": [{"action": "drop"}] * 100_001}, "rules: is [{'action': …}, {'action': …}, {'action': …}, {'action"),
        ({"rules": None}, "rules: "),
    ],
)
def test_what_looks_nearly_right_is_refused(changes: dict[str, Any], words: str) -> None:
    assert any(line.startswith(f"rules.yaml: {words}") for line in problems({**POLICY, **changes}))


def test_a_slip_in_a_value_of_several_kinds_is_one_line() -> None:
    changes = {"services": {**POLICY["services"], "a": {"protocol": "tpc"}}}
    wanted = "rules.yaml: services.a.protocol: is 'tpc'; write tcp, udp or icmp or a whole number"
    assert problems({**POLICY, **changes}) == [wanted]


def test_names_are_refused_exactly_where_a_message_ends() -> None:
    """What is accepted here is encoded with every heartbeat and record."""
    service = {"s" * SERVICE_NAME_MAX: {"protocol": "tcp", "port": 80}}
    policy = with_rules({"service": "s" * SERVICE_NAME_MAX, "action": "accept"}, services=service, name="ü" * 64)
    assert len(policy.name.encode()) == NAME_MAX
    heartbeat = Heartbeat(0, "R80.10", policy.name, [], [])
    assert encode(heartbeat, cluster=1, sender=1, incarnation=1)
    assert policy.rules[0].services[0].name == "s" * SERVICE_NAME_MAX


def test_a_document_that_is_no_mapping_is_refused() -> None:
    for data in (None, [], "rules", 5):
        assert problems(data)[0].startswith("rules.yaml: must be a mapping")
    assert "rules.yaml: rules: is missing; add it" in problems({"name": "x"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["name", "rules", "source", "service", "networks", "port", "x"]), inner),
    max_leaves=8,
)


@examples(60)
@given(st.dictionaries(st.sampled_from(sorted([*POLICY, "out_of_state", "hosts"])), JSON))
def test_any_document_is_a_policy_or_a_list_of_problems(data: dict[str, Any]) -> None:
    try:
        build_policy(data, "rules.yaml", MEMBERS)
    except FileError as error:
        assert error.problems and all(line.startswith("rules.yaml: ") for line in error.problems)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("25s", 25), ("1h30m", 5400), ("1.5h", 5400), ("90 d", 90 * 86_400), ("100ms", 0.1), ("30m", 1800)],
)
def test_durations_are_numbers_with_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["25", 25, "s", "", "-1s", "1 week", "1e3s", None, "3651d", "9" * 400 + "d"])
def test_a_duration_without_a_unit_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(ValueError, match=r"write (a number with its unit|0s)"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"name: [", r"broken\.yaml: line 2, column 1: "),
        (b"a: 1\nb: : 2\n", r"broken\.yaml: line 2, column 4: "),
        (b"\xff\xfe\x00", "broken.yaml"),
        (b"when: 2024-13-45", "broken.yaml: "),
        (b"a: \x01", "broken.yaml"),
    ],
)
def test_a_file_that_is_no_yaml_is_told_by_name_and_line(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(text)
    with pytest.raises(FileError, match=words):
        load_yaml(path)


def test_a_file_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.yaml: cannot be read: No such file"):
        load_yaml(tmp_path / "none.yaml")
