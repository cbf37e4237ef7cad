"""The command `vmstate`."""
