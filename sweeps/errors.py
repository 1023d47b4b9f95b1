"""Everything that can end a command, and the exit code it ends with.

SweepError
  ConfigError          2  the sweep file, or a value given on the command line, has to be mended
  StudyMismatch        2  the study in the storage belongs to another sweep
  StorageUnreachable   2  the storage cannot be opened
  StudyHeld            2  another sweep is working on the study
  RunFolderError       2  the run folder cannot be used, or belongs to another sweep
  PortTaken            2  the dashboard's port cannot be had
  TrackingNotInstalled 2  a tracker was asked for whose package is missing
  TrackingFailed       1  a tracker could not be brought up to date; the sweep itself is unharmed
  SweepFailed          1  the sweep started and could not be brought to its end
    LeaseLost          1  another sweep took the study over
    StartFailed        1  no worker can start, for an error that comes every time
      StartRefused     2  ... which is about what was given: the model or the data

Exit code 2 promises that nothing was lost and, but for StartRefused, that nothing was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from files_and_text.problems import Problem


class SweepError(Exception):
    """The root: a condition a person can act on, never a bug."""

    exit_code: ClassVar[int] = 1


class ConfigError(SweepError):
    """All problems of one sweep file, printed one per line as `FILE:LINE: rule and value`."""

    exit_code: ClassVar[int] = 2
    problems: list[Problem]

    def __init__(self, problems: Iterable[Problem | str]) -> None:
        self.problems = [Problem(problem) if isinstance(problem, str) else problem for problem in problems]
        if not self.problems:
            raise TypeError("ConfigError needs at least one problem.")
        # The list is the exception's own argument, so that it survives pickling between processes.
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class StudyMismatch(SweepError):
    """The storage holds a study of this name whose identity (model, data, space...) is another."""

    exit_code: ClassVar[int] = 2


class StorageUnreachable(SweepError):
    """The storage named by the sweep cannot be opened; the message never holds a password."""

    exit_code: ClassVar[int] = 2


class StudyHeld(SweepError):
    """Another sweep holds the study's lease and is alive; the message says who."""

    exit_code: ClassVar[int] = 2


class RunFolderError(SweepError):
    """The run folder is another sweep's, or cannot be written."""

    exit_code: ClassVar[int] = 2


class PortTaken(SweepError):
    """The port asked for, or every one that is tried, cannot be opened on the loopback interface."""

    exit_code: ClassVar[int] = 2


class TrackingNotInstalled(SweepError):
    """A tracker's package is missing; the message names the command that installs it."""

    exit_code: ClassVar[int] = 2


class TrackingFailed(SweepError):
    """One line per tracker that could not be brought up to date; calling again goes on from there."""

    exit_code: ClassVar[int] = 1


class SweepFailed(SweepError):
    """The sweep ran and ended without what was asked of it."""

    exit_code: ClassVar[int] = 1


class LeaseLost(SweepFailed):
    """Another sweep holds the study now; nothing more may be written to it."""


class StartFailed(SweepFailed):
    """No worker can load the base: the error is said with its place, and came again at the second try."""


class StartRefused(StartFailed):
    """As `StartFailed`, and the error is about the model or the data."""

    exit_code: ClassVar[int] = 2
