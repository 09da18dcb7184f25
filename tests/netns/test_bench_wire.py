"""The sync figures of a small measurement, from real frames between real members."""

from network_ground import unique_name

from labs.bench import wire
from labs.bench.figures import Row
from labs.bench.progress import Progress
from labs.network.supervisor import run, run_in_lab
from syncproto.limits import DATAGRAM_MAX, UPDATES_PER_DATAGRAM_MAX

CONNECTIONS = 300


def measure_inside(argv: list[str], name: str) -> int:
    with Progress(wire.steps(1)) as progress:
        rows = {row.figure: row for row in run(wire.measure(1, progress, CONNECTIONS))}
    assert len(rows) == 8 and all(row.peer is None and row.ratio is None for row in rows.values())
    for family, addresses in (("ipv4", 2 * 4), ("ipv6", 2 * 16)):
        check({figure.removesuffix(f"_{family}"): row for figure, row in rows.items()}, addresses)
    return 0


def check(rows: dict[str, Row], addresses: int) -> None:
    """A record holds at least both addresses; headers and acknowledgements come on top; a datagram has its limits."""
    assert addresses < rows["full_bytes_per_record"].ours < rows["bytes_per_record"].ours
    assert rows["bytes_per_record"].ours < rows["wire_bytes_per_record"].ours
    assert 1 <= rows["records_per_datagram"].ours <= UPDATES_PER_DATAGRAM_MAX
    assert rows["bytes_per_record"].ours * rows["records_per_datagram"].ours <= DATAGRAM_MAX


def test_a_small_measurement():
    assert run_in_lab(unique_name(), f"{__file__}:measure_inside", []) == 0
