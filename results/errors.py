"""Errors of `results`.

ResultsError
├── NothingToSay       a study without a trial that the question could be answered from
├── DamagedReplicates  a confirm study without arms, or with runs of unknown ones
├── TableError         a published table that cannot be read
├── AdapterFilesError  an adapter folder that is missing, incomplete or damaged
└── ExportError        an export that cannot be written
    ├── UnknownTarget      no target of that name (names the nearest)
    ├── LossyExport        `strict`, and the target cannot express everything
    └── WouldOverwrite     a file of the export already exists
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from files_and_text.problems import ExpectedError


class ResultsError(ExpectedError):
    """Base of everything that `results` raises on purpose."""


class NothingToSay(ResultsError):
    """The study holds no trial that the question could be answered from."""


class DamagedReplicates(ResultsError):
    """A confirm study with missing, unknown or invalid arms or runs."""


class TableError(ResultsError, ValueError):
    """A published table that cannot be read; names the file, and the column or line."""


class AdapterFilesError(ResultsError):
    """An adapter folder without the files peft needs, or with damaged ones."""


class ExportError(ResultsError, ValueError):
    """An export that cannot be written as asked."""


class UnknownTarget(ExportError):
    """No export target of that name."""


class LossyExport(ExportError):
    """A strict export to a target that cannot express the whole config; `lossy` says what."""

    def __init__(self, target: str, lossy: Sequence[str]) -> None:
        self.lossy = list(lossy)
        lines = "\n".join(f"  - {line}" for line in self.lossy)
        super().__init__(
            f"{target} cannot express all of the config, and a strict export was asked for:\n{lines}"
        )


class WouldOverwrite(ExportError):
    """Files that would be written exist already; `paths` names them."""

    def __init__(self, paths: Sequence[Path], *, advice: str = "--overwrite replaces them") -> None:
        self.paths = list(paths)
        shown = ", ".join(str(path) for path in self.paths)
        super().__init__(f"files are not replaced unasked; already there: {shown}. {advice}")
