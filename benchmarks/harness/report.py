"""A benchmark's report: tables, one `name: value` line per figure, and the machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from files_and_text.atomic_files import atomic_write, atomic_write_json

FOLDER = Path(__file__).parents[2] / "results" / "reference"
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "triton", "ray", "optuna", "accelerate")


@dataclass
class Report:
    """The result of one benchmark; `fixed` says in a sentence what was the same on both sides."""

    name: str
    fixed: str
    command: str = field(default_factory=lambda: _command())
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Add a table, or replace that of the same title; cells are formatted by `shown`."""
        made = (title, list(columns), [[shown(cell) for cell in row] for row in rows])
        titles = [of for of, _, _ in self.tables]
        if title in titles:
            self.tables[titles.index(title)] = made
        else:
            self.tables.append(made)

    def figure(self, name: str, value: float) -> None:
        """Add a figure, printed at the end as `name: value`."""
        self.figures[name] = value

    def note(self, text: str) -> None:
        """Add a sentence that readers need to interpret the figures."""
        self.notes.append(text)

    def finish(self, *, save: bool) -> None:
        """Print everything; with `save` also save it."""
        print(self._text(machine()), flush=True)
        for name, value in self.figures.items():
            print(f"{name}: {shown(value)}", flush=True)
        if save:
            self.save()

    @contextmanager
    def finished(self, *, save: bool) -> Iterator[None]:
        """Finish after the block, also if it is interrupted or fails: with what was measured until then."""
        try:
            yield
        except KeyboardInterrupt:
            self.note("Interrupted: the rest was not measured.")
        except Exception as error:
            self.note(f"Failed, the rest was not measured: {type(error).__name__}: {error}".splitlines()[0])
            self.finish(save=save)
            raise
        self.finish(save=save)

    def save(self) -> None:
        """Save the report so far in results/reference/, by name and kind of device."""
        about = machine()
        path = FOLDER / f"bench-{self.name}-{'gpu' if 'gpu' in about else 'cpu'}"
        tables = [{"title": t, "columns": c, "rows": r} for t, c, r in self.tables]
        content = {"fixed": self.fixed, "command": self.command, "machine": about, "figures": self.figures}
        atomic_write_json(path.with_suffix(".json"), content | {"notes": self.notes, "tables": tables})
        atomic_write(path.with_suffix(".md"), self._text(about) + "\n")

    def _text(self, about: dict[str, str]) -> str:
        """Return the report in Markdown, with aligned columns for the terminal."""
        lines = [f"# {self.name}", "", self.fixed, "", f"    {self.command}", ""]
        lines.append(", ".join(f"{key} {value}" for key, value in about.items()))
        for title, columns, rows in self.tables:
            widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
            lines += ["", f"## {title}", ""]
            for row in [columns, ["-" * width for width in widths], *rows]:
                cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *(f"- {note}" for note in self.notes), *([""] if self.notes else [])]
        return "\n".join(lines)


def markdown_of(saved: Path) -> str:
    """Return the Markdown of a report that was saved as JSON."""
    content = json.loads(saved.read_text(encoding="utf-8"))
    report = Report(
        name=saved.stem.removeprefix("bench-").rpartition("-")[0],
        fixed=content["fixed"],
        command=content["command"],
        tables=[(table["title"], table["columns"], table["rows"]) for table in content["tables"]],
        notes=content["notes"],
    )
    return report._text(content["machine"]) + "\n"


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--save", action="store_true", help="save the report in results/reference/")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, only to show that it runs")
    return parser


def shown(value: Any) -> str:
    """Format floats with three significant digits, everything else with str."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine() -> dict[str, str]:
    """Return what the figures are valid for: processor, device, load, versions, date."""
    import torch

    about = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        about["gpu"] = f"{properties.name} ({properties.total_memory / 2**30:.0f} GiB)"
    about["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            about[package] = version(package)
        except PackageNotFoundError:
            continue
    return about | {"date": datetime.now(UTC).strftime("%Y-%m-%d")}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _command() -> str:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    script = f"python -m {module.name}" if module is not None else Path(sys.argv[0]).name
    return " ".join([script, *sys.argv[1:]])
