"""Settings of cuBLAS's workspace: with little of it k is not split, so a row may not depend on the others.

Megatron-LM (`batch_invariant_kernels.py`) sets `:0:0`, vLLM (`batch_invariant.py`) `:16:8` on Hopper and
later; both must be in the environment before a process first multiplies by cuBLAS.
"""

from __future__ import annotations

from collections.abc import Mapping

CUBLAS_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "cublas": {},
    "cublas :0:0": {"CUBLAS_WORKSPACE_CONFIG": ":0:0", "CUBLASLT_WORKSPACE_SIZE": "0"},
    "cublas :16:8": {"CUBLAS_WORKSPACE_CONFIG": ":16:8", "CUBLASLT_WORKSPACE_SIZE": "1"},
}
"""Name of a way -> environment variables; the first is cuBLAS's own default."""
VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "CUBLASLT_WORKSPACE_SIZE")
