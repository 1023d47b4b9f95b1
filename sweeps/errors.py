"""The errors that can end a command, each with its exit code; all are `ExpectedError`s.

SweepError
  ConfigError          2  the sweep file or a value on the command line is wrong
  StudyMismatch        2  the study in the storage belongs to another sweep
  StorageUnreachable   2  the storage cannot be opened
  StudyHeld            2  another process is working on the study
  RunFolderError       2  the run folder belongs to another sweep or cannot be used
  ReplayError          2  a trial cannot be trained again: no record, or its base has changed
  PortTaken            2  the dashboard's port is taken
  TrackingNotInstalled 2  the package of a tracker is missing
  TrackingFailed       1  a tracker could not be updated; the sweep is not affected
  SweepFailed          1  the sweep started and could not be completed
    LeaseLost          1  another process has taken over the study
    StartFailed        1  no worker can start: the same error comes every time
      StartRefused     2  the same, caused by the model or the data

Exit code 2 promises that nothing was lost and, except for StartRefused, that nothing was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from files_and_text.problems import ExpectedError, Problem


class SweepError(ExpectedError):
    """Base class: a condition that the user can act on, never a bug."""

    exit_code: ClassVar[int] = 1


class ConfigError(SweepError):
    """All problems of one sweep file, printed one per line as `FILE:LINE: rule and value`."""

    exit_code: ClassVar[int] = 2
    problems: list[Problem]

    def __init__(self, problems: Iterable[Problem | str]) -> None:
        self.problems = [Problem(problem) if isinstance(problem, str) else problem for problem in problems]
        if not self.problems:
            raise TypeError("ConfigError needs at least one problem.")
        # The list must be the exception's own argument to survive pickling between processes.
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class StudyMismatch(SweepError):
    """The storage holds a study of this name with another identity (model, data, space ...)."""

    exit_code: ClassVar[int] = 2


class StorageUnreachable(SweepError):
    """The storage named by the sweep cannot be opened; the message never holds a password."""

    exit_code: ClassVar[int] = 2


class StudyHeld(SweepError):
    """Another live process holds the study's lease; the message names it."""

    exit_code: ClassVar[int] = 2


class RunFolderError(SweepError):
    """The run folder belongs to another sweep, or cannot be written."""

    exit_code: ClassVar[int] = 2


class ReplayError(SweepError):
    """A trial cannot be trained again from its record."""

    exit_code: ClassVar[int] = 2


class PortTaken(SweepError):
    """The port, or every port that was tried, cannot be opened on the loopback interface."""

    exit_code: ClassVar[int] = 2


class TrackingNotInstalled(SweepError):
    """A tracker's package is missing; the message names the command that installs it."""

    exit_code: ClassVar[int] = 2


class TrackingFailed(SweepError):
    """One line per tracker that could not be updated; calling again continues from there."""


class SweepFailed(SweepError):
    """The sweep ran and ended without what was asked for."""


class LeaseLost(SweepFailed):
    """Another process holds the study now; nothing more may be written to it."""


class StartFailed(SweepFailed):
    """No worker can load the base: the error in the message came twice."""


class StartRefused(StartFailed):
    """As `StartFailed`, where the error is caused by the model or the data."""

    exit_code: ClassVar[int] = 2
