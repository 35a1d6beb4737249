"""What the report says of the fields of an answer."""

import re

import numpy as np
import pytest

from tests.report.conftest import Looked, make_task
from tracer_serve.config.fields import canonical
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.pipeline import fit_policy
from tracer_serve.report.build import build_report
from tracer_serve.report.render import render_html
from tracer_serve.report.scan import scan

ROWS = 800
FIELDS = {
    "intent": {"labels": ["pay", "ask"]},
    "mood": {"labels": ["sad", "glad"]},
    "tags": {"type": "tags", "labels": ["vip", "new"]},
}


@pytest.fixture(scope="module")
def world() -> tuple[list[str], list[str], Looked]:
    """Intent and tags follow from the vector; the mood is a coin on a third of the texts, where the vector shows it."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ROWS, 5)).astype(np.float32)
    vectors[:, 4] = np.where(rng.random(ROWS) < 0.33, 2.0, -2.0)
    glad = np.where(vectors[:, 4] > 0, rng.random(ROWS) < 0.5, vectors[:, 1] > 0)
    labels = [
        canonical(
            {
                "intent": "pay" if v[0] > 0 else "ask",
                "mood": "glad" if mood else "sad",
                "tags": sorted(tag for tag, at in (("vip", 2), ("new", 3)) if v[at] > 0),
            }
        )
        for v, mood in zip(vectors, glad, strict=True)
    ]
    texts = [f"text {i}" for i in range(ROWS)]
    return texts, labels, Looked(texts, vectors)


def test_the_report_names_the_field_that_blocks(world: tuple[list[str], list[str], Looked]) -> None:
    """The noisy field comes first, with what leaving it out would give; the page and the next action say so."""
    texts, labels, embedder = world
    task = make_task(fields=FIELDS, gate={"alpha": 0.9, "min_coverage": 0.0, "scope": {"keep": 1.0}}, fit={"folds": 4})
    fitted = fit_policy(task, Rows.of(texts, labels), embedder)
    report = build_report(task, fitted, texts, [])
    first, *rest = report["fields"]["rows"]
    assert first["field"] == "mood"
    assert first["without"] > report["headline"]["coverage"] + 0.1
    assert all(row["gain"] <= 0.02 and row["agreement"] > 0.9 for row in rest)
    assert first["alone"] > 60
    assert report["members"] is None
    values = {(row["field"], row["value"]): row for row in report["fields"]["values"]}
    assert values["tags", "vip"]["rows"] == sum('"vip"' in label for label in labels)
    assert all(0 <= row["low"] <= row["recall"] <= row["high"] <= 1 for row in values.values())
    assert any(action["action"] == "field" and "mood" in action["title"] for action in report["actions"])
    page = render_html(report)
    assert 'id="fields-title"' in page
    assert "intent: pay, mood: glad, tags: " in page
    visible = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""\{(&#34;|")intent""", visible), "labels are shown as names and values"
    assert "costs most coverage: <strong>mood</strong>" in page


def test_a_scan_names_it_too(world: tuple[list[str], list[str], Looked]) -> None:
    """The field that blocks is known before anything is deployed."""
    texts, labels, embedder = world
    task = make_task(fields=FIELDS, gate={"alpha": 0.9, "min_coverage": 0.0}, fit={"folds": 4})
    found = scan(task, Rows.of(texts, labels), [embedder], alphas=[0.9])
    assert found.fields[0].field == "mood"
    assert found.fields[0].without is not None
    assert found.fields[0].without > found.points[0].coverage
