"""Which instructions this processor has: they decide which kernels ONNX Runtime takes, and how those round.

Without int8 dot products (VNNI), ONNX Runtime's kernels for unsigned activations and signed weights saturate in 16
bits: an int8 network is another classifier there, with another certificate (onnxruntime issues 6004, 14642).
"""

from __future__ import annotations

import platform
from functools import lru_cache
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
FEATURES = {
    "avx2": "vectors of 8 floats", "avx512f": "vectors of 16 floats",
    "avx512_vnni": "fast int8", "avx_vnni": "fast int8", "amx_int8": "very fast int8",
    "amx_bf16": "very fast bf16", "asimddp": "fast int8",
}  # fmt: skip
DECISIVE = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "avx512f", "avx2")
"""What decides the kernels, the strongest first."""
FAST_BF16 = ("amx_bf16", "avx512_bf16")
"""With any of these bfloat16 is trained faster than float32 (docs/training-costs.md); without, far slower."""


@lru_cache
def flags() -> frozenset[str]:
    """The processor's flags as Linux names them; empty where it does not say."""
    if not CPUINFO.is_file():
        return frozenset()
    lines = CPUINFO.read_text("utf-8", "replace").splitlines()
    named = [line for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(flag for line in named for flag in line.split(":")[-1].split())


def processor() -> str:
    """The processor's name, as far as it is known."""
    if not CPUINFO.is_file():
        return platform.processor()
    lines = CPUINFO.read_text("utf-8", "replace").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def instruction_set() -> str:
    """The strongest instructions that decide kernels, e.g. `avx512_vnni`; the architecture where none is known."""
    return next((name for name in DECISIVE if name in flags()), platform.machine())


def has_int8() -> bool:
    """Whether int8 products are added up without saturation; True where the processor does not say."""
    return not flags() or any("int8" in FEATURES[name] for name in flags() & set(FEATURES))


def has_fast_bf16() -> bool:
    """Whether networks are trained faster in bfloat16 than in float32."""
    return bool(flags() & set(FAST_BF16))


def why_bf16() -> str:
    """The reason, in words."""
    found = [name for name in FAST_BF16 if name in flags()]
    return f"the processor has {found[0]}" if found else f"the processor has neither {' nor '.join(FAST_BF16)}"
