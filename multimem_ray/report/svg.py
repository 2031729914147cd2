"""Small SVG charts: marks and text only, coloured by the page's style sheet.

Every chart is about as wide as a phone and scales up, so one drawing serves all screens. Colours
are classes, so dark mode needs no second drawing; no style attributes, so the page's security
policy may forbid them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup, escape

from multimem_ray.report.text import count, number

WIDTH = 420
LEFT, RIGHT = 40, 10


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers inside [low, high], about so many."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 10) + 0.0 for i in range(first, last + 1)]


class Scale:
    """A linear map from values to positions.

    Args:
        values: Ends of the axis.
        places: Where they lie in the drawing.
    """

    def __init__(self, values: tuple[float, float], places: tuple[float, float]) -> None:
        self.low, self.high = values
        self._start = places[0]
        self._slope = (places[1] - places[0]) / ((self.high - self.low) or 1.0)

    def __call__(self, value: float) -> float:
        return self._start + (value - self.low) * self._slope


def svg(height: float, parts: Sequence[str], label: str, *, width: float = WIDTH) -> Markup:
    """The drawing, with a text for those who cannot see it."""
    body = Markup("").join(Markup(p) for p in parts)  # noqa: S704 - made of numbers and escaped text
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">'
        "{}</svg>"
    ).format(_n(width), _n(height), label, body)


def text(x: float, y: float, words: str, kind: str = "tick", anchor: str = "middle") -> str:
    """A text of one of the style sheet's kinds."""
    return str(
        Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
            _n(x), _n(y), kind, anchor, words
        )
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return f'<line x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}" class="{kind}"/>'


def rect(
    x: float, y: float, w: float, h: float, kind: str, *, round_by: float = 0, title: str = ""
) -> str:
    """A rectangle, with a hint shown on hovering."""
    hint = f"<title>{escape(title)}</title>" if title else ""
    corner = f' rx="{_n(round_by)}"' if round_by else ""
    return (
        f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(max(w, 0))}" height="{_n(max(h, 0))}"'
        f'{corner} class="{kind}">{hint}</rect>'
    )


def histogram(data: dict[str, Any], marks: Sequence[tuple[float, str]], label: str) -> Markup:
    """Bars over equal bins, with labelled vertical lines at percentiles."""
    top, bottom, height = 34, 210, 248
    start, width, counts = data["start"], data["width"], data["counts"]
    end = start + width * len(counts)
    x = Scale((start, end), (RIGHT, WIDTH - RIGHT))
    y = Scale((0, max(counts) or 1), (bottom, top))
    parts = []
    for place, rows in enumerate(counts):
        a, b = start + place * width, start + (place + 1) * width
        if rows:
            hint = f"{number(a)} to {number(b)}: {count(rows)}"
            high = max(bottom - y(rows), 1.0)
            bar = rect(x(a) + 0.5, bottom - high, x(b) - x(a) - 1, high, "bar", title=hint)
            parts.append(bar)
    parts.append(line(RIGHT, bottom, WIDTH - RIGHT, bottom, "axis"))
    parts += [text(x(t), bottom + 16, number(t, _digits(start, end))) for t in ticks(start, end)]
    parts.append(text(WIDTH / 2, height - 4, label, "label"))
    row_end = [-1e9, -1e9]
    for value, name in marks:
        if not start <= value <= end:
            continue
        # Marks that stand close together take turns in two rows of labels.
        row = 0 if x(value) - row_end[0] > 34 else 1
        if x(value) - row_end[row] <= 34:
            continue
        row_end[row] = x(value)
        parts.append(line(x(value), top - 4 - 14 * row, x(value), bottom, "mark"))
        anchor = "end" if x(value) > WIDTH - 30 else "middle"
        parts.append(text(x(value), top - 8 - 14 * row, name, "note", anchor))
    return svg(height, parts, f"Histogram of {label}")


