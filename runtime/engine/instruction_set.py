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
    "avx512_bf16": "fast bf16", "amx_bf16": "very fast bf16", "asimddp": "fast int8",
}  # fmt: skip
DECISIVE = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "avx512f", "avx2")
"""What decides the kernels, the strongest first."""
FAST_BF16 = ("amx_bf16", "avx512_bf16")
"""With any of these bfloat16 is trained faster than float32 (docs/training-costs.md); without, far slower."""


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor, by name; empty on other systems."""
    if not CPUINFO.is_file():
        return {}
    lines = (line.partition(":") for line in CPUINFO.read_text("utf-8", "replace").splitlines())
    found: dict[str, str] = {}
    for name, _, value in lines:
        found.setdefault(name.strip(), value.strip())
    return found


@lru_cache
def flags() -> frozenset[str]:
    """The processor's flags as Linux names them; empty where it does not say."""
    found = _cpuinfo()
    return frozenset(f"{found.get('flags', '')} {found.get('Features', '')}".split())


def processor() -> str:
    """The processor's name, as far as it is known."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def features() -> list[str]:
    """The names in `FEATURES` that this processor has."""
    return [name for name in FEATURES if name in flags()]


def described() -> str:
    """The processor and its instructions, as pages of figures name them: `AMD EPYC (avx2, avx512f, avx512_vnni)`."""
    return f"{processor()} ({', '.join(features()) or 'no known vector extensions'})"


def has_amx() -> bool:
    """Whether it has Intel's matrix extensions: int8 networks are so much faster there that figures never mix."""
    return any(name.startswith("amx_") for name in features())


def instruction_set() -> str:
    """The strongest instructions that decide kernels, e.g. `avx512_vnni`; the architecture where none is known."""
    return next((name for name in DECISIVE if name in flags()), platform.machine())


def has_int8() -> bool:
    """Whether int8 products are added up without saturation; True where the processor does not say."""
    return not flags() or any("int8" in FEATURES[name] for name in features())


def has_fast_bf16() -> bool:
    """Whether networks are trained faster in bfloat16 than in float32."""
    return bool(flags() & set(FAST_BF16))


def why_bf16() -> str:
    """The reason, in words."""
    found = [name for name in FAST_BF16 if name in flags()]
    return f"the processor has {found[0]}" if found else f"the processor has neither {' nor '.join(FAST_BF16)}"
