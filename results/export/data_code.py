"""The sweep's own data code beside a training script, so that it makes the tokens that the trials trained on.

`lora_runner.data` is read as text from where it is installed and never imported: a package of its own in the
export, with its imports renamed. The modules of `files_and_text` that it imports travel with it.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from results.errors import ExportError

PACKAGE = "qlora_data"
_RUNNER, _GROUND = "lora_runner", "files_and_text"
_CARRIED = (rf"{_RUNNER}\.data\b", rf"{_RUNNER}\.(data_spec|errors)\b", rf"{_GROUND}\.\w+")
_HEAD = (
    "# {source} of qlora-sweeps: the code that the trials' data went through. Only its imports are renamed.\n"
)


@functools.cache
def data_code() -> Mapping[str, str]:
    """Path in the export -> text of the modules that turn records into token ids and labels.

    Raises ExportError when the runner is not installed, or when its data code imports other modules of the
    project than its own, `data_spec`, `errors` and `files_and_text`.
    """
    runner, ground = _folder(_RUNNER), _folder(_GROUND)
    waiting = [*(runner / "data").rglob("*.py")]
    texts: dict[Path, str] = {}
    while waiting:
        file = waiting.pop()
        if file in texts:
            continue
        texts[file] = file.read_text(encoding="utf-8")
        for top, module, *_ in (name.split(".") for name in _imports(texts[file])):
            if top == _GROUND:
                waiting += [ground / "__init__.py", ground / f"{module}.py"]
            elif module in ("data_spec", "errors"):
                waiting.append(runner / f"{module}.py")
    carried = {}
    for file in sorted(texts):
        package = runner if runner in file.parents else ground
        source = f"{package.name}/{file.relative_to(package).as_posix()}"
        name = re.sub(rf"^{_RUNNER}/(data/)?", "", source)
        carried[f"{PACKAGE}/{name}"] = renamed(texts[file], source)
    return carried


def renamed(text: str, source: str) -> str:
    """The text of the project's module `source` as a module of the export; ExportError as above."""
    for name in _imports(text):
        if not any(re.match(carried, name) for carried in _CARRIED):
            raise ExportError(f"{source} imports {name}, which a training script does not carry along")
    text = re.sub(rf"\b{_RUNNER}\.data\b", PACKAGE, text)
    text = re.sub(rf"\b{_RUNNER}\.(data_spec|errors)\b", rf"{PACKAGE}.\1", text)
    text = re.sub(rf"\b{_GROUND}\.", f"{PACKAGE}.{_GROUND}.", text)
    return _HEAD.format(source=source) + text


def _imports(text: str) -> list[str]:
    """The modules of the runner and of `files_and_text` that a module imports, in functions too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return [name for name in names if name.split(".")[0] in (_RUNNER, _GROUND)]


def _folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ExportError(
            f"a training script carries the data code of {package}, which is not installed here"
        )
    return Path(found.submodule_search_locations[0])
