"""Which worker measures the untouched base without quantization: one of them, once for the study."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from lora_runner.protocol import UnquantizedBase
from sweeps.study.base_check import BASE_UNQUANTIZED, record_unquantized


class UnquantizedMeasurement:
    """Hands the measurement out, and notes where its worker ended before it had a result."""

    def __init__(self, is_wanted: bool, note: Callable[[str], None]) -> None:
        self._is_wanted, self._note = is_wanted, note
        self._worker: int | None = None

    def is_due(self, study: optuna.Study) -> bool:
        """Whether the study lacks it."""
        return self._is_wanted and study.user_attrs.get(BASE_UNQUANTIZED) is None

    def hand_out(self, study: optuna.Study, worker: int) -> bool:
        """Whether this worker, which starts, measures it. Call it in a transaction, while it is due."""
        if self._worker == worker:
            self.record(study, worker, UnquantizedBase(reason=f"worker {worker} ended while it measured it"))
        if self._worker is not None:
            return False
        self._worker = worker
        return True

    def record(self, study: optuna.Study, worker: int, found: UnquantizedBase) -> None:
        """Write a worker's result, or why there is none, into the study; the first one counts."""
        if not self.is_due(study):
            return
        record_unquantized(study, found)
        result = f"not measured: {found.reason}" if found.loss is None else f"{found.loss:.4f}"
        self._note(f"worker {worker}: untouched base without quantization {result}")
