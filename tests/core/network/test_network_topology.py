"""The topology model: what it derives, and that every problem of a file is told at once as `file: key`."""

import pytest

from fwnode.fields import MEMBERS_MAX
from labs.network.errors import TopologyError
from labs.network.topology import load_topology, parse_topology


def test_pair_has_the_documented_addresses():
    pair = load_topology("pair")
    assert pair.nodes == ["client", "server", "fw1", "fw2"]
    assert {name: [str(a) for a in found] for name, found in pair.interfaces("fw2").items()} == {
        "lan": ["192.0.2.12/24", "2001:db8:1::12/64"],
        "wan": ["198.51.100.12/24", "2001:db8:2::12/64"],
        "sync": ["203.0.113.2/24", "2001:db8:3::2/64"]}
    assert [str(a) for a in pair.interfaces("client")["lan"]] == ["192.0.2.100/24", "2001:db8:1::100/64"]
    assert [str(a) for a in pair.gateways("server")] == ["198.51.100.1", "2001:db8:2::1"]
    assert pair.links("sync") == ["fw1-sync", "fw2-sync"]
    assert pair.links("fw1") == ["fw1-lan", "fw1-wan", "fw1-sync"]
    assert pair.links("fw1-lan") == ["fw1-lan"]


def test_up_to_five_members():
    five = parse_topology({"base": "pair", "members": 5}, "lab.yaml")
    assert five.members == ["fw1", "fw2", "fw3", "fw4", "fw5"]
    assert str(five.interfaces("fw5")["sync"][0]) == "203.0.113.5/24"


@pytest.mark.parametrize(("members", "problem"), [
    (6, "6 members: the limit of a cluster is 5"),
    (["a", "b", "c", "d", "e", "f"], "6 members: the limit of a cluster is 5"),
    (1, "a cluster needs at least 2"),
    ("many", "give a number from 2 to 5, or a list of names"),
    (True, "give a number from 2 to 5"),
])
def test_number_of_members(members, problem):
    with pytest.raises(TopologyError) as failure:
        parse_topology({"base": "pair", "members": members}, "lab.yaml")
    assert failure.value.problems[0].startswith("lab.yaml: members: ")
    assert problem in str(failure.value)
    assert MEMBERS_MAX == 5


def test_names_can_be_given():
    named = parse_topology({"base": "pair", "members": ["north", "south"]}, "lab.yaml")
    assert named.members == ["north", "south"]


def test_all_problems_at_once():
    data = {
        "name": "broken",
        "colour": "red",
        "members": 9,
        "switches": {
            "lan": {"networks": ["192.0.2.300/24"]},
            "wan": {"networks": ["198.51.100.0/24", "203.0.113.0/24"]},
            "dmz": {"networks": ["198.51.100.0/24"], "virtual": ["192.0.2.1"]},
            "sync": {"networks": ["203.0.113.0/24"], "sync": "perhaps"},
        },
        "hosts": {"client": {"switch": "lan", "addresses": ["nowhere"]}, "server": {"addresses": []}},
    }
    with pytest.raises(TopologyError) as failure:
        parse_topology(data, "my.yaml")
    text = str(failure.value)
    for expected in (
        "my.yaml: colour: unknown key",
        "my.yaml: members: 9 members: the limit",
        "my.yaml: switches.lan.networks[0]: '192.0.2.300/24' is not a network or address; write it as",
        "my.yaml: switches.wan.networks: give at most one IPv4 and one IPv6 network",
        "my.yaml: switches.dmz: virtual: 192.0.2.1 is in none of the switch's networks",
        "my.yaml: switches.sync.sync:",
        "my.yaml: hosts.client.addresses[0]: 'nowhere' is not an IP address",
        "my.yaml: hosts.server.switch: is missing",
        "my.yaml: hosts.server.addresses:",
    ):
        assert expected in text, text
    assert all(problem.startswith("my.yaml: ") for problem in failure.value.problems)
    assert len(failure.value.problems) == 9, text


def test_all_inconsistencies_at_once():
    data = {
        "name": "inconsistent",
        "members": ["fw1", "client"],
        "switches": {"lan": {"networks": ["192.0.2.0/24"], "virtual": ["192.0.2.11"]},
                     "averylongname": {"networks": ["198.51.100.0/24"]}},
        "hosts": {"client": {"switch": "dmz", "addresses": ["192.0.2.100"]},
                  "Server": {"switch": "lan", "addresses": ["198.51.100.100"]},
                  "twin": {"switch": "lan", "addresses": ["192.0.2.12"]}},
    }
    with pytest.raises(TopologyError) as failure:
        parse_topology(data, "my.yaml")
    text = str(failure.value)
    for expected in (
        "hosts.client: this name is taken",
        "hosts.Server: a name is lower-case letters",
        "switches.averylongname: the link fw1-averylongname would be longer",
        "switches: none of them has `sync: true`",
        "hosts.client.switch: there is no switch 'dmz'; there are lan, averylongname",
        "hosts.Server.addresses: 198.51.100.100 is in none of the networks of lan",
        "switches.lan.first_member: 192.0.2.11 is taken already by switches.lan.virtual",
        "hosts.twin.addresses: 192.0.2.12 is taken already by switches.lan.first_member",
    ):
        assert expected in text, text


