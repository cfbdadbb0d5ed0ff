"""`registry`, `registry-tool` and `python -m registry_tool`: the program, on the system that it runs on."""

import signal
import sys

from registry_tool.errors import WorldError, need_linux


def start() -> None:
    """Run the program; elsewhere than on Linux one line says so, before a module that needs it is imported.

    Ctrl-C before the program has begun ends it as it ends any other: Python would print where its import was.
    """
    try:
        need_linux()
    except WorldError as error:
        print(f"registry: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    interrupts = signal.getsignal(signal.SIGINT)
    if interrupts is signal.default_int_handler:  # no caller had it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from registry_tool.cli import start as start_program

    signal.signal(signal.SIGINT, interrupts)
    start_program()


if __name__ == "__main__":
    start()
