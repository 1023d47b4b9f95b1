"""Training: a pack of QLoRA trials on one frozen 4-bit base. Needs neither Ray nor Optuna.

session.py    trials on the seats of a pack: evaluations, stability, checkpoints, ends
pack.py       one forward and backward pass for all seats; layout.py and packed_modules.py are its inside
seats.py      one trial's weights, optimizer, schedule; checkpoint.py and adapters.py put it on disk
models.py     the frozen base; memory.py says how many seats fit beside it
data/         records -> token ids with loss masks
config.py     a trial's hyperparameters; messages.py what a session takes and says (both without torch)

The package itself imports nothing, so that a process that only passes messages never waits for torch.
"""
