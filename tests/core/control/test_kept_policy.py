"""A rule base that was installed by hand is there at the next start, or the member says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fwnode.configuration import MemberConfig
from fwnode.files import FileError
from fwnode.kept_policy import KeptPolicy
from fwnode.loaded_policy import CONFIGURED, Loaded

CONFIGURED_POLICY: dict[str, Any] = {"name": "standard", "rules": [{"action": "accept"}]}
BY_HAND: dict[str, Any] = {
    "name": "mine", "hosts": {"db": ["192.0.2.7"]}, "rules": [{"source": "db", "action": "drop"}], "on_install": "keep",
}  # fmt: skip


def kept(folder: Path, policy: dict[str, Any] | str = CONFIGURED_POLICY) -> KeptPolicy:
    members = {"fw1": ["203.0.113.1/24"], "fw2": ["203.0.113.2/24"]}
    config = MemberConfig.model_validate(
        {"member": "fw1", "release": "R77.30", "policy": policy,
         "cluster": {"interfaces": [{"name": "sync", "sync": True, "members": members}]}}
    )  # fmt: skip
    return KeptPolicy(folder / "fw1.policy", config, folder)


def install(folder: Path, policy: dict[str, Any] = BY_HAND) -> int:
    """How many steps it took to keep it."""
    return len(list(kept(folder).writing(policy, "rules\x1b.yaml", 1_000_000_000.0)))


def start(folder: Path, **given: Any) -> Loaded:
    return kept(folder, **given).load()


def test_without_an_install_the_configurations_is_loaded(tmp_path: Path) -> None:
    loaded = start(tmp_path)
    assert (loaded.policy.name, loaded.origin, loaded.problem) == ("standard", CONFIGURED, "")


def test_what_was_installed_by_hand_is_loaded_at_every_start(tmp_path: Path) -> None:
    install(tmp_path)
    for _ in range(2):
        loaded = start(tmp_path)
        assert (loaded.policy.name, len(loaded.policy.rules), loaded.problem) == ("mine", 1, "")
        assert loaded.origin.startswith("installed by hand from 'rules\\x1b.yaml' on ")
        assert loaded.origin.endswith("2001, kept across the restart")
    install(tmp_path, {**BY_HAND, "name": "newer"})
    assert start(tmp_path).policy.name == "newer"


def test_a_large_one_is_written_in_steps_and_comes_back_whole(tmp_path: Path) -> None:
    rules = [{"name": f"rule {n}", "source": f"h{n % 500}", "action": "drop"} for n in range(20_000)]
    large = {**BY_HAND, "hosts": {f"h{n}": ["192.0.2.7"] for n in range(500)}, "rules": rules}
    assert install(tmp_path, large) > 10
    loaded = start(tmp_path)
    assert [rule.name for rule in loaded.policy.rules] == [rule["name"] for rule in rules]


def test_when_the_configurations_has_changed_that_one_is_loaded_and_this_is_told(tmp_path: Path) -> None:
    install(tmp_path)
    other = {**CONFIGURED_POLICY, "name": "other"}
    loaded = start(tmp_path, policy=other)
    assert (loaded.policy.name, loaded.origin) == ("other", CONFIGURED)
    assert "installed by hand" in loaded.problem and "has changed since" in loaded.problem
    assert start(tmp_path, policy=other).problem == "", "it is told once"
    assert start(tmp_path).policy.name == "standard", "what is forgotten does not come back"


def test_a_file_that_the_configuration_names_counts_by_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("{name: standard, rules: []}")
    assert list(kept(tmp_path, "rules.yaml").writing(BY_HAND, "mine.yaml", 0.0))
    assert start(tmp_path, policy="rules.yaml").policy.name == "mine"
    (tmp_path / "rules.yaml").write_text("{name: edited, rules: []}")
    assert start(tmp_path, policy="rules.yaml").policy.name == "edited"


@pytest.mark.parametrize("damage", ["", "\n", "{}\n", "junk", "cut", "half", "rules", "\x00", "bytes"])
def test_a_damaged_one_is_told_and_the_configurations_is_loaded(tmp_path: Path, damage: str) -> None:
    install(tmp_path)
    path = tmp_path / "fw1.policy"
    whole = path.read_bytes()
    path.write_bytes({
        "cut": whole[:-5], "half": whole[: len(whole) // 2], "rules": whole.replace(b"drop", b"fly!"),
        "bytes": b"\xff\xfe" + whole,
    }.get(damage, damage.encode()))  # fmt: skip
    loaded = start(tmp_path)
    assert (loaded.policy.name, loaded.origin) == ("standard", CONFIGURED)
    assert "cannot be loaded any more" in loaded.problem and "\n" not in loaded.problem


def test_an_install_that_is_broken_off_leaves_what_was_kept_before(tmp_path: Path) -> None:
    install(tmp_path)
    writing = kept(tmp_path).writing({**BY_HAND, "name": "never"}, "rules.yaml", 0.0)
    next(writing)
    writing.close()
    assert start(tmp_path).policy.name == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["fw1.policy"]


def test_where_nothing_can_be_written_this_is_an_error_of_the_install_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        install(tmp_path / "missing")


def test_a_configuration_that_is_not_in_order_is_refused_as_ever(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="policy: "):
        start(tmp_path, policy={"name": "bad", "rules": [{"action": "fly"}]})
