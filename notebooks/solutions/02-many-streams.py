# Solutions of 02-many-streams. Run them in notebooks/: `python -m solutions.02-many-streams`.

from pathlib import Path

import pandas as pd

import vmstate_tools as vt
from course import check

# The notebook loads all; these questions ask about POWER7 and POWER8.
c = vt.load(sorted(Path("../data/streams").glob("qemu-*/pseries-2.[16]/*7_v2.3.mig.zst")), fields=False, progress=False)
words = ["msr_mask", "insns_flags", "insns_flags2", "nb_bats"]

# 02-steps. One row for each release, in order; a row that is not like the one above it is a step.
cpu = c.cpu[c.cpu["machine"].eq("pseries-2.1") & c.cpu["config"].eq("") & c.cpu["model"].str.lower().eq("power7_v2.3")]
table = cpu.sort_values("release", key=lambda column: column.map(vt.flags.release_key)).set_index("release")[words]
numbers = [[int(value) for value in row] for row in table.itertuples(index=False)]
steps = {b for b, before, now in zip(table.index[1:], numbers, numbers[1:], strict=False) if before != now}
print(check("02-steps", steps))


# 02-back. The first word that differs, and the flags that do.
def words_of(release):
    with vt.open(f"../data/streams/qemu-{release}/pseries-2.6/POWER7_v2.3.mig.zst") as s:
        prefix = "mig_" if release == "2.8.0" else "env."
        return {word: s.value("cpu", prefix + word) for word in ("insns_flags", "insns_flags2")}


for word, (added, removed) in vt.flags.diff(words_of("2.6.0"), words_of("2.8.0")).items():
    if added or removed:
        print(check("02-back", (word, added + removed)))
        break

# 02-other-reason. The words are equal, so the loader goes on, to a field that 2.8.0 fills in another way.
outcomes = pd.read_csv("../data/outcomes/load_matrix.csv", keep_default_na=False)
load = outcomes.query(
    "machine == 'pseries-2.6' and cpu_src == 'POWER8_v2.0' and cpu_dst == 'POWER8_v2.0'"
    " and src_version == '2.8.0' and dst_version == '2.6.0' and config == '' and dst_extra == ''"
).iloc[0]
print(check("02-other-reason", load["fail_field"]))
