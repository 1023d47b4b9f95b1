"""Every example is a sweep file that loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.config import load_sweep, resolved, space_of

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


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
