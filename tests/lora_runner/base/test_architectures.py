"""Each architecture trains as with transformers and peft, exactly in a pack, within the predicted memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.lora_runner.base.architectures import ARCHITECTURES
from tests.lora_runner.base.survey import Outcome, page, survey

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[3] / "docs" / "architectures.md"
REFUSED = {"Mamba"}
ESTIMATED = set[str]()
"""Models that cannot run on the meta device."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """More threads only wait for each other on models this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """The outcomes found so far."""
    return {}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture(name: str, tmp_path: Path, outcomes: dict[str, Outcome]) -> None:
    found = outcomes[name] = survey(name, tmp_path)
    assert bool(found.refused) == (name in REFUSED), found.refused
    if found.refused:
        return
    assert found.difference < 1e-4
    assert found.is_exact
    assert found.num_layers > 0
    assert found.num_zero_gradients == 0
    assert (found.memory_source != "peak from a dry run") == (name in ESTIMATED), found.memory_source
    assert 0.95 < found.memory < 1.1


def test_the_page_says_what_was_found(outcomes: dict[str, Outcome]) -> None:
    if set(outcomes) != set(ARCHITECTURES):
        pytest.skip("only some architectures were tried")
    written = "python -m tests.lora_runner.base.survey > docs/architectures.md writes it anew"
    assert PAGE.read_text() == page(outcomes.values()), written
