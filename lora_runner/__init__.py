"""Training of a pack: several QLoRA trials on one frozen 4-bit base. Imports neither Ray nor Optuna.

base/      loads the frozen base, quantized, and finds the modules to train
layout/    arranges the micro-batches of all seats in one forward pass, and caches keys and values
layers/    the modules that replace the base's and compute for several seats at once
optim/     flat buffers of all trained weights, clipping, AdamW and schedules
pack/      the pack itself: seats, training step, evaluation, generation
memory/    predicts the memory of a pack, and so the number of seats
metric/    scores generated answers, beside the loss or instead of it
data/      records -> token ids with loss masks

session.py runs trials on the seats of a pack: running_trial.py is one of them, trial_reports.py evaluates it,
trial_files.py writes its checkpoint.py and adapters.py. config.py, protocol.py, stability.py and errors.py
need no torch.
"""

from __future__ import annotations

import logging

# On import bitsandbytes warns that an optional package with a CPU kernel for inference is missing. A pack
# never calls that kernel. The filter is here because transformers and peft import bitsandbytes as well, and
# nothing is sure to be imported before this module.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in record.getMessage()
)
