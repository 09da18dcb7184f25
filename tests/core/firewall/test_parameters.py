"""Kernel parameters: what is refused says what is legal, and changes nothing."""

from __future__ import annotations

import pytest

from fwnode.configuration import load_releases
from fwnode.firewall.parameters import PARAMETERS, ParameterError, Parameters, parse_value

DEFAULTS = {
    "fw_allow_out_of_state_tcp": 0, "fw_log_out_of_state_tcp": 1, "fw_allow_out_of_state_icmp_error": 0,
    "tcp_start_timeout": 25, "tcp_session_timeout": 3600, "tcp_end_timeout": 20,
    "udp_timeout": 40, "icmp_timeout": 30, "other_timeout": 60,
    "fwha_dead_timeout_ms": 2500,
}  # fmt: skip


def test_the_defaults_are_the_products() -> None:
    assert {name: Parameters()[name] for name in DEFAULTS} == DEFAULTS


def test_a_release_brings_its_own_defaults_and_the_operator_wins_over_them() -> None:
    release = load_releases("").release("R80.20")
    parameters = Parameters({**release.defaults, "not_modelled_here": 1})
    assert parameters["tcp_end_timeout"] == 5
    parameters.set("tcp_end_timeout", 60)
    assert parameters["tcp_end_timeout"] == 60
    assert "not_modelled_here" not in parameters.as_dict()


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    parameters = Parameters()
    for use in (lambda n: parameters.get(n), lambda n: parameters.set(n, 1), lambda n: parse_value(n, "1")):
        with pytest.raises(ParameterError, match="did you mean fw_allow_out_of_state_tcp") as error:
            use("fw_allow_out_of_state_tpc")
        assert all(name in str(error.value) for name in PARAMETERS)


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("fw_allow_out_of_state_tcp", 2, "0 or 1"),
        ("fw_allow_out_of_state_tcp", -1, "0 or 1"),
        ("tcp_session_timeout", 0, "1 to 31536000"),
        ("fwha_dead_timeout_ms", 60_001, "50 to 60000"),
    ],
)
def test_an_illegal_value_is_refused_with_the_legal_ones_and_changes_nothing(name: str, value: int, legal: str) -> None:
    parameters = Parameters()
    before = parameters.as_dict()
    with pytest.raises(ParameterError, match=f"{name}: {value} is not legal; legal is {legal}"):
        parameters.set(name, value)
    assert parameters.as_dict() == before


def test_values_are_written_in_decimal_or_hexadecimal_and_all_ones_is_minus_one() -> None:
    name = "tcp_end_timeout"
    written = {"20": 20, "0x14": 20, "-1": -1, "0xFFFFFFFF": -1, "0xffffffff": -1}
    assert {text: parse_value(name, text) for text in written} == written
    for text in ("yes", "1.5", "", "0x"):
        with pytest.raises(ParameterError, match="is not a number; legal is 1 to 86400"):
            parse_value(name, text)


def test_every_parameter_accepts_its_default_and_its_bounds() -> None:
    for name, parameter in PARAMETERS.items():
        for value in (parameter.default, parameter.low, parameter.high):
            Parameters().set(name, value)
        for value in (parameter.low - 1, parameter.high + 1):
            with pytest.raises(ParameterError):
                Parameters().set(name, value)
