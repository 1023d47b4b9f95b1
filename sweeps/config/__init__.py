"""The sweep file: what may stand in it, how it is read, and how it is written down resolved.

sweep.py     SweepConfig, the file as a whole; model.py, training.py, search.py, embeddings.py,
             reliability.py, metric.py: its parts
fields.py    what a single value may be
load.py      file -> config or all problems with their lines (draft.py, files.py, space.py find them)
write.py     config -> resolved file
storage.py   where the study is kept, without its password
"""

from __future__ import annotations

from sweeps.config.load import RESOLVED_NAME, load_sweep, load_text, parse_override, problem_at
from sweeps.config.sections.metric import MetricSection
from sweeps.config.sections.model import DataSection, ModelSection
from sweeps.config.sections.reliability import ReliabilitySection
from sweeps.config.sections.search import SearchSection
from sweeps.config.sections.storage import storage_url
from sweeps.config.sections.training import LoraSection, TrainingSection
from sweeps.config.space import space_of
from sweeps.config.sweep_config import SweepConfig
from sweeps.config.write import resolved

__all__ = [
    "RESOLVED_NAME",
    "DataSection",
    "LoraSection",
    "MetricSection",
    "ModelSection",
    "ReliabilitySection",
    "SearchSection",
    "SweepConfig",
    "TrainingSection",
    "load_sweep",
    "load_text",
    "parse_override",
    "problem_at",
    "resolved",
    "space_of",
    "storage_url",
]
