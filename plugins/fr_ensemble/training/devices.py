"""devices.py: what torch can compute on, and what decides in which order it adds. Trains nothing."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

import torch

from registry_tool.errors import InputError
from registry_tool.toolkit import one_line


def check_device(device: str) -> None:
    """Raises InputError where torch cannot compute on `device`."""
    try:
        torch.zeros(1, device=device).cpu()  # the device `meta` holds no numbers
    except (RuntimeError, AssertionError) as error:
        words = one_line(str(error))
        raise InputError(f"--device: found {device!r}, which this torch cannot use ({words}): use cpu") from error


def torch_arithmetic(device: str) -> dict[str, str]:
    """What decides in which order torch adds: the processor, the kernels that it takes for it, the device."""
    cpu = platform.processor() or "unknown"
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    capability = torch.backends.cpu.get_cpu_capability()
    return {"torch": torch.__version__, "cpu": cpu, "cpu_capability": capability, "device": name}
