"""A member's configuration file: what is read from it, and what a broken one is told."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from fwnode.configuration import load, load_releases
from fwnode.fields import MEMBERS_MAX
from fwnode.files import FileError


def configuration(members: int = 2) -> dict[str, Any]:
    def addresses(network: str, prefix: str, first: int) -> dict[str, list[str]]:
        return {f"fw{n}": [f"{network}.{first + n}/24", f"{prefix}::{first + n}/64"] for n in range(1, members + 1)}

    return {
        "member": "fw1",
        "release": "R77.30",
        "cluster": {
            "id": 1,
            "mode": "high-availability",
            "interfaces": [
                {"name": "lan", "virtual": ["192.0.2.1/24"], "members": addresses("192.0.2", "2001:db8:1", 10)},
                {"name": "wan", "device": "eth2", "virtual": ["198.51.100.1/24"],
                 "members": addresses("198.51.100", "2001:db8:2", 10)},
                {"name": "sync", "sync": True, "members": addresses("203.0.113", "2001:db8:3", 0)},
            ],
        },
        "policy": {"name": "standard", "rules": [{"action": "drop"}]},
        "clock": {"rate": 60, "epoch": 1790000000.0},
        "parameters": {"fw_allow_out_of_state_tcp": 1},
    }  # fmt: skip


def written(directory: Path, data: Any) -> Path:
    path = directory / "fw1.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def problems(directory: Path, data: Any) -> list[str]:
    with pytest.raises(FileError) as error:
        load(written(directory, data))
    return error.value.problems


def test_a_member_knows_its_number_its_peers_and_its_addresses(tmp_path: Path) -> None:
    config = load(written(tmp_path, {**configuration(3), "member": "fw2"}))
    assert (config.number, config.peers) == (2, {1: "fw1", 3: "fw3"})
    assert config.sync_interface is not None
    assert [str(a.ip) for a in config.own_addresses(config.sync_interface)] == ["203.0.113.2", "2001:db8:3::2"]
    assert [i.kernel_name for i in config.cluster.interfaces] == ["lan", "eth2", "sync"]
    assert str(config.control_path) == "/run/fwpair/fw2.sock"
    assert config.load_policy(tmp_path).name == "standard"


def test_five_members_are_a_cluster_and_a_sixth_is_refused_with_the_limit(tmp_path: Path) -> None:
    assert len(load(written(tmp_path, configuration(MEMBERS_MAX))).members) == 5
    assert problems(tmp_path, configuration(6)) == [
        f"{tmp_path}/fw1.yaml: cluster: 6 members; a ClusterXL cluster has at most 5"
    ]


def test_a_policy_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    config = load(written(tmp_path, {**configuration(), "policy": "rules.yaml"}))
    with pytest.raises(FileError, match=r"rules\.yaml: cannot be read"):
        config.load_policy(tmp_path)
    (tmp_path / "rules.yaml").write_text("name: fromfile\nrules: []\nout_of_state: {exceptions: [fw7]}\n")
    with pytest.raises(FileError, match=r"rules\.yaml: out_of_state\.exceptions: no member 'fw7'"):
        config.load_policy(tmp_path)
    (tmp_path / "rules.yaml").write_text("name: fromfile\nrules: []\n")
    assert config.load_policy(tmp_path).name == "fromfile"


def test_all_problems_are_told_at_once_with_their_keys(tmp_path: Path) -> None:
    data = configuration()
    data["cluster"]["interfaces"][0]["members"]["fw1"] = ["192.0.2.300/24"]
    data["cluster"]["interfaces"][1]["virtual"] = ["nonsense"]
    data["cluster"]["id"] = 256
    data["clock"]["rate"] = 0
    data["relaese"] = "R80.10"
    del data["release"]
    told = problems(tmp_path, data)
    for key in ("cluster.interfaces[0].members.fw1", "cluster.interfaces[1].virtual[0]", "cluster.id", "clock.rate",
                "relaese: unknown key", "release: is missing"):  # fmt: skip
        assert any(line.startswith(f"{tmp_path}/fw1.yaml: {key}") for line in told), (key, told)


def test_all_illegal_parameters_are_told_at_once(tmp_path: Path) -> None:
    data = {**configuration(), "parameters": {"fw_allow_out_of_state_tcp": 2, "tcp_start_timeout": 0, "no_such": 1}}
    text = "\n".join(problems(tmp_path, data))
    assert "fw_allow_out_of_state_tcp: 2 is not legal; legal is 0 or 1" in text
    assert "tcp_start_timeout: 0 is not legal; legal is 1 to 86400" in text
    assert "unknown kernel parameter 'no_such'" in text


def broken(change: str) -> dict[str, Any]:
    data = deepcopy(configuration())
    interfaces = data["cluster"]["interfaces"]
    if change == "stranger":
        data["member"] = "fw9"
    elif change == "two syncs":
        interfaces[0]["sync"] = True
    elif change == "missing on wan":
        del interfaces[1]["members"]["fw2"]
    elif change == "IPv6 first":
        interfaces[2]["members"]["fw1"].reverse()
    elif change == "load sharing":
        data["cluster"]["mode"] = "load-sharing"
    elif change == "no interfaces":
        data["cluster"]["interfaces"] = []
    elif change == "interface lo":
        interfaces[0]["name"] = "lo"
    elif change == "long interface":
        interfaces[0]["device"] = "a-name-of-16-chr"
    elif change == "key":
        data["key"] = "k" * 65
    elif change == "release":
        data["release"] = "R" * 129
    elif change == "socket":
        data["control"] = "/" + "s" * 107
    elif change == "nan":
        data["clock"]["epoch"] = float("nan")
    elif change == "tiny rate":
        data["clock"]["rate"] = 1e-300
    elif change == "member":
        data["member"] = "../fw1"
    return data


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("stranger", "member 'fw9' is not in the cluster; members are fw1, fw2"),
        ("two syncs", "cluster: more than one sync interface"),
        ("missing on wan", "interface wan must name the same members as lan"),
        ("IPv6 first", "interface sync: the first address of each member must be IPv4"),
        ("load sharing", "cluster.mode: "),
        ("no interfaces", "cluster.interfaces: "),
        ("interface lo", "cluster.interfaces[0].name: 'lo' cannot name an interface"),
        ("long interface", "cluster.interfaces[0].device: 'a-name-of-16-chr' cannot name an interface"),
        ("key", "has 65 bytes; write 0 to 64, which is what a message between members carries"),
        ("release", "has 129 bytes; write 1 to 128"),
        ("socket", "is longer than the 107 bytes of a socket's path"),
        ("nan", "clock.epoch: '.nan' is no finite number"),
        ("tiny rate", "clock.rate: is 1e-300; write at least 0.001"),
        ("member", "member: '../fw1' cannot name a member"),
    ],
)
def test_a_configuration_that_cannot_work_says_why(tmp_path: Path, change: str, words: str) -> None:
    [told] = problems(tmp_path, broken(change))
    assert words in told


def test_a_users_table_of_releases_lies_over_the_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "extra.yaml").write_text("releases:\n  R99.10: {version: R99.10, schema: 3}\n")
    assert load_releases("extra.yaml", tmp_path).newer("R99.10", "R77.30") == 1
    (tmp_path / "extra.yaml").write_text("releases:\n  R99.10: {version: 99, schema: 9}\n")
    with pytest.raises(FileError) as error:
        load_releases("extra.yaml", tmp_path)
    assert len(error.value.problems) == 2
    (tmp_path / "more.yaml").write_text("releases:\n  R99.10: {version: R99.10, schema: 3, defaults: "
                                        "{tcp_session_timeout: 100000000000, not_modelled_here: 100000000000}}\n")
    with pytest.raises(FileError, match=r"releases\.R99\.10\.defaults\.tcp_session_timeout: 100000000000 is not legal"):
        load_releases("more.yaml", tmp_path)
    assert all(line.startswith(f"{tmp_path}/extra.yaml: releases.R99.10") for line in error.value.problems)