def plane(data: dict[str, Any], marks: Sequence[tuple[float, float, str, str]]) -> Markup:
    """Counts over cmc_out (across) and cmc_in (up), the diagonal, and single samples as rings.

    ``marks`` are (cmc_out, cmc_in, style class, hint).
    """
    counts, width = data["counts"], data["width"]
    columns, rows = len(counts[0]), len(counts)
    cell = (WIDTH - LEFT - RIGHT) / columns
    # Square cells keep the diagonal at 45 degrees; a flat cloud is stretched to stay readable.
    tall = min(max(cell * rows, 170.0), 400.0)
    top, bottom = 24.0, 24.0 + tall
    x = Scale((data["x"], data["x"] + width * columns), (LEFT, WIDTH - RIGHT))
    y = Scale((data["y"], data["y"] + width * rows), (bottom, top))
    most = max(max(row) for row in counts) or 1
    parts = [rect(LEFT, top, WIDTH - LEFT - RIGHT, tall, "ground")]
    for j, row in enumerate(counts):
        for i, here in enumerate(row):
            if here:
                level = math.ceil(8 * math.log1p(here) / math.log1p(most))
                a, b = data["x"] + i * width, data["y"] + (j + 1) * width
                hint = f"{count(here)} near cmc_out {number(a, 2)}, cmc_in {number(b - width, 2)}"
                w, h = cell - 0.4, tall / rows - 0.4
                parts.append(rect(x(a), y(b), w, h, f"heat h{level}", title=hint))
    low, high = max(x.low, y.low), min(x.high, y.high)
    if high > low:
        parts.append(line(x(low), y(low), x(high), y(high), "diagonal"))
    for cmc_out, cmc_in, kind, hint in marks:
        if x.low <= cmc_out <= x.high and y.low <= cmc_in <= y.high:
            size = 6.5 if "low" in kind else 3.8  # a sample that is both wears both rings
            ring = f'<circle cx="{_n(x(cmc_out))}" cy="{_n(y(cmc_in))}" r="{size}" class="{kind}">'
            parts.append(f"{ring}<title>{escape(hint)}</title></circle>")
    parts += [
        text(x(t), bottom + 15, number(t, _digits(x.low, x.high))) for t in ticks(x.low, x.high)
    ]
    for t in ticks(y.low, y.high):
        parts.append(text(LEFT - 5, y(t) + 4, number(t, _digits(y.low, y.high)), anchor="end"))
    below = "asked of models that never saw it (cmc_out) →"
    parts.append(text((LEFT + WIDTH) / 2, bottom + 34, below, "label"))
    above = "↑ asked of models that trained on it (cmc_in)"
    parts.append(text(LEFT, top - 9, above, "label", "start"))
    return svg(bottom + 40, parts, "Consistency under models that did not see the sample and did")


def signed_bars(
    rows: Sequence[tuple[str, float, str]], label: str, *, width: float = 300, left: float = 62
) -> Markup:
    """Horizontal bars to both sides of zero: name, value, style class."""
    step, right = 20.0, 46.0
    low = min((0.0, *(value for _, value, _ in rows)))
    high = max((0.0, *(value for _, value, _ in rows)))
    ends = (low, high) if high - low > 1e-9 else (0.0, 1.0)
    x = Scale(ends, (left + 4, width - right))
    parts = []
    for place, (name, value, kind) in enumerate(rows):
        y = place * step
        a, b = sorted((x(0.0), x(value)))
        parts.append(text(left - 4, y + 14, name[:24], "name", "end"))
        parts.append(rect(a, y + 4, max(b - a, 1.0), step - 8, f"fill {kind}", round_by=2))
        parts.append(text(width, y + 14, number(value), "value", "end"))
    height = max(step * len(rows), step)
    parts.append(line(x(0.0), 0, x(0.0), height, "axis"))
    return svg(height, parts, label, width=width)


def intervals(rows: Sequence[tuple[str, float, float | None, float | None, str]]) -> Markup:
    """Points with intervals on a common axis that ends at 1: name, value, low, high, class."""
    step, top = 34.0, 4.0
    lows = [value if low is None else low for _, value, low, _, _ in rows]
    start = min(0.5, math.floor(10 * min(lows)) / 10) if lows else 0.5
    x = Scale((start, 1.0), (12, WIDTH - 16))
    bottom = top + step * len(rows) + 6
    parts = [line(x(t), top, x(t), bottom, "grid") for t in ticks(start, 1.0)]
    for place, (name, value, least, most, kind) in enumerate(rows):
        y = top + step * place + 25
        parts.append(text(12, y - 10, name, "name", "start"))
        parts.append(text(WIDTH - 16, y - 10, number(value), "value", "end"))
        if least is not None and most is not None:
            parts.append(
                rect(x(least), y - 2.5, x(most) - x(least), 5, f"span {kind}", round_by=2.5)
            )
        parts.append(f'<circle cx="{_n(x(value))}" cy="{_n(y)}" r="5" class="fill {kind}"/>')
    parts += [text(x(t), bottom + 15, number(t, 1)) for t in ticks(start, 1.0)]
    parts.append(text(WIDTH / 2, bottom + 33, "AUROC, with 95 % interval", "label"))
    return svg(bottom + 38, parts, "AUROC of each method")


