"""Guideline rows, and the search spaces made of them.

guidelines.yaml, rows, read_rows, guidelines      the rows: data, type, reading, all of them by id
disagreements, guidelines_page, __main__          which rows contradict each other; docs/guidelines.md
dimension, search_space                           what a sweep may try
build_space, from_rows/, overrides, first_trials  from the rows and the user's ranges to a search space
space_yaml                                        a search space as the `space:` block of a sweep file
"""

from __future__ import annotations

from search_spaces.build_space import space_for
from search_spaces.dimension import Dimension
from search_spaces.disagreements import Disagreement, disagreements
from search_spaces.first_trials import DEFAULT_LABEL, MOVED_LABEL
from search_spaces.from_rows.on_request import ON_REQUEST
from search_spaces.from_rows.sourced_dimension import DEFAULT_WIDEN
from search_spaces.guidelines import Guidelines, load_guidelines
from search_spaces.guidelines_page import guidelines_page
from search_spaces.rows import (
    DIMENSION_NAMES,
    METHODS,
    GuidelineRow,
    Source,
    When,
)
from search_spaces.search_space import FirstTrial, SearchSpace
from search_spaces.space_yaml import commented_space_yaml

__all__ = [
    "DEFAULT_LABEL",
    "DEFAULT_WIDEN",
    "DIMENSION_NAMES",
    "METHODS",
    "MOVED_LABEL",
    "ON_REQUEST",
    "Dimension",
    "Disagreement",
    "FirstTrial",
    "GuidelineRow",
    "Guidelines",
    "SearchSpace",
    "Source",
    "When",
    "commented_space_yaml",
    "disagreements",
    "guidelines_page",
    "load_guidelines",
    "space_for",
]
