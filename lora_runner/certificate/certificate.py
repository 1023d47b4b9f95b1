"""A certificate: which ways to compute are invariant on a machine, how fast they are, and which is chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write_json
from lora_runner.certificate.device_facts import DeviceFacts
from lora_runner.certificate.model_sizes import ModelSizes
from lora_runner.errors import CertificateError, first_line

FORMAT = 2
"""Of the file; other formats are refused."""
PROCESS = "process"
"""The case of a check whose process ended or hung."""
KINDS = {
    "products": "frozen products",
    "adapters": "LoRA adapters",
    "attention": "attention",
    "norms": "norms",
    "rotary": "rotary embeddings",
    "activations": "activations",
    "output": "log-softmax and cross entropy of the output layer",
    "update": "the optimizer's update",
}
"""Kinds of computations, each with several ways to compute it -> in words."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One way of computing one case, with what was found."""

    kind: str
    way: str
    case: str
    """Direction and sizes, such as "forward 4096 to 1024"."""
    comparisons: int
    """How often a trial's results in some company were compared with those alone."""
    difference: str | None = None
    """The first result that was not the same bits, or the error that was raised; None where all were."""
    error: float | None = None
    """Relative error of the results alone against float64; None where nothing was computed."""
    milliseconds: float | None = None
    """Of one call, the median of several."""
    speed: float | None = None
    unit: str = ""
    """Of `speed`: TFLOP/s or GB/s."""
    rows: int = 0
    """Of the highest pass that was compared."""
    not_computed: str | None = None
    """Why a model never computes this case by this way, in words; nothing was computed then."""

    @property
    def may_pass_again(self) -> bool:
        """Whether it failed for want of memory or of a process, which says nothing about the way."""
        return self.case == PROCESS or "OutOfMemoryError" in (self.difference or "")

    @property
    def is_invariant(self) -> bool:
        """Whether a trial's results are the same bits alone and in any company that was tried."""
        return self.difference is None and self.comparisons > 0


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The fastest invariant way of one kind."""

    kind: str
    way: str | None
    """None: no way is invariant."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was found on one machine for a model's layer sizes."""

    device: DeviceFacts
    sizes: ModelSizes
    dtype: str
    """Of the computations, such as bfloat16."""
    code: str
    """Digest of this program's code that was checked."""
    made_at: str
    """ISO 8601, in UTC."""
    seconds: float
    """How long it took."""
    seed: int
    """Repeats the random inputs."""
    checks: tuple[Check, ...]
    choices: tuple[Choice, ...]

    @property
    def file_name(self) -> str:
        """Beside a run, which may have workers on several kinds of devices."""
        return f"certificate-{self.device.file_stem}.json"

    @property
    def is_good(self) -> bool:
        """Whether every kind has an invariant way."""
        return all(choice.way is not None for choice in self.choices)

    def way_of(self, kind: str) -> str | None:
        """The chosen way of a kind; None if no way is invariant, or the kind was not checked."""
        return next((choice.way for choice in self.choices if choice.kind == kind), None)

    def invariant_ways(self, kind: str) -> list[str]:
        """The invariant ways of a kind, the fastest first."""
        times = _invariant_ways([check for check in self.checks if check.kind == kind])
        return sorted(times, key=lambda way: times[way])

    def failure(self, kind: str, way: str) -> str | None:
        """Why a way must not be taken, in words: what differs, or that it was not checked; None if it may."""
        found = [check for check in self.checks if (check.kind, check.way) == (kind, way)]
        if not found:
            return f"{KINDS.get(kind, kind)} by {way}: not checked on this machine"
        computed = [check for check in found if check.not_computed is None]
        if not computed:
            return f"{KINDS[kind]} by {way}: not computed this way: {found[0].not_computed}"
        for check in computed:
            if not check.is_invariant:
                return (
                    f"{KINDS[kind]} by {way}: not invariant on this machine, {check.case}: {check.difference}"
                )
        return None

    def failures(self) -> list[str]:
        """The first difference of each way that failed."""
        ways = dict.fromkeys((check.kind, check.way) for check in self.checks)
        return [text for kind, way in ways if (text := self.failure(kind, way)) is not None]

    def not_computed(self) -> list[str]:
        """What of the model is not computed by a way that computes the rest, with the reason."""
        cases: dict[tuple[str, str, str], list[str]] = {}
        for check in self.checks:
            if check.not_computed is not None:
                cases.setdefault((check.kind, check.way, check.not_computed), []).append(check.case)
        return [
            f"{KINDS[kind]} by {way}: {', '.join(names)}: not computed this way: {reason}"
            for (kind, way, reason), names in cases.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain builtins, the inverse of `from_dict`."""
        return {"format": FORMAT} | asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "the certificate") -> Certificate:
        """Read what `to_dict` wrote. CertificateError says why `source` is not such a certificate."""
        if not isinstance(values, Mapping) or "format" not in values:
            raise CertificateError(f"{source} is not a certificate of qlora-sweeps")
        if values["format"] != FORMAT:
            raise CertificateError(
                f"{source} has format {values['format']!r}, this version reads format {FORMAT}; "
                "make it again with `sweeps certify`"
            )
        try:
            return cls(
                device=DeviceFacts.from_dict(values["device"]),
                sizes=ModelSizes.from_dict(values["sizes"]),
                checks=tuple(Check(**check) for check in values["checks"]),
                choices=tuple(Choice(**choice) for choice in values["choices"]),
                **{name: values[name] for name in ("dtype", "code", "made_at", "seconds", "seed")},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CertificateError(
                f"{source} is damaged: {type(error).__name__}: {first_line(error)}"
            ) from error

    def write(self, path: Path) -> Path:
        """Write the certificate as JSON, whole or not at all; return `path`."""
        return atomic_write_json(path, self.to_dict())

    @classmethod
    def read(cls, path: Path) -> Certificate:
        """Read a file of `write`. CertificateError says what is wrong with it; OSError as by `open`."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CertificateError(f"{path} is not a JSON file: {first_line(error)}") from error
        return cls.from_dict(values, str(path))


def choose(checks: Sequence[Check]) -> tuple[Choice, ...]:
    """The fastest invariant way of each kind that was checked, with the reason."""
    choices = []
    for kind in KINDS:
        found = [check for check in checks if check.kind == kind]
        ways = list(dict.fromkeys(check.way for check in found))
        if not ways:
            continue
        times = _invariant_ways(found)
        failed = [way for way in ways if way not in times]
        not_invariant = f"{' and '.join(failed)} {'is' if len(failed) == 1 else 'are'} not invariant"
        if not times:
            choices.append(Choice(kind=kind, way=None, reason=not_invariant))
            continue
        ranked = sorted(times, key=lambda way: times[way])
        reason = "the only invariant way" if failed else "the only way"
        if len(ranked) > 1:
            share = times[ranked[1]] / times[ranked[0]] if times[ranked[0]] else 1.0
            reason = f"invariant, and {share:.2f} times as fast as {ranked[1]}"
        choices.append(
            Choice(kind=kind, way=ranked[0], reason=f"{reason}; {not_invariant}" if failed else reason)
        )
    return tuple(choices)


def _invariant_ways(checks: Sequence[Check]) -> dict[str, float]:
    """The ways that are invariant in all of their cases, with the milliseconds of those that all compute."""
    times: dict[str, float] = {}
    computed = [check for check in checks if check.not_computed is None]
    failed = {check.way for check in computed if not check.is_invariant}
    not_by_all = {check.case for check in checks if check.not_computed is not None}
    for check in computed:
        if check.way not in failed:
            counted = 0.0 if check.case in not_by_all else check.milliseconds or 0.0
            times[check.way] = times.get(check.way, 0.0) + counted
    return times
