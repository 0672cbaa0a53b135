"""Types that several subpackages share."""

from __future__ import annotations

from typing import Any, TypeAlias

TensorLike: TypeAlias = Any
"""Whatever `tf.convert_to_tensor` takes: a tensor, a variable, an array, nested numbers."""
