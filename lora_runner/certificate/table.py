"""A certificate as lines of text, for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Iterator

from lora_runner.certificate.certificate import KINDS, Certificate, Check


def table(certificate: Certificate) -> Iterator[str]:
    """Kind, way, whether it is invariant, its speed and whether it is chosen; then what failed first."""
    yield certificate.device.description
    yield (
        f"layers of {certificate.sizes.name} in {certificate.dtype}; seed {certificate.seed}, "
        f"{certificate.made_at}, {certificate.seconds:.0f} s"
    )
    yield ""
    yield _row("kind", "way", "invariant", "speed", "chosen")
    yield _row(*("-" * width for width in _WIDTHS))
    ways = dict.fromkeys((check.kind, check.way) for check in certificate.checks)
    for kind, way in ways:
        all_cases = [check for check in certificate.checks if (check.kind, check.way) == (kind, way)]
        found = [check for check in all_cases if check.not_computed is None]
        good = sum(check.is_invariant for check in found)
        yield _row(
            kind,
            way,
            f"{'yes' if found and good == len(found) else 'no'}, {good} of {len(found)}",
            _speed(found),
            "chosen" if certificate.way_of(kind) == way else "",
        )
    if failures := certificate.failures():
        yield ""
        yield from failures
    if left_out := certificate.not_computed():
        yield ""
        yield from left_out
    for choice in certificate.choices:
        if choice.way is None:
            yield f"no way to compute {KINDS[choice.kind]} is invariant on this machine"


_WIDTHS = (11, 18, 14, 26, 6)


def _row(*cells: str) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _speed(checks: list[Check]) -> str:
    """From the slowest to the fastest case."""
    speeds = sorted(check.speed for check in checks if check.speed is not None)
    if not speeds:
        return "-"
    texts = list(dict.fromkeys(_three_digits(speed) for speed in (speeds[0], speeds[-1])))
    return f"{' to '.join(texts)} {checks[0].unit}"


def _three_digits(speed: float) -> str:
    """At most 7 characters, up to 999,999."""
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}" if speed >= 0.01 else "< 0.01"
