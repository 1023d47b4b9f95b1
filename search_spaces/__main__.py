"""`python -m search_spaces` prints docs/guidelines.md, which must follow every change of the rows."""

from __future__ import annotations

import sys

from search_spaces.guidelines import load_guidelines
from search_spaces.guidelines_page import guidelines_page

if __name__ == "__main__":
    sys.stdout.write(guidelines_page(load_guidelines()))
