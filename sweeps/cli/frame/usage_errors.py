"""What is wrong with a command line, in one line: the rule, the value, the nearest name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from files_and_text.nearest_name import did_you_mean, similar
from sweeps.cli.frame.command_help import shown_name

_RULES = {
    "int_parsing": "a whole number",
    "float_parsing": "a number",
    "bool_parsing": "true or false",
}
"""Kinds of pydantic's errors, with which Typer reads values."""


def usage_message(error: Any, words: Sequence[str]) -> str:
    """The line for an error that Typer raised while it read `words`, the command line."""
    command = " ".join(["sweeps", *words[:1]]) if error.ctx is None else error.ctx.command_path
    if (option := getattr(error, "option_name", None)) is not None:
        return _about_option(error, option, command)
    param = getattr(error, "param", None)
    if param is not None and hasattr(error, "param_type"):  # none was given
        return f"{command} needs {shown_name(param)}{f': {param.help}' if param.help else ''}"
    if param is not None:
        return f"{command}: {_about_value(error, param)}"
    text = str(error.message)
    if text.startswith("there is no"):
        return text
    if text.startswith("Got unexpected extra argument"):
        extra = text.partition("(")[2].removesuffix(")").removeprefix("s) (")
        return f"{command} takes no further argument; got {extra!r}. `{command} --help` shows what it takes"
    return f"{command}: {text[:1].lower()}{text[1:]}"


def _about_option(error: Any, option: str, command: str) -> str:
    if not hasattr(error, "possibilities"):
        return f"{command}: {option} needs a value; `{command} --help` shows which"
    known = [name for param in error.ctx.command.get_params(error.ctx) for name in param.opts]
    options = [name for name in known if name.startswith("-")]
    found = did_you_mean(option, options)
    if not found and "--set" in options:
        found = _key_of_sweep_file(option)
    found = found or f" `{command} --help` lists its options."
    return f"{command} has no option {option!r}.{found}"


def _key_of_sweep_file(option: str) -> str:
    """` Did you mean '--set trials=...'?`, where the option is like a key of the sweep file; else ""."""
    from sweeps.config import SweepConfig

    key = similar(option.lstrip("-"), SweepConfig.model_fields)
    return "" if key is None else f" Did you mean '--set {key}=...'?"


def _about_value(error: Any, param: Any) -> str:
    name = shown_name(param).split(" ")[0]
    cause = getattr(error.__cause__, "errors", None)
    if cause is None:
        return f"{name}: {error.message}"
    found = cause()[0]
    limits = found.get("ctx") or {}
    rule = _RULES.get(found["type"])
    if rule is None and "ge" in limits:
        rule = f"at least {limits['ge']}"
    if rule is None and "le" in limits:
        rule = f"at most {limits['le']}"
    if rule is None:
        return f"{name}: {found['msg']}"
    return f"{name} is {rule}; got {found['input']!r}"
