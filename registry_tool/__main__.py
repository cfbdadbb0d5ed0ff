"""`registry`, `registry-tool` and `python -m registry_tool`: the program, on the system that it runs on."""

import sys

from registry_tool.errors import WorldError, need_linux


def start() -> None:
    """Run the program; elsewhere than on Linux one line says so, before a module that needs it is imported."""
    try:
        need_linux()
    except WorldError as error:
        print(f"registry: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    from registry_tool.cli import start as start_program

    start_program()


if __name__ == "__main__":
    start()
