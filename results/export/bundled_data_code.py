"""The project's data code, copied beside an exported training script, so that it makes the trials' tokens.

The source of `lora_runner.data` is read as text, never imported, and becomes the package `qlora_data` of the
export, with its imports renamed. The modules of `files_and_text` that it imports are copied too.
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
_RUNNER, _TEXT = "lora_runner", "files_and_text"
_BESIDE = "data_spec|errors|hub_files"
"""Modules of `lora_runner` that its data code imports from beside it."""
_ALLOWED_IMPORTS = (rf"{_RUNNER}\.data\b", rf"{_RUNNER}\.({_BESIDE})\b", rf"{_TEXT}\.\w+")
_HEAD = "# {source} of qlora-sweeps: the code that prepared the trials' data. Only its imports are renamed.\n"


@functools.cache
def bundled_data_code() -> Mapping[str, str]:
    """Path in the export -> source of the modules that turn records into token ids and labels.

    Raises ExportError when `lora_runner` is not installed, or when its data code imports anything else of the
    project than itself, `_BESIDE` and `files_and_text`.
    """
    runner, text_package = _folder(_RUNNER), _folder(_TEXT)
    pending = [*(runner / "data").rglob("*.py")]
    texts: dict[Path, str] = {}
    while pending:
        file = pending.pop()
        if file in texts:
            continue
        texts[file] = file.read_text(encoding="utf-8")
        for top, module, *_ in (name.split(".") for name in _imports(texts[file])):
            if top == _TEXT:
                pending += [text_package / "__init__.py", text_package / f"{module}.py"]
            elif module in _BESIDE.split("|"):
                pending.append(runner / f"{module}.py")
    bundled = {}
    for file in sorted(texts):
        package = runner if runner in file.parents else text_package
        source = f"{package.name}/{file.relative_to(package).as_posix()}"
        name = re.sub(rf"^{_RUNNER}/(data/)?", "", source)
        bundled[f"{PACKAGE}/{name}"] = with_renamed_imports(texts[file], source)
    return bundled


def with_renamed_imports(text: str, source: str) -> str:
    """The source of the project's module `source` as a module of the export; raises ExportError as above."""
    for name in _imports(text):
        if not any(re.match(allowed, name) for allowed in _ALLOWED_IMPORTS):
            raise ExportError(f"{source} imports {name}, which is not bundled with a training script")
    text = re.sub(rf"\b{_RUNNER}\.data\b", PACKAGE, text)
    text = re.sub(rf"\b{_RUNNER}\.({_BESIDE})\b", rf"{PACKAGE}.\1", text)
    text = re.sub(rf"\b{_TEXT}\.", f"{PACKAGE}.{_TEXT}.", text)
    return _HEAD.format(source=source) + text


def _imports(text: str) -> list[str]:
    """The modules of `lora_runner` and `files_and_text` that a module imports, in its functions too."""
    names: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return [name for name in names if name.split(".")[0] in (_RUNNER, _TEXT)]


def _folder(package: str) -> Path:
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ExportError(f"a training script needs the data code of {package}, which is not installed here")
    return Path(found.submodule_search_locations[0])
