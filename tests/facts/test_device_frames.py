"""Every device of every release as frames."""

from __future__ import annotations

import pandas as pd
import pytest

import vmstate_tools as vt
from vmstate_tools.errors import CatalogError


def test_tables_are_typed():
    fields = vt.catalog.source("fields")
    assert fields["size"].dtype == fields["description"].dtype == "Int64"
    assert fields["type"].dtype == "category"
    descriptions = vt.catalog.source("descriptions")
    assert descriptions["since"].min() == "1.6.0" and descriptions["since"].max() == "10.2.0"
    assert descriptions["until"].isna().any() and (descriptions["until"] < "2.10.0").any()
    assert set(fields["description"]) <= set(descriptions["description"])


def test_a_release_has_one_form_of_each_description():
    found = vt.catalog.source("descriptions", "2.6.0")
    assert len(found) > 500 and not found.duplicated(["file", "symbol", "targets"]).any()
    cpu = found[(found["name"] == "cpu") & (found["targets"] == "ppc64")]["description"].item()
    fields = vt.catalog.source("fields", "2.6.0")
    fields = fields[fields["description"] == cpu]
    # QEMU's a90db1584a made them fields that must be equal
    equal = fields[fields["type"].astype(str).str.endswith(" equal")]["name"].tolist()
    assert {"env.msr_mask", "env.insns_flags", "env.insns_flags2", "env.nb_BATs"} <= set(equal)


def test_changes_of_a_device():
    found = vt.catalog.device_changes("vmxnet3", broken=True)
    assert found["release"].tolist() == ["4.2.0"] and found["broken"].all()  # QEMU's 78dd48df39
    assert isinstance(found["release"].dtype, pd.CategoricalDtype) and found["release"].dtype.ordered
    with pytest.raises(CatalogError, match="unheard-of"):
        vt.catalog.device_changes("unheard-of")


def test_what_there_is_not():
    with pytest.raises(CatalogError, match=r"no unheard-of\.csv"):
        vt.catalog.source("unheard-of")
