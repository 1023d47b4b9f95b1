"""Which part of a training step a GPU's kernel belongs to, by its name.

In a replayed CUDA graph nothing else is known of a kernel: no operation of the host launched it.
"""

from __future__ import annotations

import re
from functools import cache

from benchmarks.harness.processes import ROOT

PRODUCTS, DEQUANTIZATION, LORA = "frozen products", "dequantization", "LoRA"
ATTENTION, LOSS, UPDATE = "attention", "output layer and loss", "update"
COPIES, OTHER, GAPS = "copies and fills", "norms, activations and the rest", "gaps"
PARTS = (PRODUCTS, DEQUANTIZATION, LORA, ATTENTION, OTHER, LOSS, UPDATE, COPIES)

OF_FILES = (
    ("dense_matmul", PRODUCTS),
    ("dequant", DEQUANTIZATION),
    ("lora", LORA),
    ("philox", LORA),
    ("dropout", LORA),
    ("attention", ATTENTION),
    ("adamw", UPDATE),
)
"""Beginnings of the names of this program's files of kernels, or names of their folders; the kernels of all
others are OTHER."""
OF_LIBRARIES = (
    ("kdequantizeblockwise", DEQUANTIZATION),  # bitsandbytes
    ("fmha", ATTENTION),  # torch's memory-efficient attention
    ("_rms_norm_", OTHER),  # Liger
    ("_triton_rope", OTHER),
    ("_swiglu_", OTHER),
    ("_geglu_", OTHER),
)
"""Parts of lower-case names of other programs' kernels."""
DEFINITION = re.compile(r"^@triton\.jit.*\ndef (\w+)\(", re.MULTILINE)


@cache
def own_kernels() -> dict[str, str]:
    """The part of every Triton kernel of this program, by the name of its function."""
    found = {}
    for path in (ROOT / "lora_runner").rglob("*.py"):
        for name in DEFINITION.findall(path.read_text(encoding="utf-8")):
            parts = (
                part for start, part in OF_FILES if path.stem.startswith(start) or path.parent.name == start
            )
            found[name] = next(parts, OTHER)
    return found


def part_of_kernel(name: str) -> str | None:
    """Return the part of a kernel; None if its name does not tell, as of products and elementwise kernels."""
    if name in own_kernels():
        return own_kernels()[name]
    small = name.lower()
    return next((part for word, part in OF_LIBRARIES if word in small), None)
