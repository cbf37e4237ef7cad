from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import lzma
import re

import pytest
from captures import Captures
from containers import COMPRESS, STREAM, libvirt_image, qcow2_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmstate_tools.errors import StreamError
from vmstate_tools.source import open_source


def test_captures_are_what_the_manifest_says(captures: Captures) -> None:
    chosen = captures.rows[::20] + [row for row in captures.rows if re.search("mapped|uri", row["config"])]
    assert len(chosen) > 10
    for row in chosen:
        with open_source(captures.path(row["file"])) as source:
            assert (source.container, source.size) == ("zstd", int(row["size"]))
            assert hashlib.sha256(source.view).hexdigest() == row["sha256"]


def test_nesting_is_limited() -> None:
    with open_source(gzip.compress(lzma.compress(bz2.compress(STREAM)))) as source:
        assert (source.container, source.size) == ("gzip+xz+bz2", len(STREAM))
    with pytest.raises(StreamError, match="nested too deep"):
        open_source(gzip.compress(gzip.compress(gzip.compress(gzip.compress(STREAM)))))


SEED = STREAM[:3000]

CONTAINERS = {
    **{kind: lambda kind=kind: COMPRESS[kind](SEED) for kind in COMPRESS},
    "libvirt": lambda: libvirt_image(gzip.compress(SEED), 1)[:200_000],
    "qcow2": lambda: qcow2_image([(b"one", SEED * 2), (b"two", SEED)]),
    "qcow2 extended": lambda: qcow2_image([(b"one", SEED)], extended=True),
}


@functools.cache
def seed(kind: str) -> bytes:
    return CONTAINERS[kind]()


@pytest.mark.parametrize("kind", CONTAINERS)
@settings(max_examples=100, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_containers_give_stream_errors(kind: str, data: st.DataObject) -> None:
    mutated = bytearray(seed(kind))
    # Headers and tables are where the numbers stand.
    places = st.one_of(st.integers(0, min(200, len(mutated) - 1)), st.integers(0, len(mutated) - 1))
    for at in data.draw(st.lists(places, max_size=6)):
        new = data.draw(
            st.sampled_from([b"\xff", b"\x00", b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x80"]) | st.binary(max_size=4)
        )
        mutated[at : at + len(new)] = new
    cut = data.draw(st.integers(0, len(mutated)) | st.just(len(mutated)))
    for partial in (False, True):
        try:
            open_source(
                bytes(mutated[:cut]), partial=partial, snapshot=data.draw(st.sampled_from([None, "one"]))
            ).close()
        except StreamError as error:
            assert len(str(error)) < 1000