def changed(**changes):
    """The pair with other switches or hosts."""
    base = load_topology("pair").model_dump(mode="json")
    return {**base, **{section: {**base[section], **entries} for section, entries in changes.items()}}


LAN = {"networks": ["192.0.2.0/24"], "virtual": ["192.0.2.1"]}


@pytest.mark.parametrize(("changes", "problem"), [
    ({"hosts": {"client": {"switch": "lan", "addresses": ["192.0.2.0"]}}},
     "hosts.client.addresses: 192.0.2.0 is the address of the network 192.0.2.0/24 itself"),
    ({"hosts": {"client": {"switch": "lan", "addresses": ["192.0.2.255"]}}},
     "hosts.client.addresses: 192.0.2.255 is the broadcast address of 192.0.2.0/24"),
    ({"hosts": {"client": {"switch": "lan", "addresses": ["224.0.0.5"]}}}, "224.0.0.5 is in none of the networks of"),
    ({"hosts": {"client": {"switch": "lan", "addresses": [3232235777]}}}, "hosts.client.addresses[0]: 3232235777 is"),
    ({"hosts": {"lo": {"switch": "lan", "addresses": ["192.0.2.77"]}}}, "hosts.lo: this name is taken by the system"),
    ({"hosts": {"supervisor": {"switch": "lan", "addresses": ["192.0.2.77"]}}}, "hosts.supervisor: this name is taken"),
    ({"switches": {"lo": {"networks": ["10.0.0.0/24"]}}}, "switches.lo: this name is taken by the system"),
    ({"switches": {"all": {"networks": ["10.0.0.0/24"]}}}, "switches.all: this name is taken by the system"),
    ({"switches": {"dmz": {"networks": ["0.0.0.0/0"]}}}, "0.0.0.0/0 has addresses that no machine can have"),
    ({"switches": {"dmz": {"networks": ["10.0.0.0/24", "::/0"]}}}, "::/0 has addresses that no machine can have"),
    ({"switches": {"dmz": {"networks": ["224.0.0.0/24"]}}}, "224.0.0.0/24 has addresses that no machine can have"),
    ({"switches": {"dmz": {"networks": ["2001:db8:9::/64"]}}}, "no IPv4 network is among them; members talk IPv4"),
    ({"switches": {"dmz": {"networks": ["198.51.100.0/24"]}}},
     "switches.dmz.networks: 198.51.100.0/24 overlaps 198.51.100.0/24 of switches.wan; give each switch a network"),
    ({"switches": {"dmz": {"networks": ["198.51.100.128/25"]}}}, "198.51.100.128/25 overlaps 198.51.100.0/24"),
    ({"switches": {"dmz": {"networks": ["10.0.0.0/24"], "sync": True}}}, "sync and dmz have `sync: true`; the product"),
    ({"switches": {"dmz": {"networks": ["10.0.0.0/29"]}}}, "10.0.0.11 is in none of the switch's networks"),
    ({"switches": {"dmz": {"networks": ["10.0.0.0/28"], "first_member": 14}}}, "10.0.0.15 is the broadcast address"),
    ({"switches": {"lan": {**LAN, "virtual": ["192.0.2.255"]}}}, "192.0.2.255 is the broadcast address of"),
    ({"switches": {f"s{number}": {"networks": [f"10.0.{number}.0/24"]} for number in range(20)}}, "at most 16 of them"),
])
def test_a_topology_that_cannot_work_is_refused(changes, problem):
    with pytest.raises(TopologyError) as failure:
        parse_topology(changed(**changes), "my.yaml")
    assert problem in str(failure.value)
    assert all(line.startswith("my.yaml: ") for line in str(failure.value).splitlines())


def test_the_families_of_a_switch_may_come_in_either_order():
    """A member's first address is IPv4, whatever is written first."""
    turned = parse_topology(changed(switches={"lan": {"networks": ["2001:db8:1::/64", "192.0.2.0/24"]}}), "my.yaml")
    assert [str(address) for address in turned.interfaces("fw1")["lan"]] == ["192.0.2.11/24", "2001:db8:1::11/64"]


@pytest.mark.parametrize(("text", "problem"), [
    ("name: [", "t.yaml: line 2, column 1: "),
    ("name: " + "[" * 1200, "is nested too deeply"),
    ("- a\n- b\n", "expected keys such as name"),
    ("", "expected keys such as name"),
    ("base: triangle\n", "there is no topology 'triangle'; built in: pair"),
])
def test_files_that_are_no_topology(tmp_path, text, problem):
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(TopologyError) as failure:
        load_topology(file)
    assert str(failure.value).startswith(str(file))
    assert problem in str(failure.value)


def test_sources(tmp_path):
    with pytest.raises(TopologyError, match="there is no topology 'nosuch'; built in: pair"):
        load_topology("nosuch")
    with pytest.raises(TopologyError, match=r"no\.yaml: cannot be read: No such file"):
        load_topology(str(tmp_path / "no.yaml"))
    file = tmp_path / "t.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TopologyError, match=r"t\.yaml: is not text"):
        load_topology(file)
