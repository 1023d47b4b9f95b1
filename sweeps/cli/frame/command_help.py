"""Help of the command line as plain text that fits the terminal: no boxes, no types, an example."""

from __future__ import annotations

import inspect
import os
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from files_and_text.nearest_name import did_you_mean

_WIDEST = 100
_NAMES = 26
"""Columns for a name; a longer one gets its explanation on the next line."""


class HelpCommand(TyperCommand):
    """A command whose epilog is one or more examples, a line each.

    An argument whose callback returns a function of the command's path gets that function's value.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(command_help(self, ctx))

    def invoke(self, ctx: Any) -> Any:
        # Only now: a default that prints or fails must not come before an error in another argument.
        for name, value in ctx.params.items():
            if callable(value):
                ctx.params[name] = value(ctx.command_path)
        return super().invoke(ctx)


class HelpGroup(TyperGroup):
    """The group of all commands, shown by panel in the order in which people need them."""

    panels: Sequence[tuple[str, Sequence[str]]] = ()
    """Title -> names; a command that stands in none of them comes last."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(group_help(self, ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {name!r}.{did_you_mean(name, self.commands) or _where_listed()}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        ordered = [name for _, names in self.panels for name in names if name in self.commands]
        return [*ordered, *(name for name in self.commands if name not in ordered)]


def command_help(command: Any, ctx: Any) -> str:
    """Usage, what it does, its arguments and options, and an example."""
    arguments = [param for param in command.get_params(ctx) if param.param_type_name == "argument"]
    options = [param for param in command.get_params(ctx) if param.param_type_name == "option"]
    usage = " ".join([ctx.command_path, *(_argument_name(param) for param in arguments), "[OPTIONS]"])
    parts = [f"{_bold('Usage:')} {usage}", _text(command.help)]
    if any(param.help for param in arguments):
        parts.append(
            _listed("Arguments", [(_argument_name(param), _explained(param)) for param in arguments])
        )
    parts.append(_listed("Options", [(_option_name(param), _explained(param)) for param in options]))
    return "\n\n".join([*parts, *_examples(command)]) + "\n"


def group_help(group: HelpGroup, ctx: Any) -> str:
    """What the program does, and a line for each command."""
    parts = [f"{_bold('Usage:')} {ctx.command_path} COMMAND [OPTIONS]", _text(group.help)]
    named = {name for _, names in group.panels for name in names}
    others = [name for name in group.commands if name not in named]
    widest = max(map(len, group.commands))
    for index, (title, names) in enumerate(group.panels):
        is_last = index + 1 == len(group.panels)
        shown = [name for name in (*names, *(others if is_last else ())) if name in group.commands]
        rows = [(f"{name:<{widest}}", first_sentence(group.commands[name])) for name in shown]
        parts.append(_listed(title, rows))
    options = [param for param in group.get_params(ctx) if param.param_type_name == "option"]
    parts.append(_listed("Options", [(_option_name(param), _explained(param)) for param in options]))
    return "\n\n".join([*parts, *_examples(group)]) + "\n"


def first_sentence(command: Any) -> str:
    """The first paragraph of a command's help, in one line."""
    return " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())


def shown_name(param: Any) -> str:
    """An option or argument as it is typed, with its value: `--trials N`, `RUN`."""
    return _option_name(param) if param.param_type_name == "option" else str(param.metavar or param.name)


def _where_listed() -> str:
    return " `sweeps --help` lists them."


def _argument_name(param: Any) -> str:
    name = shown_name(param)
    return name if param.required or param.default is None else f"[{name}]"


def _option_name(param: Any) -> str:
    names = " / ".join([*param.opts, *param.secondary_opts])
    if param.is_flag or param.count:
        return names
    return f"{names} {param.metavar or param.name.upper()}"


def _explained(param: Any) -> str:
    text = str(param.help or "").rstrip(".")
    if param.is_eager:  # Typer's own begin with a capital
        return text[:1].lower() + text[1:]
    if param.required:
        return text if param.param_type_name == "argument" else f"{text} (required)"
    default = param.default
    if default is True and param.secondary_opts:
        return f"{text} (default: {param.opts[0]})"
    has_none = default is None or default == "" or isinstance(default, bool) or callable(default)
    if has_none or "default" in text:
        return text
    return f"{text} (default: {default})"


def _text(help: str | None) -> str:
    paragraphs = inspect.cleandoc(help or "").split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(paragraph.split()), _width()) for paragraph in paragraphs)


def _listed(title: str, items: Sequence[tuple[str, str]], widest: int = _NAMES) -> str:
    names = min(max((len(name) for name, _ in items), default=0), widest)
    lines = [line for name, text in items for line in _lines(name, text, names)]
    return "\n".join([_bold(f"{title}:"), *lines])


def _lines(name: str, text: str, names: int) -> Iterator[str]:
    indent = " " * (names + 4)
    # Neither a word nor a value such as 127.0.0.1:8080 or --no-rows is broken.
    folded = textwrap.wrap(text, _width() - len(indent), break_long_words=False, break_on_hyphens=False)
    if len(name) > names:
        yield f"  {name}"
    else:
        yield f"  {name:<{names}}  {folded[0] if folded else ''}".rstrip()
        folded = folded[1:]
    yield from (indent + line for line in folded)


def _examples(command: Any) -> list[str]:
    lines = inspect.cleandoc(command.epilog or "").splitlines()
    if not lines:
        return []
    title = "Example:" if len(lines) == 1 else "Examples:"
    return ["\n".join([_bold(title), *(f"  {line}" for line in lines)])]


def _bold(text: str) -> str:
    return text if os.environ.get("NO_COLOR") else typer.style(text, bold=True)


def _width() -> int:
    return max(50, min(typer.get_terminal_size().columns, _WIDEST))
