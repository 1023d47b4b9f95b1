"""What a page with charts holds once: their styles and the script that shows what is under a pointer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from markupsafe import Markup

from results.charts.styles import SHADES_DARK, SHADES_LIGHT, STYLES

_FOLDER = Path(__file__).parent


@cache
def chart_css() -> Markup:
    """The styles of every chart. They take the page's own `--page` as their background."""
    light, dark = _colors("light", SHADES_LIGHT), _colors("dark", SHADES_DARK)
    rules = [f".chart{{{light}}}@media screen and (prefers-color-scheme:dark){{.chart{{{dark}}}}}"]
    for name, style in STYLES.items():
        dash = f";--dash:{style.dash}" if style.dash else ""
        rules.append(f".k-{name}{{--c:var(--c-{name}){dash}}}")
    rules += [f".s{index}{{--c:var(--s{index})}}" for index in range(len(SHADES_LIGHT))]
    return Markup(_read("chart.css") + "".join(rules))


@cache
def hover_script() -> Markup:
    """Shows what is under a mouse, a finger or the keyboard's focus; without it a page has plain titles."""
    return Markup(_read("hover.js"))


def _colors(look: str, shades: tuple[str, ...]) -> str:
    found = [f"--c-{name}:{getattr(style, look)}" for name, style in STYLES.items()]
    return ";".join([*found, *(f"--s{index}:{color}" for index, color in enumerate(shades))])


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
