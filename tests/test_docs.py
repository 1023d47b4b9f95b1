"""Names and files that the documentation quotes exist."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    # What templates print and which layers models have: computed, and compared by tests of their own.
    if page.name not in ("architectures.md", "templates.md", "exports.md", "guidelines.md")
)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"[\w./*-]+\.(?:py|md|yaml|yml|toml|jinja|sh|sbatch|js|css)(?!\w)|(?:[\w.-]+/)+")
DEFINITION = re.compile(r"([\w./]+\.py): ([\w., ]+)")
IDENTIFIER = re.compile(
    r"(?<![\w.-])[A-Za-z_][A-Za-z0-9]*(?:_[A-Za-z0-9]+)+(?![\w-])|\b[A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+\b"
    r"|\b[A-Z]{5,}\b"
)
"""snake_case, CamelCase and CONSTANTS."""
WRITTEN_BY_RUNS = re.compile(
    r"runs/|best/|progress\.json|checkpoints?/|reports?\.|verdict\.|sweep\.ya?ml|trials?[/.]|/tmp|~"
)
OTHERS = {
    # Files of a user, of other programs and of an export.
    *("MODULE.py", "config.yaml", "train.py", "train.yaml", "axolotl.yaml", "training_args.yaml"),
    *("dev/", "dist/", "service/", ".sweeps/"),
    # Names of other programs.
    *("PreemptParameters", "HEAD_SERVICE", "OMP_NUM_THREADS", "arc_easy"),
}


@cache
def tracked() -> tuple[str, ...]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    found = done.stdout.split() if done.returncode == 0 else ()
    return tuple(found) or tuple(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*"))


@cache
def words_of_the_code() -> frozenset[str]:
    texts = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in tracked()
        if name.endswith((".py", ".yaml", ".toml", ".jinja", ".sh", ".sbatch", "Makefile", ".js"))
    )
    return frozenset(word for text in texts for word in re.findall(r"[A-Za-z_]\w*", text))


def quoted(page: str) -> list[str]:
    return QUOTED.findall(FENCE.sub("", (ROOT / page).read_text(encoding="utf-8")))


def exists(name: str) -> bool:
    """Whether a tracked file, template or folder ends with these path components; `*` stands for anything."""
    pattern = re.escape(name.rstrip("/")).replace(r"\*", "[^/]*")
    tail = "(/|$)" if name.endswith("/") else r"(\.jinja)?$"
    return any(re.search(rf"(^|/){pattern}{tail}", path) for path in tracked())


@pytest.mark.parametrize("page", PAGES)
def test_quoted_files_exist(page: str) -> None:
    names = [name for span in quoted(page) if "://" not in span for name in FILE.findall(span)]
    wrong = [name for name in names if name not in OTHERS and not WRITTEN_BY_RUNS.search(name)]
    assert [name for name in wrong if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_quoted_identifiers_stand_in_the_code(page: str) -> None:
    names = {name for span in quoted(page) for name in IDENTIFIER.findall(FILE.sub("", span))}
    assert sorted(names - OTHERS - words_of_the_code()) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_definition_stands_in_the_file_that_is_named_with_it(page: str) -> None:
    missing = []
    for span in quoted(page):
        if found := DEFINITION.fullmatch(span):
            file, names = found[1], re.findall(r"\w+", found[2])
            defined = {
                name
                for path in tracked()
                if path == file or path.endswith(f"/{file}")
                for name in definitions(ROOT / path)
            }
            missing += [f"{file}: {name}" for name in names if name not in defined]
    assert missing == []


def subject(page: str) -> str:
    """The folder that a page of docs/architecture is about."""
    return page.removeprefix("docs/architecture/").removesuffix(".md").removesuffix("/README")


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/architecture/")])
def test_a_file_named_without_its_folder_is_in_the_folder_of_the_page(page: str) -> None:
    """`record.py` on the page of one folder must not mean the file of another."""
    folders = {subject(page), *re.findall(r"^\| `([\w/]+)/\w+\.py`", (ROOT / page).read_text(), re.MULTILINE)}
    here = {Path(path).name for path in tracked() if any(path.startswith(f"{one}/") for one in folders)}
    names = {name for span in quoted(page) for name in re.findall(r"(?<![\w./*-])\w+\.py(?!\w)", span)}
    assert sorted(names - here - OTHERS) == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/architecture/")])
def test_a_page_of_a_folder_names_all_of_its_files(page: str) -> None:
    """A page's table of files is the whole of the folder that it is about."""
    listed = re.findall(r"^\| `([\w/]+\.py)`", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    own = subject(page)
    folders = {Path(name).parent.as_posix() for name in listed if "/" in name} or {own}
    files = {
        path if folders != {own} else Path(path).name
        for path in tracked()
        if path.endswith(".py") and Path(path).parent.as_posix() in folders
    }
    assert sorted(files - {path for path in files if path.endswith("__init__.py")}) == sorted(listed)


def test_every_folder_with_code_has_its_page() -> None:
    pages = " ".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    own = {
        page.removeprefix("docs/architecture/").removesuffix(".md").removesuffix("/README") for page in PAGES
    }
    packages = ("files_and_text", "search_spaces", "lora_runner", "results", "sweeps")
    folders = {Path(path).parent.as_posix() for path in tracked() if path.endswith("/__init__.py")}
    assert [
        folder
        for folder in sorted(folders)
        if folder.split("/")[0] in packages and folder not in own and f"| `{folder}/" not in pages
    ] == []


@cache
def definitions(file: Path) -> frozenset[str]:
    """Names that a module binds: classes, functions, methods, fields and constants."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return frozenset(found)


def test_what_does_not_exist_is_found() -> None:
    assert all(map(exists, ("docs/metric.md", "docs/", "docs/launch/*.md")))
    assert not any(map(exists, ("sweeps/blueprint.py", "nothing/")))
    assert "NoSuchClassAnywhere"[:11] + "X" not in words_of_the_code()
