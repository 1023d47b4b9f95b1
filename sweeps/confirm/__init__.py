"""`sweeps confirm`: the best trials, the guideline default and the rows' own values again on new seeds.

A confirmation is a study of its own, run by the same keeper and workers as the sweep; only its trials are
chosen differently: every arm (one configuration) on every seed.

request.py       what the user asked for
arms.py          which configurations are run again
one_rate.py      the arm with one learning rate for LoRA and embeddings, tuned first
study_specs.py   the confirm study, and whether it can continue the one that is there
confirmation.py  the order: check, tune one rate, run all arms
set_aside.py     an earlier confirmation under another name
"""
