"""The program measured beside its peers, both in one run; `make bench` runs all of it.

Each file here is a command, `python -m benchmarks.NAME`; the folders hold their parts.

sweep.py          trials per hour of a whole sweep, beside Ray Tune + OptunaSearch + Trainer + peft
step.py           a pack's training step, beside as many peft steps in turn
floor.py          where a step's time goes, and the least time that the hardware allows
update.py         clipping and AdamW, beside torch's and bitsandbytes' optimizers
filling.py        seconds to fill the seats of a pack
generation.py     answers with a key-value cache and without
side_by_side.py   trials per hour of one device, beside one peft process per trial
orchestration.py  cost of a trial without training, beside Ray Tune + OptunaSearch + ASHA
launches.py       kernels of a decoder layer, counted without a GPU
confirmations.py  wrong, undecided and lost words of simulated confirmations whose truth is known
search.py         regret of samplers and pruners at equal compute, on simulated sweeps
scale.py          the keeper and the fleet at many seats and finished trials
gpu.py            the tests and benchmarks that need a CUDA device
"""
