"""Sections that QEMU writes by hand, without a VMState description."""
