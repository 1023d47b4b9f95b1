"""Safe YAML with the line of every key, and without the surprises of YAML 1.1.

Read as YAML 1.2 reads: `1e-4` is a float (PyYAML alone gives text), `no` and `on` are text, `010` is ten,
`12:30` and `2026-01-01` are text. Refused with their line: duplicate keys, tags that build objects, merge
keys, aliases that expand without end. Nothing is ever executed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from files_and_text.problems import InputError, Problem

KeyPath = tuple[str | int, ...]
ProblemAt = Callable[[KeyPath, str], Problem]
"""(key, message) -> the problem with the file and line of that key."""
Lines = Mapping[KeyPath, int]

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 40
MAX_ALIASES = 100
MAX_NODES = 100_000  # counted after aliases are expanded: a "billion laughs" file ends here

_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_INT = re.compile(r"^[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F_]+|0o[0-7_]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_PREFIX = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with the YAML 1.2 scalars and limits; its constructors are never called."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own class attribute)

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise yaml.MarkedYAMLError(problem=f"more than {MAX_ALIASES} aliases", problem_mark=mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} levels deep", problem_mark=mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or this module's reader would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """In double quotes where it has one of the line breaks that YAML would change to a space."""
        style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
        node: yaml.ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", text, style=style)
        return node


_Dumper.add_representer(str, _Dumper.represent_text)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(_PREFIX + "bool", _BOOL, list("tTfF"))
    _class.add_implicit_resolver(_PREFIX + "int", _INT, list("-+0123456789"))
    _class.add_implicit_resolver(_PREFIX + "float", _FLOAT, list("-+0123456789."))
    _class.add_implicit_resolver(_PREFIX + "null", _NULL, ["~", "n", "N", ""])


def load_yaml(source: Path | str, *, name: str | None = None) -> tuple[Any, dict[KeyPath, int]]:
    """Read one YAML document; return its data and the line of every key path and list item.

    `source`: a `Path` is read as a UTF-8 file, a `str` is the text itself (then errors give `name` as the
    file). Lines count from 1: `lines[("space", "learning_rate", "low")]`, `lines[("files", 0)]`.
    Keys are text or whole numbers. An empty document is None. Raises InputError with all problems found.
    """
    if isinstance(source, Path):
        name = name or str(source)
        text = _read(source, name)
    else:
        if "\n" not in source and source.endswith((".yaml", ".yml")):
            raise TypeError(f"load_yaml takes a file as a Path; text was given: {source!r}")
        text = source
        if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise InputError([Problem(f"a YAML document is at most {MAX_BYTES} bytes.", name)])
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark and error.context_mark and mark.index >= len(text.rstrip()):
            # YAML notices an unclosed bracket or quote at the end of the file; the mistake is where it opens.
            mark = error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark else None
        raise InputError([Problem(f"not valid YAML: {reason}.", name, line)]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError([Problem(f"not valid YAML: {error.reason}.", name, line)]) from None
    if node is None:
        return None, {(): 1}
    builder = _Builder(name)
    data = builder.build(node, (), node.start_mark.line + 1)
    if builder.problems:
        raise InputError(builder.problems)
    return data, builder.lines


def line_of(lines: Lines | None, path: KeyPath) -> int | None:
    """The line of `path`, or of the nearest enclosing key when it has none itself (a missing key)."""
    if lines is None:
        return None
    for length in range(len(path), -1, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def dotted(path: KeyPath) -> str:
    """("data", "train") as data.train, list items as guidelines[0], the whole input as ""."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) and text else f"{'.' if text else ''}{key}"
    return text


def dump_yaml(data: Any, *, one_line: bool = False) -> str:
    """YAML text that `load_yaml` (and any YAML 1.1 reader) reads back to the same data, keys in order."""
    width = math.inf if one_line else 110
    text: str = yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=width,
        default_flow_style=one_line,
    )
    return text.rstrip("\n") if one_line else text


def _read(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError([Problem("the file does not exist.", name)]) from None
    except OSError as error:
        raise InputError([Problem(f"the file cannot be read: {error.strerror or error}.", name)]) from None
    if len(raw) > MAX_BYTES:
        raise InputError([Problem(f"a YAML file is at most {MAX_BYTES} bytes.", name)])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError([Problem("the file is not UTF-8 text.", name, line)]) from None


class _Builder:
    """Turns composed nodes into plain data, collecting lines and problems."""

    def __init__(self, name: str | None) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[Problem] = []
        self._name = name
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: KeyPath, line: int) -> Any:
        """`line` is the key's own line (or the item's), not the value's."""
        self._count += 1
        if self._count > MAX_NODES:
            message = f"more than {MAX_NODES} values after expanding aliases."
            raise InputError([Problem(message, self._name, line)])
        if id(node) in self._open:
            self._add("an alias contains itself.", node)
            return None
        self.lines[path] = line
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, "seq")
                items = enumerate(node.value)
                return [self.build(item, (*path, index), item.start_mark.line + 1) for index, item in items]
            assert isinstance(node, yaml.MappingNode)
            return self._mapping(node, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str | int, Any]:
        self._check_tag(node, "map")
        result: dict[str | int, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            plain = isinstance(key_node, yaml.ScalarNode) and key_node.style is None
            if key == "<<" and plain:
                self._add("merge keys (<<) are not read; write the keys out.", key_node)
                continue
            if isinstance(key, bool) or not isinstance(key, str | int):
                shown = repr(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
                self._add(f"a key must be text or a whole number; got {shown} (quote text).", key_node)
                continue
            if key in result:
                first = self.lines[(*path, key)]
                self._add(f"the key {key!r} is given twice; first on line {first}.", key_node)
                continue
            result[key] = self.build(value_node, (*path, key), line)
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_PREFIX)
        try:
            if kind == "str":
                return text
            if kind == "null" and _NULL.match(text):
                return None
            if kind == "bool" and _BOOL.match(text):
                return text.lower() == "true"
            if kind == "int" and _INT.match(text):
                digits = text.replace("_", "")
                return int(digits, 0) if "x" in digits or "o" in digits else int(digits)
            if kind == "float" and _FLOAT.match(text):
                special = text.lower().lstrip("-+").startswith((".inf", ".nan"))
                value = float(text.replace("_", "").replace(".", "", 1) if special else text.replace("_", ""))
                # "8e12345" is more often a commit than a number beyond all floats.
                return text if math.isinf(value) and not special else value
        except ValueError:
            self._add(f"{text[:40]!r} is not a number that can be read.", node)
            return None
        if kind in ("null", "bool", "int", "float"):
            self._add(f"{text[:40]!r} is not a {kind}.", node)
        else:
            self._add(f"the tag {node.tag!r} is not read; only plain values are.", node)
        return None

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != _PREFIX + kind:
            self._add(f"the tag {node.tag!r} is not read; only plain values are.", node)

    def _add(self, message: str, node: yaml.Node) -> None:
        self.problems.append(Problem(message, self._name, node.start_mark.line + 1))
