"""Work spread over processes, over a cluster with an object store, and what happens when a worker dies."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dying import dies_at, fails_at_b, slow
from pandas.testing import assert_frame_equal

import vmstate_tools as vt
from vmstate_tools.data import data_path
from vmstate_tools.frames.executors import spread

SOME = [
    "qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst",
    "qemu-2.7.0/pseries-2.6/POWER7_v2.3.mig.zst",
    "qemu-1.6.0/prep/default.mig.zst",
    "qemu-11.1/microvm/qemu64.mig.zst",
]


def lost(item: str, error: Exception) -> list[str]:
    return [f"lost {item}: {type(error).__name__}"]


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


def test_a_process_that_dies_costs_a_retry(tmp_path: Path) -> None:
    items = [*"abcdefg", "once", *"hijklmn"]
    with pool() as executor:
        found = list(spread(executor, functools.partial(dies_at, marks=tmp_path, poison=""), items, 2, lost))
    assert [x for batch in found for x in batch] == [item.upper() for item in items]
    assert (tmp_path / "once").exists()


def test_what_kills_each_process_is_given_up_alone(tmp_path: Path) -> None:
    items = [*"abc", "poison", *"defgh"]
    with pool() as executor:
        found = list(spread(executor, functools.partial(dies_at, marks=tmp_path, poison="poison"), items, 3, lost))
    assert [x for batch in found for x in batch] == [*"ABC", "lost poison: StreamError", *"DEFGH"]


def test_an_item_that_the_work_raises_for_takes_no_other_along() -> None:
    with pool() as executor:
        found = list(spread(executor, fails_at_b, [*"abcd"], 3, lost))
    assert [x for batch in found for x in batch] == ["A", "lost b: TypeError", "C", "D"]


# -- a cluster and an object store, on this machine --------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """A bucket with some streams, and one that is none, at an S3 server on loopback."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import fsspec

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("captures")
        for name in SOME:
            fs.put(str(data_path("streams", name)), f"captures/streams/{name}")
        fs.pipe("captures/streams/bad.mig", b"no stream")
        yield "s3://captures"
    server.stop()


@pytest.fixture(scope="module")
def client(store: str) -> Iterator[Any]:
    """Two worker processes, which see the store's address."""
    distributed = pytest.importorskip("distributed", reason="distributed is not installed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_cluster_reads_an_object_store(store: str, client: Any) -> None:
    there = vt.load(f"{store}/streams/", executor=client.get_executor(), progress=False)
    here = vt.load([data_path("streams", name) for name in sorted(SOME)], progress=False)
    assert there.streams["file"].tolist() == [f"{store}/streams/{name}" for name in sorted(SOME)]
    assert there.errors["file"].tolist() == [f"{store}/streams/bad.mig"]
    assert there.fields["path"].astype(str).tolist() == here.fields["path"].astype(str).tolist()
    assert (there.fields["value"].array == here.fields["value"].array).all()
    words = ["pvr", "msr_mask", "insns_flags", "insns_flags2", "nb_bats"]
    assert_frame_equal(there.cpu[words], here.cpu[words])


def test_a_cluster_gives_verdicts(store: str, client: Any) -> None:
    files = [f"{store}/streams/{name}" for name in SOME[:2]]
    there = vt.matrix(files, ["2.6.0", "2.7.0"], executor=client.get_executor(), progress=False)
    here = vt.matrix([data_path("streams", name) for name in SOME[:2]], ["2.6.0", "2.7.0"], progress=False)
    assert there["loads"].tolist() == here["loads"].tolist()
    assert there["loads"].tolist()[:2] == [True, False]  # the break of 2016
    assert there["message"].tolist() == here["message"].tolist()


def test_a_worker_of_a_cluster_that_dies_costs_a_retry(client: Any) -> None:
    pids = list(client.run(os.getpid).values())
    items = [str(i) for i in range(12)]
    killer = threading.Timer(0.5, os.kill, (pids[0], signal.SIGKILL))
    killer.start()
    found = [x for batch in spread(client.get_executor(), slow, items, 1, lambda i, e: [(i, 0)]) for x in batch]
    killer.join()
    assert [item for item, _ in found] == items
    assert 0 not in {pid for _, pid in found}
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
