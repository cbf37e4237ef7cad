"""The command `vmstate`: one module for each command, a few lines over the API each; `main` puts them together."""
