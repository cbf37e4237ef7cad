"""Machine types: the version in a name, the alias in a release."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from vmstate_tools.facts.machines import base_of, canonical, is_versioned, version_of
from vmstate_tools.release import Release


@pytest.mark.parametrize(
    ("machine", "base", "version"),
    [
        ("pseries-2.12-sxxm", "pseries", "2.12"),
        ("pc-i440fx-2.1", "pc-i440fx", "2.1"),
        ("s390-ccw-virtio-4.1", "s390-ccw-virtio", "4.1"),
        ("pseries", "pseries", None),
        ("xlnx-zcu102", "xlnx-zcu102", None),
        ("pc-q35-rhel7.6.0", "pc-q35-rhel7.6.0", None),
        ("", "", None),
        (f"pseries-{'9' * 5000}.1", f"pseries-{'9' * 5000}.1", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_version_in_a_name(machine, base, version):
    assert base_of(machine) == base
    assert version_of(machine) == (None if version is None else Release(version))


@pytest.mark.parametrize(
    ("machine", "release", "named"),
    [
        ("pseries", "2.6.0", "pseries-2.6"),
        ("pseries", "2.0.0", "pseries"),  # pseries-2.1 was the first with a version
        ("q35", "7.2.22", "pc-q35-7.2"),
        ("virt", "2.5.0", "virt"),
        ("virt-5.2", "7.2", "virt-5.2"),
        ("mac99", "7.2", "mac99"),
    ],
)
def test_the_machine_type_that_a_name_stands_for(machine, release, named):
    assert canonical(machine, Release(release)) == named
    assert canonical(machine, None) == machine


@pytest.mark.parametrize(
    ("binary", "aliases"), [("ppc64", {"pseries"}), ("x86_64", {"pc", "q35"}), ("aarch64", {"virt"})]
)
def test_aliases_are_those_the_installed_qemu_lists(binary, aliases):
    qemu = shutil.which(f"qemu-system-{binary}")
    if qemu is None:
        pytest.skip(f"no qemu-system-{binary} installed")
    version = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=True).stdout
    release = Release(re.search(r"version (\d+\.\d+\.\d+)", version)[1])
    listed = subprocess.run([qemu, "-machine", "help"], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"^(\S+) .*\(alias of (\S+)\)", listed, re.MULTILINE))
    assert aliases <= found.keys()
    for alias, name in found.items():
        if is_versioned(name):
            assert canonical(alias, release) == name
