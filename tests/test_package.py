"""What an installation holds: every file of the packages that a program reads, not the code alone."""

from __future__ import annotations

import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_file_of_the_packages_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["*"]
    packages = [name.rstrip("*") for name in settings["packages"]["find"]["include"]]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [path for path in listed.splitlines() if path.split("/")[0] in packages and "/" in path]
    assert any(path.endswith(".svg") for path in files)
    # results/reference holds figures, which no program reads.
    data = [path for path in files if not path.endswith(".py") and not path.startswith("results/reference/")]
    left_out = [path for path in data if not any(fnmatch(Path(path).name, one) for one in patterns)]
    assert left_out == []
    # A folder without __init__.py is no package, so its files go with the one above it only if that is one.
    assert [path for path in files if path.endswith(".py") and not _is_in_package(Path(path))] == []


def _is_in_package(path: Path) -> bool:
    return all((ROOT / folder / "__init__.py").is_file() for folder in path.parents if str(folder) != ".")
