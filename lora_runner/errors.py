"""Errors of a training run that a caller can act on.

RunnerError
├── DataError          a record, file or tokenizer that cannot be trained on (names file and line)
├── ModelError         a base model that cannot be loaded or trained in a pack
├── TrialConfigError   a trial's hyperparameters contradict each other
├── MetricError        a metric that cannot be loaded, or returns no number
├── DeviceError        a device named for a plan that is not known
├── CertificateError   a file that is no certificate, or one of another version
└── CheckpointError    a checkpoint that is damaged or belongs to another trial
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from files_and_text.problems import ExpectedError


class RunnerError(ExpectedError):
    """Base of the errors of `lora_runner`."""


class DataError(RunnerError, ValueError):
    """Training data that breaks a rule; `str()` is "FILE:LINE: message"."""

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None) -> None:
        self.message = message
        self.path = None if path is None else str(path)
        self.line = line
        location = "" if self.path is None else f"{self.path}:{'' if line is None else f'{line}:'} "
        super().__init__(f"{location}{message}")


class ModelError(RunnerError, ValueError):
    """A base model that cannot be loaded, quantized or packed."""


class TrialConfigError(RunnerError, ValueError):
    """Hyperparameters of a trial that break a rule."""


class MetricError(RunnerError, ValueError):
    """A metric that cannot be loaded, or its invalid result; `known` are names that exist."""

    def __init__(self, message: str, *, file: str = "", known: Sequence[str] = ()) -> None:
        self.file, self.known = file, tuple(known)
        super().__init__(message)


class DeviceError(RunnerError, ValueError):
    """The name or memory of a GPU that is not known."""


class CertificateError(RunnerError, ValueError):
    """A certificate that is damaged, of another format, or no certificate at all."""


class CheckpointError(RunnerError):
    """A checkpoint that is damaged, incomplete or from another trial."""


_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM}


def is_disk_trouble(error: BaseException) -> bool:
    """Whether a disk is full, unreachable or read-only: temporary trouble rather than a bug."""
    if isinstance(error, OSError):
        return error.errno in _DISK
    # safetensors writes files itself and passes on only the system's message.
    return type(error).__name__ == "SafetensorError" and "os error" in str(error)


def is_device_error(error: BaseException) -> bool:
    """Whether CUDA itself failed, so that this process cannot compute any more."""
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)


@dataclass(frozen=True)
class Fault:
    """An error as text: the exception would keep the memory of its frames."""

    reason: str
    traceback: str
    is_memory: bool

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """From an exception; recognised by its name, because callers may not import torch."""
        is_memory = type(error).__name__ == "OutOfMemoryError"
        reason = first_line(error) if is_memory else f"{type(error).__name__}: {first_line(error)}"
        return cls(reason, "".join(traceback.format_exception(error)), is_memory)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if there is none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
