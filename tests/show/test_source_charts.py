"""Charts of data/source: what stands in them, of tables made up for the tests."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from source_tables import made_tables  # noqa: F401

from vmstate_tools.show import charts

mpl.use("Agg")
pytestmark = pytest.mark.usefixtures("made_tables")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def signs(ax):
    return {(t.get_position()[0], int(t.get_position()[1])): t.get_text() for t in ax.texts if t.get_text()}


def test_the_raster_signs_what_broke():
    ax = charts.description_raster()
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert set(rows[:3]) == {"acme", "always", "inner-lax"}  # what broke comes first
    at = rows.index("acme")
    assert signs(ax)[1.5, at] == "!" and signs(ax)[2.5, at] == "v"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1.0", "1.1", "1.2"]
    named = charts.description_raster(["quiet"])
    assert signs(named) == {(1.5, 0): "?"}
    with pytest.raises(ValueError, match="no description"):
        charts.description_raster(["quiet"], since="1.2")


def test_the_fields_of_a_description():
    ax = charts.field_history("acme")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ctrl", "late", "proper", "vmstate_extra"]
    found = signs(ax)
    assert found[1.5, 1] == "+" and found[2.5, 2] == "+"
    assert charts.field_history("acme", changed=True).get_yticklabels()[0].get_text() == "late"
    with pytest.raises(ValueError, match="nobody"):
        charts.field_history("nobody")
