"""Everything a sweep decides before it starts, and `sweeps plan`, which prints it.

build_blueprint.py   reads model and data, builds the space, estimates what fits (torch)
blueprint.py         the result: specs and estimates
specs.py             what is sent to keeper and workers (no torch)
study_identity.py    identity, context and versions of a new study
trial_config.py      parameters of a trial -> its full configuration
schedule_rules.py    schedules that contradict the space
trained_tokens.py    tokens of train_embeddings -> ids
metric_setup.py      finds and checks the metric
workload.py          the largest workload of a seat
replicate_plan.py    the plan of a confirm study
plan_text.py, time_estimate.py   the text of `sweeps plan`
"""
