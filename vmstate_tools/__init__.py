"""Decode, compare and explain QEMU migration streams."""

__version__ = "0.1.0"
