"""A release of QEMU: parsed, ordered, and used as a key."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmstate_tools.errors import CatalogError
from vmstate_tools.release import Release

names = st.lists(st.integers(0, 99), min_size=2, max_size=4).map(lambda parts: ".".join(map(str, parts)))


def test_one_release_has_several_names():
    same = {Release("2.7"), Release("2.7.0"), Release("v2.7.0"), Release(Release("2.7"))}
    assert len(same) == 1
    assert {str(release) for release in same} == {"2.7.0"}


def test_releases_are_ordered_by_number():
    in_order = ["0.10", "1.6.2", "2.4.0", "2.4.0.1", "2.4.1", "2.6", "2.7.1", "2.10", "10.2.50", "11.1"]
    assert sorted(sorted(in_order), key=Release) == in_order
    assert Release("2.7") <= Release("2.7.0") < Release("2.7.1")


@given(names, names)
def test_equal_releases_have_one_hash(a, b):
    one, other = Release(a), Release(b)
    assert (one == other) == (one <= other <= one)
    assert one != other or hash(one) == hash(other)


@pytest.mark.parametrize(
    ("name", "short", "series"), [("2.7.0", "2.7", "2.7"), ("7.2.22", "7.2.22", "7.2"), ("2.4.0.1", "2.4.0.1", "2.4")]
)
def test_shorter_names(name, short, series):
    assert (Release(name).short, Release(name).series) == (short, series)


def test_within():
    release = Release("2.7.1")
    assert release.within("2.7", "2.7.1") and release.within(None, "") and release.within("2.7.1", None)
    assert not release.within("2.8", None) and not release.within(None, "2.7")


def test_a_release_is_no_text_and_does_not_change():
    release = Release("2.7")
    assert release != "2.7"  # a text would have another hash
    with pytest.raises(TypeError):
        release < "2.8"  # noqa: B015
    with pytest.raises(AttributeError):
        release.numbers = (1, 0, 0)
    assert pickle.loads(pickle.dumps(release)) == release


@pytest.mark.parametrize(
    "text",
    ["", "2", "2.7-rc1", "pseries-2.7", "2.7.", "2..7", "v", "2.7.0.1.2", "٢.٧", "2.7\n", "9" * 5000 + ".1"],
    ids=lambda text: repr(text)[:20],
)
def test_text_that_names_no_release(text):
    with pytest.raises(CatalogError, match="does not name a release"):
        Release(text)
