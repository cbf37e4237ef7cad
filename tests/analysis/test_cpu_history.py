from __future__ import annotations

import pandas as pd
import pytest

from vmstate_tools.analysis import cpu_history as breaks
from vmstate_tools.data import data_path
from vmstate_tools.errors import CatalogError
from vmstate_tools.facts import catalog, flags


def test_releases_hold_the_stable_ones_that_matter() -> None:
    found = breaks.releases()
    assert found[0] == "1.6.0"
    assert {"2.7.1", "2.11.2", "2.12.1", "10.2.0"} <= set(found)
    assert "2.6.1" not in found and "10.2.50" not in found
    assert breaks.releases("2.5", "2.7.1", machine="pseries-2.6") == ["2.6.0", "2.7.0", "2.7.1"]


def test_the_step_of_2016() -> None:
    step = breaks.steps(since="2.6.0", until="2.7.0").set_index("family")
    assert set(step.index) == {"POWER7", "POWER8", "e500mc", "e5500"}
    assert step.loc["POWER7", "added"] == ["PPC_64BX", "PPC_64H", "PPC_CILDST", "PPC2_PM_ISA206"]
    commits = {c["commit"][:10] for c in step.loc["POWER7", "commits"]}
    assert commits == {"4e0806110c", "dfdd3e4362", "b781537560", "7778a575c7"}
    assert [c["commit"][:10] for c in step.loc["e5500", "commits"]] == ["2fff4bad40"]


def test_every_step_has_its_commits() -> None:
    for accel, machine in ((None, None), ("tcg", "pseries"), ("kvm", "pseries")):
        found = breaks.steps(accel, machine)
        assert len(found) > 30
        lacking = found[found["commits"].str.len() == 0]
        assert lacking.empty, lacking[["release", "family"]]


def test_a_model_that_moved_is_compared_with_itself() -> None:
    step = breaks.steps(since="6.2.0", until="7.0.0")
    row = step[step["family_before"] == "7400"].iloc[0]
    # 7441 … were of family 7400, with four BATs, until 7.0.
    assert (row["family"], row["words"]) == ("7445", ["nb_BATs"])
    assert row["commits"]


def test_what_tcg_learns_breaks_under_tcg_alone() -> None:
    tcg = breaks.steps("tcg", "pseries", "2.0.0", "2.1.0").set_index("family")
    kvm = breaks.steps("kvm", "pseries", "2.0.0", "2.1.0").set_index("family")
    assert "POWER7" not in kvm.index
    row = tcg[tcg["family_before"] == "POWER7"].loc["POWER7"]
    assert row["added"] == ["PPC2_DFP"] and row["commits"]


def test_flags_of_the_host_are_left_out() -> None:
    with_class = breaks.steps("tcg", "pseries", "2.0.0", "2.1.0")
    with_host = breaks.steps("tcg", "pseries", "2.0.0", "2.1.0", host=["PPC2_DFP"])
    gone = set(with_class["family"]) - set(with_host["family"])
    assert gone == {"POWER7"}
    assert all("PPC2_DFP" not in added for added in with_host["added"])


def test_classes() -> None:
    table = breaks.classes(None, cpus=["POWER8", "POWER9", "603"], until="3.1.0")
    assert list(table.columns) == breaks.releases(until="3.1.0")
    row = table.loc["POWER8"]
    assert row["2.3.0"] == row["2.6.0"] != row["2.7.0"] == row["2.11.2"]
    assert table.loc["POWER9"].isna().tolist() == [flags.release_key(r) < (2, 8, 0) for r in table.columns]
    assert set(table.loc["603"]) == {0}


def test_classes_of_what_is_sent() -> None:
    table = breaks.classes("tcg", "pseries-2.6", ["POWER7", "POWER8"], sent=True)
    assert list(table.columns) == breaks.releases(machine="pseries-2.6")
    # POWER8's words of 2.6 are the mask; POWER7's are not.
    assert table.loc["POWER8", "2.6.0"] == table.loc["POWER8", "2.8.0"]
    assert table.loc["POWER7", "2.6.0"] != table.loc["POWER7", "2.8.0"]
    assert breaks.classes("tcg", "pseries-2.8", ["POWER8"], sent=True).isna().all().all()
    with pytest.raises(CatalogError, match="machine"):
        breaks.classes(sent=True)


