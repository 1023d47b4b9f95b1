"""Whatever a sweep file contains, it is read or refused with FILE:LINE, never with another exception."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from files_and_text.yaml_lines import MAX_BYTES, dump_yaml
from sweeps.config import SweepConfig, load_sweep, load_text
from sweeps.config.sweep_config import SweepConfig as Whole
from sweeps.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent.parent
REAL = [
    *sorted((ROOT / "examples").glob("*.yaml")),
    *sorted((ROOT / "search_spaces").glob("*.yaml")),
]
KEYS = sorted(
    {
        *Whole.model_fields,
        *(
            name
            for field in Whole.model_fields.values()
            for name in getattr(field.annotation, "model_fields", {})
        ),
        *("learning_rate", "low", "high", "value", "choices", "log", "tokens", "size", "name"),
    }
)
SECTIONS = (
    "training",
    "data",
    "search",
    "lora",
    "reliability",
    "space",
    "tracking",
    "model",
    "train_embeddings",
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "auto",
            "qlora",
            "~",
            "../..",
            "/dev/null",
            "journal:x",
            "env:A",
            "\0",
            "{",
            "1e-4",
            "\ud800",
            "{0}",
            "%s",
        ]
    )
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | scalars, inner, max_size=4)
    ),
    max_leaves=12,
)
files = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)
fuzz = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(text: str | bytes, folder: Path) -> SweepConfig | None:
    """The config, or None for a refusal that says where."""
    file = folder / "fuzz.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    try:
        return load_sweep(file, environ={})
    except ConfigError as error:
        problems = error.problems
    assert problems
    for problem in problems:
        assert problem.path is not None, str(problem)
        assert str(problem).startswith(str(problem.path))
        # What is refused as a whole has no line.
        whole = any(said in problem.message for said in ("is at most", "does not exist"))
        assert problem.path != str(file) or problem.line is not None or whole, str(problem)
    return None


@fuzz
@given(files)
def test_files_of_known_keys_with_anything_below_them(tmp_path: Path, data: dict[Any, Any]) -> None:
    read(dumped(data), tmp_path)


@fuzz
@given(st.sampled_from(KEYS), values, st.none() | st.sampled_from(SECTIONS))
def test_one_value_of_a_good_file_replaced_by_anything(
    tmp_path: Path, key: str, value: Any, section: str | None
) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "hello"}\n')
    data: dict[str, Any] = {
        "name": "a",
        "model": {"name": "owner/model", "size": 8e9},
        "data": "train.jsonl",
        "training": {"max_steps": 60},
        "trials": 4,
    }
    read(dumped(data | ({key: value} if section is None else {section: {key: value}})), tmp_path)


@fuzz
@given(st.sampled_from(REAL), st.randoms(use_true_random=False))
def test_real_files_with_bytes_changed_cut_and_doubled(
    tmp_path: Path, file: Path, generator: random.Random
) -> None:
    read(mutated(file.read_bytes()[:4000], generator), tmp_path)


@fuzz
@given(st.text(max_size=200) | st.text("-:[]{}&*!|>'\"#?%@`,~ \n\tab1", max_size=80))
@example("a: &a [*a]")
@example("? ? ?")
@example("%YAML 9.9\n---\n")
@example("!!python/object/apply:os.system [true]")
def test_any_text(tmp_path: Path, text: str) -> None:
    read(text, tmp_path)
    with contextlib.suppress(ConfigError):
        load_text(text, tmp_path / "fuzz.yaml")


@fuzz
@given(st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, raw: bytes) -> None:
    read(raw, tmp_path)


@pytest.mark.parametrize("where", ["", "space: "])
def test_a_file_that_grows_without_end_is_refused_at_once(tmp_path: Path, where: str) -> None:
    laughs = "\n".join(
        [f"a0: &a0 [{'x, ' * 10}]", *(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]" for i in range(1, 9))]
    )
    assert read(f"{laughs}\n{where}*a8\n" if where else laughs, tmp_path) is None
    assert read(f"{where}[{'[' * 5000}", tmp_path) is None
    assert read(f"{where}#" + "x" * MAX_BYTES, tmp_path) is None
    assert read("".join(f"k{i}: 1\n" for i in range(10_000)), tmp_path) is None


def dumped(data: Any) -> str:
    try:
        return dump_yaml(data)
    except (UnicodeEncodeError, ValueError):
        return repr(data)


def mutated(raw: bytes, generator: random.Random) -> bytes:
    """A few faults of the kinds that editors, copies and disks make."""
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(raw) + 1)
        end = min(len(raw), at + generator.randint(1, 30))
        fault = generator.randrange(5)
        if fault == 0:
            raw = raw[:at] + raw[end:]
        elif fault == 1:
            raw = raw[:at] + bytes([generator.randrange(256)]) + raw[at + 1 :]
        elif fault == 2:
            raw = raw[:at] + raw[at:end] + raw[at:]
        elif fault == 3:
            raw = (
                raw[:at]
                + generator.choice([b"[", b"{", b": ", b"\n", b"'", b"&a ", b"*a", b"\t", b"!!x "])
                + raw[at:]
            )
        else:
            raw = raw[: max(1, at)]
    return raw
