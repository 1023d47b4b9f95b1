"""Training: a pack of QLoRA trials on one frozen 4-bit base. Needs neither Ray nor Optuna.

session.py    trials on the seats of a pack: evaluations, stability, checkpoints, ends
pack.py       one forward and backward pass for all seats, and their update; its inside:
              layout.py, pack_attention.py (where tokens lie), replace.py, packed_modules.py,
              packed_embeddings.py, products.py, dropout.py (what the base's modules become)
seats.py      one trial's weights, schedule, counters; checkpoint.py and adapters.py put it on disk
arena.py      the flat buffers of all seats; update.py clips and steps them (kernels.py, states_8bit.py)
models.py     the frozen base; memory.py says how many seats fit beside it
data/         records -> token ids with loss masks
config.py     a trial's hyperparameters; messages.py what a session takes and says (both without torch)

The package itself imports nothing heavy, so that a process that only passes messages never waits for torch.
"""

from __future__ import annotations

import logging


def _is_news(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.getMessage()


# bitsandbytes warns on import that an optional package with a CPU kernel for inference is absent. A pack
# never calls that kernel: it dequantises and multiplies itself, in the compute dtype. Here because
# transformers and peft import bitsandbytes as well, so no other place is sure to come before them.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_news)
