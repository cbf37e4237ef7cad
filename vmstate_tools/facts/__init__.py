"""What releases of QEMU say, as tables read from `data/`: releases, CPUs and their flags, machine types, changes.

`catalog` offers what is about ppc CPUs under one name.
"""
