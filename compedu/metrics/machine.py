"""The machine on which a figure was measured: times mean nothing without it."""

import platform
import subprocess
from functools import cache
from pathlib import Path

import torch


def machine() -> dict[str, str | int]:
    """Return the processor's name, the number of threads that torch computes on, and torch's version."""
    return {"cpu": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}


@cache
def cpu_name() -> str:
    """Return the processor's name as its vendor writes it, or its architecture where the system has none."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine()
