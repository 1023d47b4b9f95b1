"""The base without quantization is measured by one worker, once for the study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lora_runner.protocol import UnquantizedBase
from results.sweep_result import Unquantized, read_study
from sweeps.keeper.keeper import Keeper
from sweeps.study.read_status import read_status

Make = Callable[..., Keeper]


def test_one_worker_measures_it_and_no_start_after_that(make_keeper: Make) -> None:
    keeper = make_keeper(measure_unquantized=True)
    assert keeper.rejoin(0).measure_unquantized
    assert not keeper.rejoin(1).measure_unquantized
    keeper.record_unquantized(0, UnquantizedBase(loss=3.5))
    keeper.record_unquantized(1, UnquantizedBase(loss=3.6))
    assert not keeper.rejoin(0).measure_unquantized
    assert read_study(keeper.study).base_unquantized == Unquantized(eval_loss=3.5)
    assert read_status(keeper.study, 8).base_unquantized_loss == 3.5
    keeper.leave()
    resumed = make_keeper(measure_unquantized=True)
    assert not resumed.rejoin(0).measure_unquantized


def test_a_worker_that_dies_while_it_measures_is_not_asked_again(make_keeper: Make) -> None:
    keeper = make_keeper(measure_unquantized=True)
    assert keeper.rejoin(0).measure_unquantized
    assert not keeper.rejoin(0, "its process died").measure_unquantized
    found = read_study(keeper.study).base_unquantized
    assert found == Unquantized(eval_loss=None, reason="worker 0 ended while it measured it")


@pytest.mark.parametrize("wanted", [{}, {"measure_unquantized": False}])
def test_a_sweep_that_does_not_want_it_never_asks(make_keeper: Make, wanted: Any) -> None:
    keeper = make_keeper(**wanted)
    assert not keeper.rejoin(0).measure_unquantized
    assert read_study(keeper.study).base_unquantized is None
