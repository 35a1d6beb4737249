"""Dashboard and alerts against the metrics that the server exposes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.server.worlds import HANDLED, make_task, make_version, serving
from tests.support.stub_llm import StubLLM

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "tracer-serve.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
Series = dict[str, dict[str, set[str]]]


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for group in RULES["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def series_of(text: str) -> Series:
    """Return the label values of each label of each metric."""
    found: Series = {}
    for name, labels in re.findall(r"^(tracer_\w+)\{(.*)\} ", text, re.MULTILINE):
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            found.setdefault(name, {}).setdefault(label, set()).add(value)
    return found


@pytest.mark.anyio
async def test_every_expression_asks_for_what_is_exposed(tmp_path: Path, stub_llm: StubLLM) -> None:
    """Metric names, labels, label values, and the labels that sums are by, of a server on which nothing failed yet.

    An alert on an increase misses the first failure where its series begins with it.
    """
    spec = make_task(tmp_path, stub_llm)
    make_version(spec)
    async with serving(spec) as (client, _):
        await client.post("/v1/classify", json={"input": HANDLED})
        exposed = series_of((await client.get("/metrics")).text)
    for expression in expressions():
        selectors = re.findall(r"(tracer_\w+)(?:\{([^}]*)\})?", expression)
        assert selectors, expression
        for name, inside in selectors:
            assert name in exposed, expression
            for label, operator, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', inside):
                assert label in exposed[name], expression
                values = {*value.split("|")} if operator == "=~" else {value}
                assert values <= {"$task", *exposed[name][label]}, (expression, operator)
        known = {label for name, _ in selectors for label in exposed[name]}
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert set(re.split(r",\s*", labels)) <= known, expression


def test_panels_do_not_overlap_and_alerts_say_what_to_know() -> None:
    """The grid is 24 wide, every cell is one panel's; each alert has a severity and a summary with its task, if any."""
    cells: list[tuple[int, int]] = []
    for panel in DASHBOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells += [(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])]
    assert len(cells) == len(set(cells))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        nobody = rule["expr"].startswith("absent(")  # has no series, so no task
        assert nobody or "$labels.task" in rule["annotations"]["summary"]
