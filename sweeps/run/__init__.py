"""`sweeps run`: train on Ray until the trials are finished, then write the results.

run_sweep.py         the steps of a run in order
run_on_ray.py        start or join Ray, open the keeper, train on the workers, show progress
run_end.py           when a run that ended has failed, and what is said then
result_files.py      the tables, best/, the verdict and the report in the run folder
served_tokenizer.py  the tokenizer for best/, with the chat template of the trials
"""
