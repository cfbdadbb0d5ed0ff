"""program.py: runs the program for other scripts of this folder, in their process. Measures nothing."""

from __future__ import annotations

import sys
from collections.abc import Collection
from contextlib import redirect_stdout
from io import StringIO
from unittest.mock import patch

from registry_tool import cli


def registry(*arguments: object, expected: Collection[int] = (0,)) -> str:
    """What `registry ARGUMENTS` prints; its libraries are loaded once. Another exit code ends the script."""
    command = ["registry", *map(str, arguments)]
    with patch.object(sys, "argv", command), redirect_stdout(StringIO()) as printed:
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
    if code not in expected:
        sys.exit(f"{' '.join(command[:2])} ended with exit code {code}, expected {', '.join(map(str, expected))}")
    return printed.getvalue()
