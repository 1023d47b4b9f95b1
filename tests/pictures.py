"""The README's pictures: `python -m tests.pictures docs/images` runs the demo and draws them.

`live.svg` is the terminal at 80x24 while the demo runs, `terminal.svg` what it prints at its end,
`report.png` the first screen of its report.
"""

from __future__ import annotations

import base64
import re
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.browser import emulated, open_browser
from tests.terminal import in_terminal

COLUMNS = 80
HALF_WAY = 10
"""Trials that have ended in the picture of the running demo."""
_COLORS = {"brown": "yellow"}
"""pyte's names of colors that rich calls otherwise."""
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
    images = Path(sys.argv[1])
    with TemporaryDirectory() as folder:
        live: list[Text] = []

        def keep_half_way(screen: pyte.Screen) -> None:
            if any(f" {HALF_WAY} of 16 trials" in line for line in screen.display):
                live[:] = [_line(screen, row) for row in range(screen.lines)]

        program = str(Path(sys.executable).parent / "sweeps")
        seen = in_terminal(
            [program, "demo"],
            cwd=Path(folder),
            env={"HF_HUB_OFFLINE": "1"},
            seconds=1800,
            on_buffer=keep_half_way,
        )
        picture(live, images / "live.svg")
        end = next(n for n, line in enumerate(seen.lines) if line.startswith("Done:"))
        picture([Text("$ sweeps demo"), *map(Text, seen.lines[end:])], images / "terminal.svg")
        report_picture(Path(folder) / "runs" / "demo" / "report.html", images / "report.png")


def picture(lines: Sequence[Text], image: Path) -> None:
    """Lines of a terminal as SVG, without the fonts that rich would load from the network."""
    console = Console(
        record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in lines:
        console.print(line, no_wrap=True)
    form = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    image.write_text(
        console.export_svg(title="qlora-sweeps", theme=_THEME, code_format=form), encoding="utf-8"
    )


def _line(screen: pyte.Screen, row: int) -> Text:
    """One line of a terminal with its colors."""
    text = Text()
    for column in range(screen.columns):
        cell = screen.buffer[row][column]
        color = (
            ""
            if cell.fg == "default"
            else f"#{cell.fg}"
            if len(cell.fg) == 6
            else _COLORS.get(cell.fg, cell.fg)
        )
        text.append(cell.data, style=f"{'bold ' if cell.bold else ''}{color}".strip())
    return text


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
