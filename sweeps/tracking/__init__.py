"""One run per trial in TensorBoard, MLflow or Weights & Biases, by request.

A tracker reads the study like any other reader and is in nobody's way: neither the keeper nor a worker knows
of it. Whatever it does it does again without harm, and a second time changes nothing.

record.py                                            what is told about a trial
tensorboard_runs.py, mlflow_runs.py, wandb_runs.py   to whom
update.py                                            one pass over a sweep
follow.py                                            a process of its own beside a running sweep
"""

from __future__ import annotations

from sweeps.tracking.follow import following
from sweeps.tracking.update import check_installed, track

__all__ = ["check_installed", "following", "track"]
