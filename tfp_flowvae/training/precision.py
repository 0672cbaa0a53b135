"""Number formats of the networks: float32, or bfloat16 products with float32 weights."""

from __future__ import annotations

from pathlib import Path

PRECISIONS = ("float32", "mixed_bfloat16")

# Of /proc/cpuinfo: what multiplies bfloat16 numbers faster than float32 ones.
_FAST_FLAGS = {"amx_bf16", "avx512_bf16"}


def set_precision(precision: str) -> bool:
    """Sets Keras's policy for the layers to come, and says whether XLA serves that precision.

    Flows, densities and sums over pixels stay in float32 under either. XLA on a processor has no
    fast product of bfloat16 matrices, while TensorFlow's own kernels have: there a step runs as a
    plain graph.

    Args:
      precision: One of `PRECISIONS`.

    Returns:
      Whether to compile with XLA.
    """
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(precision)
    accelerated = bool(tf.config.list_physical_devices("GPU"))
    return precision == "float32" or accelerated


def precision_warning(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """One line if this machine gains nothing from `precision`, else None."""
    import tensorflow as tf

    if precision == "float32" or tf.config.list_physical_devices("GPU"):
        return None
    flags = _processor_flags(cpuinfo)
    if flags is None or flags & _FAST_FLAGS:
        return None
    return (
        f"--precision {precision} is slower than float32 on this processor, which has neither AMX "
        "nor AVX512-BF16."
    )


def _processor_flags(cpuinfo: Path) -> set[str] | None:
    """What the processor can do, or None where the system does not say."""
    if not cpuinfo.exists():
        return None
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return None
