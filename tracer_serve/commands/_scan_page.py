"""The page of a scan: certified coverage over alpha, the learning curve, what is saved; one file by itself."""

from dataclasses import asdict

from markupsafe import Markup

from tracer_serve.report.plain import plain
from tracer_serve.report.render import asset, environment, json_in_script, security_policy
from tracer_serve.savings import Price
from tracer_serve.scan import Scan


def render_scan(file: str, found: Scan, price: Price | None) -> str:
    """Return the page.

    Parameters
    ----------
    file : name of the scanned file
    price : what a call costs, None where it is not known
    """
    money = None
    if price is not None:
        saved = [price.saved(point.calls_saved) for point in found.points]
        money = asdict(price) | {"span": price.span, "saved": saved}
    data = plain({"file": file, **asdict(found), "money": money})
    style = asset("report.css")
    scripts = [asset("echarts.js"), asset("page/base.js") + "\n" + asset("page/scan.js")]
    return (
        environment()
        .get_template("scan.html")
        .render(
            scan=data,
            policy=Markup(security_policy(style, scripts)),  # noqa: S704  # hashes and keywords only
            style=Markup(style),  # noqa: S704  # our own file
            scripts=[Markup(script) for script in scripts],  # noqa: S704  # our own files
            data=Markup(json_in_script(data)),  # noqa: S704  # no character in it can end the script element
        )
    )
