"""A small source tree in the shapes QEMU's has, committed to a git repository; none of it is QEMU's."""

from __future__ import annotations

import subprocess
from pathlib import Path

VMSTATE_H = """
enum VMStateFlags { VMS_SINGLE = 1, VMS_POINTER = 2, VMS_ARRAY = 4, VMS_STRUCT = 8, VMS_VARRAY_UINT32 = 16 };
#define ONE(_f, _s, _test, _v, _i, _t) { .name = (stringify(_f)), .version_id = (_v), .field_exists = (_test), \\
    .size = sizeof(_t), .info = &(_i), .flags = VMS_SINGLE, .offset = offsetof(_s, _f) }
#define MANY(_f, _s, _n, _v, _i, _t) { .name = (stringify(_f)), .version_id = (_v), .num = (_n), .info = &(_i), \\
    .size = sizeof(_t), .flags = VMS_ARRAY, .offset = offsetof(_s, _f) }
#define VARYING(_f, _s, _n, _i, _t) { .name = (stringify(_f)), .num_offset = offsetof(_s, _n), .info = &(_i), \\
    .size = sizeof(_t), .flags = VMS_VARRAY_UINT32|VMS_POINTER, .offset = offsetof(_s, _f) }
#define INNER(_f, _s, _d, _t) { .name = (stringify(_f)), .vmsd = &(_d), .size = sizeof(_t), .flags = VMS_STRUCT, \\
    .offset = offsetof(_s, _f) }
#define BYTES(_f, _s) { .name = (stringify(_f)), .size = sizeof(typeof(((_s *)0)->_f)), .info = &vmstate_info_buffer, \\
    .offset = offsetof(_s, _f) }
#define U32(_f, _s) ONE(_f, _s, NULL, 0, vmstate_info_uint32, uint32_t)
#define WORD(_f, _s) ONE(_f, _s, NULL, 0, vmstate_info_uint32, target_ulong)
#define END() {}
"""
ACME_H = """
#ifndef ACME_H
#define ACME_H
#define TYPE_ACME "acme"
#define LANES 4
typedef struct AcmeState AcmeState;
struct AcmeState { DeviceState parent_obj; uint32_t ctrl; uint8_t fifo[LANES * 8]; uint32_t n; Lane *lanes; Lane one; };
#endif
"""
ACME_C = """
#include "hw/acme.h"
#include "migration/vmstate.h"
const VMStateInfo vmstate_info_uint32 = { .name = "uint32" };
#define R_MAX (0x10 / 4)
static bool old_needed(void *opaque) { return true; }
static const VMStateDescription vmstate_lane = {
    .name = "lane", .version_id = 1, .minimum_version_id = 1,
    .fields = (const VMStateField[]) { U32(regs[R_MAX], Lane), END() }
};
static const VMStateDescription vmstate_old = {
    .name = "acme/old", .version_id = 1, .needed = old_needed, .fields = (VMStateField[]) { U32(old, AcmeState), END() }
};
static const VMStateDescription vmstate_acme = {
    .name = TYPE_ACME, /* a comment } with a brace */
    .version_id = LAST,
    .minimum_version_id = 2,
    .post_load = acme_post_load,
    .fields = (const VMStateField[]) {
        U32(ctrl, AcmeState),
#ifdef CONFIG_USER_ONLY
        U32(user, AcmeState),
#endif
        BYTES(fifo, AcmeState),
        ONE(old, AcmeState, is_old, 2, vmstate_info_uint32, uint32_t),
        MANY(regs, AcmeState, ARRAY_SIZE(((AcmeState *)0)->fifo), 0, vmstate_info_uint32, uint32_t),
        VARYING(lanes, AcmeState, n, vmstate_info_lane, Lane),
        INNER(one, AcmeState, vmstate_lane, Lane),
        END()
    },
    .subsections = (const VMStateDescription * const []) { &vmstate_old, NULL }
};
static Property acme_properties[] = {
    { .name = "lanes", .info = &(qdev_prop_uint32), .offset = offsetof(AcmeState, n), .defval.u = (uint32_t)LANES },
    { .name = "x-old", .info = &(qdev_prop_bit), .bitnr = (3), .offset = offsetof(AcmeState, ctrl),
      .defval.u = (bool)true },
    {},
};
static void acme_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);
    dc->vmsd = &vmstate_acme;
    k->device_id = 0x1234;
    device_class_set_props(dc, acme_properties);
}
static const TypeInfo acme_info = { .name = TYPE_ACME, .parent = "pci-device", .class_init = acme_class_init };
static const AcmeKind kinds[] = { { .name = "acme-small", .id = 1 }, { .name = "acme-big", .id = 2 } };
static void kind_class_init(ObjectClass *klass, void *data)
{
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);
    const AcmeKind *kind = data;
    k->device_id = kind->id;
}
static void acme_register(void)
{
    int i;
    type_register(&acme_info);
    for (i = 0; i < ARRAY_SIZE(kinds); i++) {
        TypeInfo info = { .parent = TYPE_ACME, .class_init = kind_class_init, .class_data = (void *)&kinds[i] };
        info.name = kinds[i].name;
        type_register(&info);
    }
}
static void acme_init(AcmeState *s)
{
    vmstate_register(NULL, -1, &vmstate_lane, s);
    register_savevm(DEVICE(s), "acme-old", 3, 7, acme_save, acme_load, s);
}
"""
BOARD_C = """
#define BOARD(maj, min, latest) \\
    static void board_##maj##_##min##_class_init(ObjectClass *oc, void *data) { \\
        MachineClass *mc = MACHINE_CLASS(oc); \\
        board_##maj##_##min##_options(mc); \\
        if (latest) { mc->alias = "board"; } \\
    } \\
    static const TypeInfo board_##maj##_##min##_info = { .name = "board-" #maj "." #min "-machine", \\
        .parent = "board-machine", .class_init = board_##maj##_##min##_class_init };
GlobalProperty hw_compat_1_0[] = { { "acme", "x-old", "off" },
    { .driver = "pci-device", .property = "p", .value = "1" } };
static void board_2_0_options(MachineClass *mc) { mc->max_cpus = 8; }
BOARD(2, 0, true)
static void board_1_0_options(MachineClass *mc)
{
    static GlobalProperty compat[] = { { "acme", "lanes", "2" } };
    board_2_0_options(mc);
    mc->max_cpus = 4;
    compat_props_add(mc->compat_props, hw_compat_1_0, 2);
    compat_props_add(mc->compat_props, compat, 1);
}
BOARD(1, 0, false)
"""
CPU_C = """
#include "migration/vmstate.h"
const VMStateDescription vmstate_cpu = {
    .name = "cpu", .version_id = 1, .fields = (VMStateField[]) { WORD(pc, CPUState),
#ifdef TARGET_PPC64
        U32(wide, CPUState),
#endif
        END() }
};
"""
TREE = {
    "VERSION": "2.0.0\n",
    "include/qemu/osdep.h": "#define stringify(s) tostring(s)\n#define tostring(s) #s\n",
    "include/migration/vmstate.h": VMSTATE_H,
    "include/hw/lane.h": "typedef struct Lane { uint32_t regs[4]; uint64_t last; } Lane;\n"
    "enum { FIRST, LAST = FIRST + 3 };\n"
    "typedef struct DeviceState { void *p; int n; } DeviceState;\n",
    "include/hw/acme.h": '#include "hw/lane.h"\n' + ACME_H,
    "hw/misc/acme.c": ACME_C,
    "hw/misc/board.c": BOARD_C,
    "target/ppc/machine.c": CPU_C,
}


def commit(folder: Path, tree: dict[str, str], tag: str = "v2.0.0") -> None:
    """Commits a tree to the repository in a folder, made where there is none."""
    git = ["git", "-C", str(folder), "-c", "user.name=-", "-c", "user.email=-"]
    if not (folder / ".git").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([*git, "init", "-q", "-b", "master"], check=True)
    for name, text in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "--no-gpg-sign", "-m", tag], check=True)
    subprocess.run([*git, "tag", tag], check=True)
