# Solutions of 04-where-it-broke. Run them in notebooks/: `python -m solutions.04-where-it-broke`.

import vmstate_tools as vt
from course import check
from vmstate_tools.analysis import outcomes

real = outcomes.real()
real = real[real["machine"].eq("pseries-2.6") & real["config"].eq("") & real["dst_extra"].eq("")]
real = real[real["cpu_src"].str.lower().eq(real["cpu_dst"].str.lower())]

# 04-column. Of each destination the sources that load, but for itself.
power7 = real[real["cpu_src"].str.lower().eq("power7_v2.3") & real["src_version"].ne(real["dst_version"])]
loads = power7.groupby("dst_version")["loads"].sum()
print(check("04-column", set(loads.index[loads == loads.min()])))

# 04-hidden. The second obstacle of the same load.
destination = vt.Destination("2.7.0", "pseries-2.6", "POWER7_v2.3", "tcg")
verdict = vt.check("../data/streams/qemu-2.6.0/pseries-2.6/POWER7_v2.3.mig.zst", destination)
print(check("04-hidden", verdict.obstacles["field"][1]))

# 04-not-cpu. Refused, and not by the CPU's section.
print(check("04-not-cpu", int((~real["loads"] & real["cause"].ne("cpu")).sum())))
