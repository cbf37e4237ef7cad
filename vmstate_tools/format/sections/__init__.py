"""Sections that QEMU writes by hand: code, not a VMStateDescription. One module states the format of each kind.

handwritten : finds the format of a section by its idstr; reads and builds payloads
leaves : the values of such a section, and what their statements are made of
htab, s390, block, dirty_bitmap, vfio, slirp, virtio : the formats
"""
