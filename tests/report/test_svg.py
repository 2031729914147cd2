from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimem_ray.report import svg

HOSTILE = '"><script>alert(1)</script>'


def _parse(drawing: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing)


def _all(drawing: str, tag: str, kind: str = "") -> list[ElementTree.Element]:
    found = _parse(drawing).iter(f"{{http://www.w3.org/2000/svg}}{tag}")
    return [e for e in found if kind in (e.get("class") or "").split() or not kind]


@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e3))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    found = svg.ticks(low, low + span)
    assert all(low - span * 1e-6 <= t <= low + span * (1 + 1e-6) for t in found)
    assert len(found) <= 7


def test_histogram_heights_follow_counts() -> None:
    data = {"start": -0.5, "width": 0.25, "counts": [1, 0, 4, 2], "below": 0, "above": 0}
    bars = _all(svg.histogram(data, [(0.0, "median"), (9.0, "outside")], "x"), "rect", "bar")
    heights = [float(b.get("height") or 0) for b in bars]
    assert len(heights) == 3
    assert heights[1] == pytest.approx(4 * heights[0], rel=0.01)
    assert "outside" not in svg.histogram(data, [(9.0, "outside")], "x")


def test_plane_draws_cells_and_samples_inside() -> None:
    data = {"x": 0.0, "y": 0.0, "width": 0.5, "counts": [[0, 3], [1, 0]], "outside": 0}
    drawing = svg.plane(data, [(0.2, 0.9, "ring top", HOSTILE), (5.0, 5.0, "ring low", "away")])
    assert len(_all(drawing, "rect", "heat")) == 2
    assert len(_all(drawing, "circle")) == 1
    assert "<script" not in drawing


@given(st.lists(st.floats(-2, 2), min_size=0, max_size=5))
def test_signed_bars_stay_inside_and_on_their_side(values: list[float]) -> None:
    drawing = svg.signed_bars([(HOSTILE, v, "m0") for v in values], HOSTILE)
    zero = float(_all(drawing, "line", "axis")[0].get("x1") or 0)
    for value, bar in zip(values, _all(drawing, "rect", "fill"), strict=True):
        start, width = float(bar.get("x") or 0), float(bar.get("width") or 0)
        assert start >= 0
        assert start + width <= 300
        if value > 0.01:
            assert start == pytest.approx(zero, abs=0.02)
        if value < -0.01:
            assert start + width == pytest.approx(zero, abs=1.1)


def test_intervals_and_curves() -> None:
    rows = [("a", 0.9, 0.8, 0.95, "k0"), ("b", 1.0, None, None, "k1"), ("c", 0.3, 0.2, 0.4, "k2")]
    drawing = svg.intervals(rows)
    assert len(_all(drawing, "circle")) == 3
    assert len(_all(drawing, "rect", "span")) == 2
    assert len(_all(svg.roc([("a", [[0, 0], [0, 1], [1, 1]], "k0")]), "polyline")) == 1
    assert len(_all(svg.waveform([0.1, 1.0]), "rect")) == 2


def test_curves_share_axes_that_hold_all_of_them() -> None:
    curves = [
        ("before", [(0.0, -1.0), (1.0, 2.0)], "k1"),
        ("after", [(0.5, 0.0), (2.0, 1.0)], "k0"),
    ]
    drawing = svg.lines(curves, "epoch", "loss")
    for curve in _all(drawing, "polyline"):
        points = [tuple(map(float, p.split(","))) for p in curve.attrib["points"].split()]
        assert all(svg.LEFT <= x <= svg.WIDTH and 0 <= y <= 250 for x, y in points)
    assert _all(drawing, "line", "diagonal"), "zero is marked where it lies inside"
