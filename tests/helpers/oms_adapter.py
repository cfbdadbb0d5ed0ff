"""oms_adapter.py: the client that the public conformance suite of model signatures (OMS) runs: its words, our program.

`python tests/helpers/oms_adapter.py sign-model|verify-model OPTIONS`; the suite reads its exit code alone.
"""

import subprocess
import sys

OURS = {"--model-path": "--path", "--output-bundle": "--bundle", "--private-key": "--key", "--signing-cert": "--cert"}
OURS |= {"--ignore-paths": "--ignore-path", "sign-model": "sign", "verify-model": "verify-signature"}


def translated(arguments: list[str]) -> list[str]:
    """The suite's words as ours; keyless signatures need a network, and are refused as the unknown option --method."""
    chain = "--chain" if arguments[0] == "sign-model" else "--trust"
    words = [chain if word == "--cert-chain" else OURS.get(word, word) for word in arguments]
    at = words.index("--method")
    return words if words[at + 1] not in ("key", "certificate") else words[:at] + words[at + 2 :]


if __name__ == "__main__":
    sys.exit(subprocess.run([sys.executable, "-m", "registry_tool", *translated(sys.argv[1:])], check=False).returncode)