def roc(curves: Sequence[tuple[str, Sequence[Sequence[float]], str]]) -> Markup:
    """ROC curves: name, points, style class."""
    side, top = 300.0, 24.0
    x, y = Scale((0, 1), (LEFT, LEFT + side)), Scale((0, 1), (top + side, top))
    parts = [rect(LEFT, top, side, side, "ground"), line(x(0), y(0), x(1), y(1), "diagonal")]
    for name, points, kind in curves:
        path = " ".join(f"{_n(x(a))},{_n(y(b))}" for a, b in points)
        hint = f"<title>{escape(name)}</title>"
        parts.append(f'<polyline points="{path}" class="curve {kind}">{hint}</polyline>')
    for t in (0.0, 0.5, 1.0):
        parts.append(text(x(t), top + side + 15, number(t, 1)))
        parts.append(text(LEFT - 5, y(t) + 4, number(t, 1), anchor="end"))
    parts.append(text(LEFT, top - 9, "↑ share of the planted samples found", "label", "start"))
    below = "share of the others flagged along with them →"
    parts.append(text(LEFT + side / 2, top + side + 33, below, "label"))
    return svg(top + side + 38, parts, "ROC curves", width=LEFT + side + RIGHT)


def lines(
    curves: Sequence[tuple[str, Sequence[Sequence[float]], str]], across: str, up: str
) -> Markup:
    """Curves on common axes: name, points (x, y), style class; words for both axes."""
    top, bottom = 24.0, 250.0
    points = [point for _, of, _ in curves for point in of]
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    x = Scale((min(xs), max(xs)), (LEFT, WIDTH - RIGHT))
    y = Scale((min(ys), max(ys)), (bottom, top))
    parts = [rect(LEFT, top, WIDTH - LEFT - RIGHT, bottom - top, "ground")]
    if y.low < 0 < y.high:
        parts.append(line(LEFT, y(0), WIDTH - RIGHT, y(0), "diagonal"))
    for name, of, kind in curves:
        path = " ".join(f"{_n(x(a))},{_n(y(b))}" for a, b in of)
        hint = f"<title>{escape(name)}</title>"
        parts.append(f'<polyline points="{path}" class="curve {kind}">{hint}</polyline>')
    digits = _digits(x.low, x.high)
    parts += [text(x(t), bottom + 15, number(t, digits)) for t in ticks(x.low, x.high)]
    digits = _digits(y.low, y.high)
    parts += [
        text(LEFT - 5, y(t) + 4, number(t, digits), anchor="end") for t in ticks(y.low, y.high)
    ]
    parts.append(text(LEFT, top - 9, f"↑ {up}", "label", "start"))
    parts.append(text((LEFT + WIDTH) / 2, bottom + 33, f"{across} →", "label"))
    return svg(bottom + 38, parts, f"{up} by {across}")


def waveform(peaks: Sequence[float]) -> Markup:
    """Loudness over time, mirrored; peaks are 0..1."""
    step, middle = 300 / max(len(peaks), 1), 20.0
    parts = [
        rect(i * step + 0.3, middle - 18 * p - 0.5, step - 0.6, 36 * p + 1, "wave")
        for i, p in enumerate(peaks)
    ]
    return svg(40, parts, "Loudness over time", width=300)


def _digits(low: float, high: float) -> int:
    steps = ticks(low, high)
    step = steps[1] - steps[0] if len(steps) > 1 else 1.0
    return max(0, min(4, math.ceil(-math.log10(step) - 1e-9) + (f"{step:e}"[:3] == "2.5")))


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
