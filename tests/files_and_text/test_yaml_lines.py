"""Reading YAML: the pitfalls of YAML 1.1, lines and limits; reading back what was dumped."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from files_and_text.problems import InputError
from files_and_text.yaml_lines import MAX_ALIASES, MAX_BYTES, dump_yaml, line_of, load_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E-05", 5e-5),
        ("1e3", 1000.0),
        ("2.5e-4", 2.5e-4),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("010", 10),
        ("0x10", 16),
        ("0o17", 15),
        ("1_000", 1000),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("8e99999", "8e99999"),
        ("1e-4x", "1e-4x"),
    ],
)
def test_scalars_are_what_a_reader_takes_them_for(text: str, value: object) -> None:
    data, _ = load_yaml(f"key: {text}\n")
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_pyyaml_alone_reads_the_rate_as_text() -> None:
    # The trap itself: when this fails, PyYAML has changed and the module can be looked at again.
    assert yaml.safe_load("a: 1e-4") == {"a": "1e-4"}


def test_every_key_path_has_its_line() -> None:
    _, lines = load_yaml(
        "# comment\nspace:\n  learning_rate:\n    low: 1e-4\n\n    high: 2\n  list:\n  - a\n  - {b: 1}\n"
    )
    assert lines[("space",)] == 2
    assert lines[("space", "learning_rate", "low")] == 4
    assert lines[("space", "learning_rate", "high")] == 6
    assert lines[("space", "list", 1)] == 9
    assert lines[("space", "list", 1, "b")] == 9


def test_a_missing_key_has_the_line_of_what_should_hold_it() -> None:
    _, lines = load_yaml("a: 1\nspace:\n  x: 1\n")
    assert line_of(lines, ("space", "y", "low")) == 2
    assert line_of(None, ("space",)) is None


def test_duplicate_keys_are_all_named_with_both_lines() -> None:
    with pytest.raises(InputError) as caught:
        load_yaml("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", name="sweep.yaml")
    assert str(caught.value).splitlines() == [
        "sweep.yaml:4: the key 'c' is given twice; first on line 3.",
        "sweep.yaml:5: the key 'a' is given twice; first on line 1.",
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: !!python/object/apply:os.system ['true']\n", 2, "tag"),
        ("a: !local {b: 1}\n", 1, "tag"),
        ("a: &x [*x]\n", 1, "contains itself"),
        ("a: {b: 1}\nc:\n  <<: {b: 2}\n", 3, "merge keys"),
        ("a: 1\ntrue: 2\n", 2, "whole number"),
        ("? [a]\n: 1\n", 1, "a list or mapping"),
        ("a: 1\nb: [1,\nc\n", 2, "not valid YAML"),
        ("a: 1\nb: [1\nc: 2]\nd: 3\n", 3, "not valid YAML"),
        ("a:\n\t- 1\n", 2, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "single document"),
        ("a: 1\nb: \x00\n", 2, "not valid YAML"),
        ("a: 1\nb: " + "[" * 200, 2, "levels deep"),
        ("a: !!int x\n", 1, "is not a int"),
        ("a: " + "9" * 5000 + "\n", 1, "number"),
    ],
)
def test_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_yaml(text)
    assert caught.value.problems[0].line == line


def test_aliases_that_multiply_end_soon() -> None:
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(InputError, match="expanding aliases"):
        load_yaml("\n".join(laughs))
    with pytest.raises(InputError, match=f"more than {MAX_ALIASES} aliases"):
        load_yaml("a: &a 1\nb: [" + "*a, " * (MAX_ALIASES + 1) + "]")


def test_a_plain_alias_works_and_shares_nothing() -> None:
    data, _ = load_yaml("a: &a {x: 1}\nb: *a\n")
    data["a"]["x"] = 2
    assert data["b"] == {"x": 1}


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes("\ufeffa: é\n".encode())
    assert load_yaml(file)[0] == {"a": "é"}
    file.write_text("")
    assert load_yaml(file)[0] is None
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InputError, match="UTF-8") as caught:
        load_yaml(file)
    assert (caught.value.problems[0].path, caught.value.problems[0].line) == (str(file), 2)
    file.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match="at most"):
        load_yaml(file)
    with pytest.raises(InputError, match="does not exist"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        load_yaml(tmp_path)


def test_a_file_name_given_as_text_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="Path"):
        load_yaml("sweep.yaml")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(
        ["1e-4", "no", "on", "0o17", "010", "1_0", "~", "", ".5", "2026-01-01", "1:30", "<<", "=", "8e99999"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@example({"\x85": "\u2028 a \u2029"}, False)
@given(plain, st.booleans())
def test_what_is_dumped_comes_back(data: object, one_line: bool) -> None:
    text = dump_yaml({"a": data}, one_line=one_line)
    assert load_yaml(text)[0] == {"a": data}
    # Others read our files too, most of them by YAML 1.1.
    assert yaml.safe_load(text) == {"a": data}
