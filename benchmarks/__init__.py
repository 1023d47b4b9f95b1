"""The program beside its peers, measured in one run; `make bench` runs all, each is a module with a main.

sweep.py            trials per hour of a whole sweep, beside Ray Tune + OptunaSearch + Trainer + peft
step.py             a pack's step, beside as many solo peft steps
update.py           clipping and AdamW, beside torch's and bitsandbytes' optimizers
orchestration.py    cost of a trial without training, beside raw Ray Tune + OptunaSearch + ASHA
report.py           tables, figures, machine and versions, on the terminal and in results/reference/
"""
