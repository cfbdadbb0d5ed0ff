"""`python -m registry_tool` is the program `registry`."""

from registry_tool.cli import start

start()
