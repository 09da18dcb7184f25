"""What the tests of sweeps share: processes that find the fake simulation, and a Dask cluster of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import fake_simulation
import pytest


def make_importable(patch: pytest.MonkeyPatch, folder: str) -> None:
    """By the processes that are started from now on, too."""
    paths = [str(Path(fake_simulation.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    patch.setenv("PYTHONPATH", os.pathsep.join(paths))
    patch.setenv(fake_simulation.MARK, folder)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_importable(monkeypatch, str(tmp_path))


@pytest.fixture(scope="session")
def cluster_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the workers of the cluster put what they need for a while."""
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="session")
def scheduler(cluster_folder: Path) -> Iterator[str]:
    """The address of a cluster with two worker processes."""
    distributed = pytest.importorskip("distributed")
    with pytest.MonkeyPatch.context() as patch:
        make_importable(patch, str(cluster_folder))
        patch.setenv("TMPDIR", str(cluster_folder))
        cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster:
        yield cluster.scheduler_address
