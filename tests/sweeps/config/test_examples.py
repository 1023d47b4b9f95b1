"""Every example is a sweep file that loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sweeps.config import load_sweep, load_text, resolved, space_of

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def test_there_are_examples() -> None:
    assert {
        "minimal.yaml",
        "exact-match.yaml",
        "llama-3.1-8b-one-gpu.yaml",
        "llama-3.1-8b-multi-gpu.yaml",
    } <= {p.name for p in EXAMPLES}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_an_example_loads(file: Path, tmp_path: Path) -> None:
    config = load_sweep(file, environ={})
    assert config.name == file.stem
    assert "learning_rate" in space_of(config, model_size=1.2e9)
    (tmp_path / "sweep.yaml").write_text(resolved(config))
    assert load_sweep(tmp_path / "sweep.yaml", environ={}) == config


def test_the_page_on_searching_with_learning_curves_has_a_block_that_loads(tmp_path: Path) -> None:
    [block] = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs/search.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    head = "name: mine\nmodel: some/model\ndata: {train: train.jsonl}\n"
    max_steps = block.replace("training:\n", "training:\n  max_steps: 20\n")
    config = load_text(head + max_steps, tmp_path / "sweep.yaml")
    assert (config.search.sampler, config.search.pruner) == ("curve_gp", "freeze_thaw")
