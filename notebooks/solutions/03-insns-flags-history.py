# Solutions of 03-insns-flags-history. Run them in notebooks/: `python -m solutions.03-insns-flags-history`.

from course import check
from vmstate_tools.analysis import cpu_history as breaks

# 03-power9. Its row, without the releases that had no POWER9: where the number is not the one before.
row = breaks.classes(accel=None, cpus=["POWER9"]).loc["POWER9"].dropna()
print(check("03-power9", set(row.index[row.ne(row.shift()) & row.shift().notna()])))

# 03-way-back. Pairs that load, to 2.6.0: the newest source. What 7.0 gave POWER5+, no mask hides.
pairs = breaks.pairs("pseries-2.6", ["POWER5+_v2.1"])
print(check("03-way-back", pairs[(pairs["destination"] == "2.6.0") & pairs["loads"]]["source"].iloc[-1]))

# 03-commit. The step has two commits; the subject of one names the instruction.
steps = breaks.steps(since="6.2.0", until="7.0.0")
(commits,) = steps.loc[steps["family"] == "POWER5P", "commits"]
print(check("03-commit", next(c["commit"] for c in commits if "popcntb" in c["subject"])))
