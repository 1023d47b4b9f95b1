"""The stages of a start."""

from __future__ import annotations

import pytest

from sweeps.study.stages import Stages
from sweeps.study.status import Stage


def test_open_stages_are_listed_with_what_is_done_and_how_long_it_takes() -> None:
    now, begun = [10.0], list[Stage]()
    stages = Stages(begun.append, clock=lambda: now[0])
    with stages.stage("starting Ray"):
        now[0] += 2
        with stages.stage("loading the base", total=8, unit="weights") as set_done:
            set_done(3)
            now[0] += 1
            assert stages.now() == [
                Stage(name="starting Ray", seconds=3.0),
                Stage(name="loading the base", done=3, total=8, unit="weights", seconds=1.0),
            ]
            set_done(4, 16)
            assert stages.now()[1].total == 16
        assert [stage.name for stage in stages.now()] == ["starting Ray"]
    assert stages.now() == []
    assert [stage.name for stage in begun] == ["starting Ray", "loading the base"]


def test_a_stage_that_fails_has_ended() -> None:
    stages = Stages()
    with pytest.raises(ValueError, match="no"), stages.stage("planning"):
        raise ValueError("no")
    assert stages.now() == []
