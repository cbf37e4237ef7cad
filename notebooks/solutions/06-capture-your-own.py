# Solutions of 06-capture-your-own. Run them in notebooks/: `python -m solutions.06-capture-your-own`.

import io

import vmstate_tools as vt
from course import check

# 06-bytes. The rewritten stream has the same size: compare byte by byte.
FILE = "../data/streams/qemu-2.6.0/pseries-2.6/POWER7_v2.3.mig.zst"
new = io.BytesIO()
vt.rewrite(FILE, new, release="2.7.0")
with vt.open(FILE) as s:
    differing = sum(a != b for a, b in zip(bytes(s.source.view), new.getvalue(), strict=True))
print(check("06-bytes", differing))

# 06-window. All fields of that name, whatever the section.
with vt.open("../data/streams/qemu-2.8.0/pseries-2.6/970fx_v3.1.mig.zst") as s:
    fields = s.fields()
found = fields[fields["path"].str.endswith("liobn") & fields["value"].ne(0)]
print(check("06-window", (found["section"].iloc[0], int(found["value"].iloc[0]))))
