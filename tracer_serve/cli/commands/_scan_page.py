"""HTML page of a scan: certified coverage over alpha, learning curve and savings, in one file."""

from dataclasses import asdict

from tracer_serve.report.json_values import plain
from tracer_serve.report.pricing import CallPrice
from tracer_serve.report.render import page
from tracer_serve.report.scan import Scan


def render_scan(file: str, found: Scan, price: CallPrice | None) -> str:
    """Return the page.

    Parameters
    ----------
    file : name of the scanned file
    price : price of a teacher call; None if unknown
    """
    money = None
    if price is not None:
        saved = [price.saved(point.calls_saved) for point in found.points]
        money = asdict(price) | {"span": price.span, "saved": saved}
    data = plain({"file": file, **asdict(found), "money": money})
    return page("scan.html", ("base", "scan"), data, scan=data)[0]
