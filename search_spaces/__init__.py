"""What to try and why: guideline tables turned into a search space that names its sources."""

from __future__ import annotations

from search_spaces.build import ON_REQUEST, space_for
from search_spaces.dimension import Dimension
from search_spaces.disagree import Disagreement, disagreements
from search_spaces.drafts import DEFAULT_WIDEN
from search_spaces.errors import InputError, Problem
from search_spaces.first_trials import DEFAULT_LABEL, MOVED_LABEL
from search_spaces.names import nearest
from search_spaces.render import commented_space_yaml, guidelines_page
from search_spaces.rows import (
    DIMENSION_NAMES,
    METHODS,
    SCHEDULERS,
    SCHEDULERS_WITHOUT_WARMUP,
    GuidelineRow,
    Source,
    When,
)
from search_spaces.space import FirstTrial, SearchSpace
from search_spaces.tables import Guidelines, load_guidelines
from search_spaces.yaml_lines import KeyPath, Lines, dump_yaml, line_of, load_yaml

__all__ = [
    "DEFAULT_LABEL",
    "DEFAULT_WIDEN",
    "DIMENSION_NAMES",
    "METHODS",
    "MOVED_LABEL",
    "ON_REQUEST",
    "SCHEDULERS",
    "SCHEDULERS_WITHOUT_WARMUP",
    "Dimension",
    "Disagreement",
    "FirstTrial",
    "GuidelineRow",
    "Guidelines",
    "InputError",
    "KeyPath",
    "Lines",
    "Problem",
    "SearchSpace",
    "Source",
    "When",
    "commented_space_yaml",
    "disagreements",
    "dump_yaml",
    "guidelines_page",
    "line_of",
    "load_guidelines",
    "load_yaml",
    "nearest",
    "space_for",
]
