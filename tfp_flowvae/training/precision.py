"""Number formats of the networks: float32, or bfloat16 products with float32 weights."""

from __future__ import annotations

from pathlib import Path

PRECISIONS = ("float32", "mixed_bfloat16")

# Flags in /proc/cpuinfo of processors that multiply bfloat16 faster than float32.
_FAST_FLAGS = {"amx_bf16", "avx512_bf16"}


def set_precision(precision: str) -> bool:
    """Sets Keras's policy for new layers, and returns whether to compile with XLA.

    Flows, densities and sums over pixels are computed in float32 under both policies. On a
    processor XLA has no fast product of bfloat16 matrices, but TensorFlow's own kernels have, so a
    step then runs without XLA.

    Args:
      precision: One of `PRECISIONS`.

    Example:
      >>> compiles = set_precision("mixed_bfloat16")
      >>> keras.layers.Dense(8).compute_dtype
      'bfloat16'
      >>> set_precision("float32")  # the default
      True
    """
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(precision)
    accelerated = bool(tf.config.list_physical_devices("GPU"))
    return precision == "float32" or accelerated


def precision_warning(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Returns a warning if `precision` is slow on this machine, else None."""
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
    """The processor's flags; None if the system does not list them."""
    if not cpuinfo.exists():
        return None
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.partition(":")[2].split())
    return None
