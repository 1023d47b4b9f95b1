"""The README's pictures, from a finished run: `python -m tests.pictures runs/demo docs/images`.

`terminal.svg` is what `sweeps run` prints for it at 80 columns, `report.png` the first screen of its report.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.browser import emulated, open_browser

COLUMNS = 80
WIDTH, HEIGHT = 1280, 1100
_THEME = TerminalTheme(
    (250, 250, 248),
    (36, 41, 47),
    [
        *((36, 41, 47), (180, 35, 24), (17, 99, 41), (125, 78, 0)),
        *((9, 105, 218), (130, 80, 223), (27, 124, 131), (110, 119, 129)),
    ],
)


def main() -> None:
    run_folder, images = Path(sys.argv[1]), Path(sys.argv[2])
    terminal_picture(run_folder, images / "terminal.svg")
    report_picture(run_folder / "report.html", images / "report.png")


def terminal_picture(run_folder: Path, image: Path) -> None:
    """What `sweeps run` prints for a finished run, in colour."""
    command = ["sweeps", "run", str(run_folder)]
    printed = subprocess.run(
        [str(Path(sys.executable).parent / "sweeps"), *command[1:]],
        env=os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    console = Console(record=True, width=COLUMNS, file=StringIO())
    console.print(Text(f"$ {' '.join(command)}", style="bold"))
    console.print(Text.from_ansi(printed.rstrip()))
    # Without the fonts that rich would load from the network.
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    picture = console.export_svg(title="qlora-sweeps", theme=_THEME, code_format=form)
    image.write_text(picture, encoding="utf-8")


def report_picture(report: Path, image: Path) -> None:
    """The first screen of the report in a window of WIDTH x HEIGHT."""
    with (
        TemporaryDirectory() as profile,
        open_browser(Path(profile)) as driver,
        emulated(driver, width=WIDTH, height=HEIGHT),
    ):
        driver.get(report.resolve().as_uri())
        shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    image.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
