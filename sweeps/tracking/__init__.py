"""One run per trial in TensorBoard, MLflow or Weights & Biases, on request.

Trackers only read the study; neither the keeper nor the workers know of them. Updating a tracker twice
changes nothing the second time.

trial_record.py                                      what is sent about a trial
tensorboard_runs.py, mlflow_runs.py, wandb_runs.py   one file per tracker
update.py                                            bring all trackers up to date once
follow.py                                            a separate process that does so while the sweep runs
"""
