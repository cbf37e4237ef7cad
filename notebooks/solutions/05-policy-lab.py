# Solutions of 05-policy-lab. Run them in notebooks/: `python -m solutions.05-policy-lab`.

import vmstate_tools as vt
from course import check
from vmstate_tools.analysis import policies_compared as proposals

# 05-subset. Forward as good as ignore, and nothing let through or broken.
table = proposals.compare("pseries-2.6", ["970fx_v3.1", "POWER7_v2.3", "POWER8_v2.0"], accels=["tcg"]).droplevel(
    "accel"
)
forward, both = table.xs("forward", level="direction"), table.groupby("policy")[["let through", "broken"]].sum()
good = forward["repaired"] == forward.loc["ignore", "repaired"]
print(check("05-subset", {p for p in forward.index[good] if both.loc[p].sum() == 0}))

# 05-lost. What the source has and the destination lacks.
found = proposals.pairs("pseries-2.6", ["POWER7_v2.3"], "ignore", since=None, releases=["2.6.0", "2.7.0"])
print(check("05-lost", found[found["direction"] == "backward"]["lacks"].iloc[0]))

# 05-bytes. From where the loader stands to the end of the last word.
PPC32 = "../data/outcomes/unused/ppc32-g3beige-7400_v2.9.mig.zst"
itself = vt.Destination.from_stream(PPC32, "2.7.0", "g3beige", "7400_v2.9", "tcg")
with vt.open(PPC32) as s:
    stops = s.section("cpu").payload_offset + vt.check(s, itself, "unused").first.destination_value
    fields = s.fields().set_index("path")
print(check("05-bytes", int(fields.loc["env.nb_BATs", "offset"] + 4 - stops)))
