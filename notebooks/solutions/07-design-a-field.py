# Solutions of 07-design-a-field. Run them in notebooks/: `python -m solutions.07-design-a-field`.

import vmstate_tools as vt
from course import check
from course.toy import Description, Field, load, stream

# 07-footer. Release 1 sends `on` and the footer, 7e and four bytes: release 2 takes the 7e for the brightness.
raw = stream(Description("lamp", [Field("on", "uint8", 1)]), "toy-1")
on = raw.index(b"\x04lamp") + 1 + 4 + 4 + 4
print(check("07-footer", raw[on + 1]))


# 07-minimum. What release 1 sends has version 1, less than the minimum: an upgrade is no longer possible either.
def versioned(release, minimum):
    new = [Field("brightness", "uint8", 255, since=2)] if release == 2 else []
    return Description("lamp", [Field("on", "uint8", 1), *new], version=release, minimum=minimum)


def refused(minimum):
    made = {1: versioned(1, 1), 2: versioned(2, minimum)}
    return {(a, b) for a in made for b in made if not load(made[a], made[b], "toy-1").loads}


print(check("07-minimum", refused(2) - refused(1)))

# 07-iommu. The one row of the difference that names a field.
with (
    vt.open("../data/streams/qemu-5.2/pseries-2.6/POWER7_v2.3.mig.zst") as old,
    vt.open("../data/streams/qemu-7.2/pseries-2.6/POWER7_v2.3.mig.zst") as new,
):
    differences = vt.diff(old, new)
only = differences[(differences["section"] == "spapr_iommu") & (differences["kind"] == "only in b")]
print(check("07-iommu", only["path"].item()))

# 07-policy. Refuse what the destination lacks, and nothing else: the stream's flags must be a subset of its own.
print(check("07-policy", {"subset"}))


# 07-lamp. What release 2 knows goes out as release 2 has it; what it cannot say is a subsection of its own, sent only
# where it says something. The name must not begin with lamp/brightness: that description would take it for its own.
def release_3(machine, brightness, colour):
    coarse = Description("lamp/brightness", [Field("brightness", "uint8", brightness // 257)], needed=brightness != 65535)
    fine = Description("lamp/fine", [Field("brightness16", "uint16", brightness)], needed=brightness % 257 != 0)
    tint = Description("lamp/colour", [Field("colour", "uint32", colour)], needed=colour != 0xFFFFFF)
    return Description("lamp", [Field("on", "uint8", 1)], [coarse, fine, tint])


print(check("07-lamp", release_3))
