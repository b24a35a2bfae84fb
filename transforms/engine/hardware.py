"""What this machine can do: CPU features, cores that may be used, the best number format. Imports no torch and asks no GPU.

Linux tells in /proc and /sys; elsewhere no feature is known, which costs speed, never rightness.
"""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CGROUP = Path("/proc/self/cgroup")
_CGROUP_MOUNT = Path("/sys/fs/cgroup")

_AMX_BFLOAT16 = frozenset({"amx_tile", "amx_bf16"})
# Either multiplies unsigned by signed bytes into 32-bit sums.
_INT8_FEATURES = frozenset({"avx512_vnni", "amx_int8"})


def cpu_features(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Features of the CPU by Linux' names, `avx512_vnni` for instance; empty where there is no such file."""
    try:
        lines = cpuinfo.read_text("ascii", errors="ignore").splitlines()
    except OSError:
        return frozenset()
    # x86 says flags, ARM Features; all cores say the same.
    named = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(named.partition(":")[2].split())


def usable_cores(cgroup: Path = _CGROUP, mount: Path = _CGROUP_MOUNT) -> int:
    """Cores that this process may keep busy, at least 1: those it may run on, and no more than its containers' quotas of CPU time.

    A quota of 2.5 cores is 2: a third thread would be stopped for half of each period, and everything that waits for it too.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _cpu_groups(cgroup, mount) if (quota := _quota(folder)) is not None]
    return max(1, int(min([allowed, *quotas])))


def _cpu_groups(cgroup: Path, mount: Path) -> list[Path]:
    """Folders of this process' CPU control groups and all groups around them. A container may see its own group as the root only."""
    try:
        entries = [line.split(":", 2) for line in cgroup.read_text().splitlines()]
    except OSError:
        return []
    folders = []
    for entry in entries:
        controllers, path = entry[1].split(","), Path(entry[2].lstrip("/"))
        if "cpu" in controllers or entry[:2] == ["0", ""]:
            # Version 1 mounts each controller by itself, or cpu with its accounting; version 2 has one tree.
            roots = [mount / "cpu", mount / "cpu,cpuacct"] if "cpu" in controllers else [mount, mount / "unified"]
            folders += [root / part for root in roots for part in (path, *path.parents)]
    return folders


def _quota(folder: Path) -> float | None:
    """CPU seconds per second that the group may use; None without a limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def best_cpu_dtype(features: Set[str]) -> str:
    """The number format that linear layers run fastest in on a CPU with these features.

    Measured in November 2026 with torch 2.13: with AMX, bfloat16 ran at 7 times float32, and int8 no faster than that. On AVX512-VNNI
    without AMX, prepacked bfloat16 linears ran at 0.6 times float32 and int8 at 4 to 5 times.
    """
    if features >= _AMX_BFLOAT16:
        return "bfloat16"
    return "int8" if "avx512_vnni" in features else "float32"


def multiplies_int8(features: Set[str]) -> bool:
    """Whether products of bytes come out right. Without these instructions oneDNN adds pairs of products of an unsigned and a signed byte
    into 16 bits, where the sum may be cut off at 32,767: other numbers than other machines have, without a word."""
    return bool(features & _INT8_FEATURES)
