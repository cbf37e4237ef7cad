"""`python -m vmstate_tools.cli …` is the command `vmstate …`."""

from vmstate_tools.cli.main import main

main(prog_name="vmstate")
