"""Many streams against many destinations."""

from __future__ import annotations

from captures import capture

import vmstate_tools as vt
from vmstate_tools.compat import Destination, check, matrix


def test_matrix_has_a_row_per_pair():
    frame = matrix([capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")], ["2.6.0", "2.7.0"], progress=False)
    assert frame["loads"].tolist() == [True, False]
    assert frame["section"].tolist()[1] == "cpu"


def test_a_stream_that_is_none_is_a_row_with_an_error(tmp_path):
    path = tmp_path / "x.mig"
    path.write_bytes(b"not a stream")
    frame = matrix([path], ["2.7.0"], progress=False)
    assert frame["loads"].isna().all() and "QEVM" in frame["error"][0]


def test_words_of_64_bits_stay_whole_in_a_matrix():
    paths = [capture(f"qemu-{r}/pseries-2.6/POWER8_v2.0.mig.zst") for r in ("2.6.0", "2.7.0")]
    frame = matrix([*paths, "nowhere.mig"], ["2.7.0"], progress=False)
    with vt.open(paths[0]) as stream:
        sent = stream.value("cpu", "env.insns_flags")
    assert frame["loads"].tolist()[:2] == [False, True] and frame["loads"].isna()[2]
    assert frame["stream_value"][0] == sent and type(frame["stream_value"][0]) is int
    assert frame["instance_id"].tolist()[0] == 0 and str(frame["instance_id"].dtype) == "Int64"
    verdict = check(paths[0], Destination("2.7.0"))
    assert verdict.obstacles["stream_value"][0] == sent and type(verdict.obstacles["stream_value"][0]) is int


def test_releases_are_in_order_and_a_model_has_one_spelling():
    """From 2.11 on QEMU spells power8_v2.0 what it had spelled POWER8_v2.0."""
    path = capture("qemu-2.6.0/pseries-2.6/POWER8_v2.0.mig.zst")
    frame = matrix([path], ["2.10.0", "2.7.0", "7.2", "2.6.0"], progress=False)
    assert frame.sort_values("release")["release"].tolist() == ["2.6.0", "2.7.0", "2.10.0", "7.2"]
    assert frame["cpu"].unique().tolist() == ["POWER8_v2.0"]
