"""What releases of QEMU say, as tables read from `data/`."""
