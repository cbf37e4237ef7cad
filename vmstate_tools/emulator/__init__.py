"""Real QEMUs over QMP: streams captured from them, streams they try to load, and predictions beside what they do.

Nothing that a stream or a manifest says is run or handed to a QEMU, but for what `harmless` lists.
"""
