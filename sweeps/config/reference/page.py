"""docs/configuration.md: every key of a sweep file, its type, bounds, default and meaning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from search_spaces import DEFAULT_WIDEN, DIMENSION_NAMES, ON_REQUEST
from sweeps.config.reference.keys import REQUIRED, SECTIONS, Key, keys_of, kind_text
from sweeps.config.sections.search import PRUNER_OPTIONS, SAMPLER_OPTIONS
from sweeps.config.sections.training import SCHEDULER_OPTIONS

_HEAD = """\
# The sweep file

Every key, from the classes that check it (`python -m sweeps.config.reference > docs/configuration.md`).
`sweeps init` writes a file that holds all of them, explained and with values for your model and data.
`sweeps schema` prints the same as a JSON schema, with which an editor completes and checks the file;
rules between two values, such as low below high, are checked by `sweeps plan` alone.

- Required are `name`, `model`, `data` and a budget (`training.max_steps` or `training.num_train_epochs`).
- Relative paths start from the file's own folder; in `--set KEY=VALUE` they start from where you are.
- `model: NAME`, `data: FILE` and `metric: NAME` are short for `name:`, `train:` and `name:` below them.
- A default of null means that the program decides, as the meaning says. Keys that end in `_seconds` are in
  seconds.
- A key that does not exist, or a value out of its bounds, is refused with its line and the nearest name that
  exists.
- A worker is a process on one GPU or machine; it holds one base in 4 bits. A seat is a place for one trial
  on it, so that several trials are trained on one base at a time (packed).
"""


def page() -> str:
    """The whole page."""
    parts = [_HEAD, "## At the top of the file\n", _table(keys_of(""))]
    for section in SECTIONS:
        parts += [f"## `{section}`\n", _table(keys_of(section))]
        if section == "training":
            parts += [
                "Arguments of each scheduler (`lr_scheduler_kwargs`):\n",
                _options(SCHEDULER_OPTIONS, "scheduler"),
            ]
        if section == "search":
            parts += [
                "Arguments of each sampler (`sampler_options`):\n",
                _options(SAMPLER_OPTIONS, "sampler"),
            ]
            parts += ["Arguments of each pruner (`pruner_options`):\n", _options(PRUNER_OPTIONS, "pruner")]
    return "\n".join([*parts, "## `space`\n", _space()])


def _table(keys: Iterable[Key]) -> str:
    rows = [(f"`{key.name}`", key.kind, _default(key), key.meaning) for key in keys]
    return _markdown(("key", "value", "default", "meaning"), rows)


def _default(key: Key) -> str:
    if key.default is REQUIRED:
        return "required"
    return "below" if key.path in SECTIONS and key.default else f"`{key.default_text}`"


def _options(options: Mapping[str, Mapping[str, Any]], owner: str) -> str:
    rows = [
        (f"`{name}`", f"`{option}`", kind_text(TypeAdapter(kind).json_schema()))
        for name, types in options.items()
        for option, kind in types.items()
    ]
    without = ", ".join(f"`{name}`" for name, types in options.items() if not types)
    return _markdown((owner, "argument", "value"), rows) + (f"\nNone: {without}.\n" if without else "")


def _space() -> str:
    listed = ", ".join(f"`{name}`" for name in DIMENSION_NAMES)
    asked = ", ".join(f"`{name}`" for name in ON_REQUEST)
    factors = ", ".join(f"`{name}` {factor:g}" for name, factor in DEFAULT_WIDEN.items())
    return f"""\
One mapping per dimension, which replaces the tables' range: `{{low: 1e-5, high: 1e-3}}` (also `log: true` or
`step: N`), `{{choices: [...]}}`, or `{{value: ...}}` for a fixed one. An end that is left out stays the
tables' own. An end that differs from the tables' is yours: no trial goes beyond it, not even when the best
lies there (`search.widen_edges`).

Beside it, `try: [3e-4]` names values to try right after the guideline default, with everything else as there,
and `why: text` says where the range comes from; `sweeps init --from RUN` writes both.

- Dimensions: {listed}.
- Searched only on request, here or in `search.include`: {asked}.
- The tables' ranges are widened on both sides by these factors, which `search.widen` replaces: {factors}.
  Models of up to 8B parameters are searched up to 10 times the tables' highest learning rate.
"""


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)]) + "\n"