@pytest.mark.parametrize(
    ("machine", "cpu", "source", "destination", "expected"),
    [
        ("pseries-2.6", "POWER8_v2.0", "2.6.0", "2.7.0", ("differ", ["insns_flags", "insns_flags2"])),
        ("pseries-2.6", "POWER8_v2.0", "2.6.0", "2.7.1", ("ignored", [])),
        ("pseries-2.6", "POWER8_v2.0", "2.8.0", "2.6.0", ("equal", [])),
        ("pseries-2.6", "POWER7_v2.3", "2.8.0", "2.6.0", ("differ", ["insns_flags"])),
        ("pseries-2.8", "POWER8_v2.0", "2.8.0", "9.1.0", ("not sent", [])),
        ("mac99", "7400_v2.9", "2.7.0", "2.8.0", ("layout", [])),
        ("pseries-5.2", "POWER8_v2.0", "5.2", "11.1.3", ("not sent", [])),
    ],
)
def test_meet(machine: str, cpu: str, source: str, destination: str, expected: tuple[str, list[str]]) -> None:
    assert breaks.meet(machine, cpu, source, destination) == expected


def test_pairs_agree_with_real_loads() -> None:
    outcomes = pd.read_csv(data_path("outcomes", "load_matrix.csv"), keep_default_na=False)
    rows = outcomes[(outcomes["arch"] == "ppc64") & (outcomes["cpu_dst"] != "")]
    stopped = rows["fail_field"].str.extract(r"^cpu:env\.(\w+)=")[0]
    checked = 0
    for row, at in zip(rows.to_dict("records"), stopped, strict=True):
        pair = row["src_version"], row["dst_version"]
        if row["cpu_dst"] == "POWER7p_v2.1":  # a name no release before 9.0 has: unclear what these destinations ran
            continue
        how, words = breaks.meet(row["machine"], row["cpu_src"], *pair, cpu_there=row["cpu_dst"])
        if how in ("differ", "layout"):
            assert not row["vmstate_loaded"], row
        if isinstance(at, str):
            assert words[0] == at, row
            checked += 1
    assert checked > 200


def test_pairs_and_their_grid() -> None:
    found = breaks.pairs("pseries-2.6", ["POWER8_v2.0"], until="2.12.1")
    by = found.set_index(["source", "destination"])
    assert by.loc[("2.6.0", "2.7.0"), "effect"] == "still refused"
    assert by.loc[("2.6.0", "2.8.0"), "effect"] == "repaired"
    assert by.loc[("2.8.0", "2.7.0"), "effect"] == "broken"
    assert by.loc[("2.8.0", "2.9.0"), "effect"] == "as before"
    grid = breaks.grid(found, "POWER8_v2.0")
    assert list(grid.columns) == ["2.6.0", "2.7.0", "2.7.1 … 2.12.1"]
    assert grid.loc["2.6.0"].tolist() == ["equal", "differ: insns_flags, insns_flags2", "ignored"]
    assert grid.loc["2.7.1 … 2.11.2", "2.7.0"] == "differ: insns_flags, insns_flags2 (broken)"


def test_effects_are_known_for_every_change_since_the_check() -> None:
    assert breaks.effects(breaks.steps())["tcg"].notna().all()
    names = {(f.word, f.name) for word in flags.WORDS for f in flags.known(word)}
    assert {(row["word"], row["name"]) for row in catalog.table("effects")} <= names


def test_effects() -> None:
    found = breaks.effects(breaks.steps("tcg", "pseries", "2.6.0", "2.7.0"))
    power8 = found[found["family"] == "POWER8"]
    assert set(power8["tcg"]) == {"hypervisor"} and set(power8["kvm"]) == {""}
    assert found[found["family"] == "POWER7"]["tcg"].min() == "system"


def test_servers() -> None:
    assert set(breaks.servers("2.7.0")) == {"970", "POWER5P", "POWER7", "POWER8"}
