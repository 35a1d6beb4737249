"""Plot of `bench.flywheel` as one SVG: coverage above, true and reported agreement below, a column per world."""

from typing import Any

_COLOURS = {"tracer-llm": "#b45309", "no audits": "#7c7c7c", "tracer-serve": "#1d4ed8", "all labels": "#15803d"}
_PANELS = (("handled, % of the day's calls", "coverage", 0.0, 1.0), ("true agreement, %", "agreement", 0.8, 1.0))
_W, _H, _LEFT, _TOP, _GAP = 330, 150, 46, 34, 58


def draw(days: list[dict[str, Any]]) -> str:
    """Return the SVG. Dashed: what the system itself reports."""
    worlds = list(dict.fromkeys(day["world"] for day in days))
    width, height = _LEFT + len(worlds) * (_W + _GAP), _TOP + len(_PANELS) * (_H + _GAP)
    size = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', '<rect width="100%" height="100%" fill="#fff"/>']
    for column, world in enumerate(worlds):
        for row, (title, key, low, high) in enumerate(_PANELS):
            x0, y0 = _LEFT + column * (_W + _GAP), _TOP + row * (_H + _GAP)
            parts.append(_frame(x0, y0, f"{world}: {title}", low, high))
            for arm, colour in _COLOURS.items():
                own = [day for day in days if day["world"] == world and day["arm"] == arm]
                parts.append(_line(own, key, (x0, y0, low, high), colour))
                if key == "agreement":
                    parts.append(_line(own, "reported", (x0, y0, low, high), colour, dashed=True))
            if key == "agreement":
                parts.append(_rule(x0, y0, 0.95, low, high))
    parts.append(_legend(height))
    return "".join(parts) + "</svg>\n"


def _y(value: float, y0: float, low: float, high: float) -> float:
    return y0 + _H * (high - min(max(value, low), high)) / (high - low)


def _frame(x0: float, y0: float, title: str, low: float, high: float) -> str:
    parts = [f'<text x="{x0}" y="{y0 - 8}" font-weight="bold">{title}</text>']
    for k in range(5):
        value = low + (high - low) * k / 4
        y = _y(value, y0, low, high)
        parts.append(f'<path d="M{x0} {y:.1f}h{_W}" stroke="#ddd"/>')
        parts.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * value:g}</text>')
    ticks = [
        f'<text x="{x0 + _W * d / 11:.1f}" y="{y0 + _H + 15}" text-anchor="middle">{d}</text>' for d in range(1, 11)
    ]
    return "".join([*parts, *ticks])


def _line(
    days: list[dict[str, Any]], key: str, place: tuple[float, float, float, float], colour: str, *, dashed: bool = False
) -> str:
    x0, y0, low, high = place
    pieces: list[list[str]] = [[]]
    for day in days:
        if day[key] is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{x0 + _W * day['day'] / 11:.1f} {_y(day[key], y0, low, high):.1f}")
    style = ' stroke-dasharray="2 3"' if dashed else ""
    dots = "".join("M" + "L".join(piece) + ("h.1" if len(piece) == 1 else "") for piece in pieces if piece)
    return f'<path d="{dots}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linecap="round"{style}/>'


def _rule(x0: float, y0: float, value: float, low: float, high: float) -> str:
    return f'<path d="M{x0} {_y(value, y0, low, high):.1f}h{_W}" stroke="#d00" stroke-width=".8"/>'


def _legend(height: float) -> str:
    parts = []
    for i, (arm, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + i * 120
        parts.append(f'<path d="M{x} {height - 12}h18" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{height - 8}">{arm}</text>')
    parts.append(f'<text x="{_LEFT + 490}" y="{height - 8}">dashed: as reported; red: alpha</text>')
    return "".join(parts)
