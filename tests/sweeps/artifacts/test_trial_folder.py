"""Reading a trial's folder back: anything but a report of that trial is ignored."""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from lora_runner.protocol import SeatReport
from sweeps.artifacts.trial_folder import read_reports, read_result

FIELDS = sorted(SeatReport.__dataclass_fields__)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
fuzz = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
TRIAL = FrozenTrial(
    number=7,
    trial_id=7,
    state=TrialState.RUNNING,
    value=None,
    datetime_start=datetime(2026, 1, 1),
    datetime_complete=None,
    params={},
    distributions={},
    user_attrs={"folder": "trials/0007", "config_hash": "abc"},
    system_attrs={},
    intermediate_values={},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trials" / "0007").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def values() -> dict[str, Any]:
    report = SeatReport(
        **{"number": 7, "attempt": 1, "percent": 100, "step": 40, "eval_loss": 2.5, "train_loss": 2.0},
        **{"grad_norm": 1.0, "learning_rate": 1e-4, "num_tokens": 5, "tokens_per_second": 1.0},
        **{"wall_seconds": 1.0, "peak_memory_gib": 0.1, "outcome": "complete", "stop_reason": "full budget"},
    )
    return report.to_dict() | {"config_hash": "abc"}


def check(folder: Path, raw: bytes) -> int:
    """How many reports are read from these bytes; each is one that a study can take."""
    trial = folder / "trials" / "0007"
    (trial / "result.json").write_bytes(raw)
    (trial / "reports.jsonl").write_bytes(raw)
    result, reports = read_result(folder, TRIAL), read_reports(folder, TRIAL)
    for report in (*([] if result is None else [result]), *reports):
        assert report.number == 7
        assert type(report.percent) is int
        assert report.eval_loss is None or isinstance(report.eval_loss, float | int)
        json.dumps(report.to_dict())
    assert [report.percent for report in reports] == sorted({report.percent for report in reports})
    return len(reports) + (result is not None)


def test_whole_files_are_read(folder: Path, values: dict[str, Any]) -> None:
    assert check(folder, json.dumps(values).encode()) == 1
    assert check(folder, json.dumps(values | {"outcome": None, "percent": 20}).encode()) == 1


@fuzz
@given(field=st.sampled_from(FIELDS), value=ANYTHING, running=st.booleans())
@example(field="percent", value="20", running=True)
@example(field="percent", value=[20], running=True)
@example(field="outcome", value="gone", running=False)
@example(field="eval_loss", value="2.5", running=False)
@example(field="eval_loss", value=None, running=False)
@example(field="signs", value=[{"a": 1}], running=False)
def test_any_value_in_a_report(
    folder: Path, values: dict[str, Any], field: str, value: Any, running: bool
) -> None:
    way = {"outcome": None, "percent": 20} if running else {}
    line = json.dumps(values | way | {field: value}).encode()
    good = json.dumps(values | {"outcome": None, "percent": 40}).encode()
    check(folder, line)
    assert check(folder, line + b"\n" + good + b"\n") >= 1  # the good line is read beside any other


@fuzz
@given(st.binary(max_size=100), st.randoms(use_true_random=False))
def test_any_bytes_and_damaged_files(
    folder: Path, values: dict[str, Any], raw: bytes, generator: random.Random
) -> None:
    check(folder, raw)
    whole = json.dumps(values).encode()
    at = generator.randrange(len(whole))
    check(folder, whole[:at])
    check(folder, whole[:at] + raw + whole[at + generator.randrange(5) :])


@pytest.mark.parametrize("raw", [b"[" * 100_000, b"1" * 5000, b"null", b"[]", b"\xff\xfe", b""])
def test_what_is_no_report_at_all(folder: Path, raw: bytes) -> None:
    assert check(folder, raw) == 0


def test_a_folder_is_no_file(folder: Path) -> None:
    for name in ("result.json", "reports.jsonl"):
        (folder / "trials" / "0007" / name).mkdir()
    assert (read_result(folder, TRIAL), read_reports(folder, TRIAL)) == (None, [])
