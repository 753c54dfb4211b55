"""Sparklines: a series of one table row, from its lowest value at the bottom to its highest at the top."""

from __future__ import annotations

from fluxperf.harness.series import Series

#: Size in pixels, and number of columns. With many values each column shows the lowest and the highest.
_WIDTH, _HEIGHT, _COLUMNS = 160, 26, 80


def sparkline(series: Series) -> str:
    """A series as an SVG element of numbers alone, hidden from screen readers: the row has the important values."""
    values = series.values.tolist()
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def at(place: float, value: float) -> str:
        x = 4 + (_WIDTH - 8) * place / max(1, len(values) - 1)
        y = _HEIGHT - 4 - (_HEIGHT - 8) * ((value - low) / span if high > low else 0.5)
        return f"{x:.1f} {y:.1f}"

    path = "M" + "L".join(at(place, value) for place, value in _thinned(values))
    rings = [at(shift.first, shift.new).split() for shift in series.shifts]
    drawn = "".join(f'<circle cx="{x}" cy="{y}" r="3.2"/>' for x, y in rings[:40])
    return (
        f'<svg class="spark" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" aria-hidden="true">'
        f'<path d="{path}"/>{drawn}</svg>'
    )


def _thinned(values: list[float]) -> list[tuple[int, float]]:
    """Places and values; with many, only the lowest and the highest of each column, in order."""
    if len(values) <= 2 * _COLUMNS:
        return list(enumerate(values))
    kept = []
    for column in range(_COLUMNS):
        first, end = column * len(values) // _COLUMNS, (column + 1) * len(values) // _COLUMNS
        places = range(first, end)
        pair = {min(places, key=lambda place: values[place]), max(places, key=lambda place: values[place])}
        kept += [(place, values[place]) for place in sorted(pair)]
    return kept
