"""`report: {texts: hidden}`: a report that can be shown to an audience."""

import json

import numpy as np

from tests.report.conftest import Case, make_task
from tracer_serve.report.build import build_report
from tracer_serve.report.render import render_html


def test_no_text_is_in_page_or_json_and_every_number_stays(small: Case) -> None:
    """Neither a text nor a word of one is left; headline, tables and counts are those of the full report."""
    hidden = build_report(make_task(report={"texts": "hidden"}), small.fitted, small.texts, [])
    whole = f"{json.dumps(hidden)}{render_html(hidden).split('</style>')[1].split('<script>')[0]}"
    for text in np.random.default_rng(0).choice(np.array(small.texts, object), 50):
        assert text.strip() not in whole
    assert "question number" not in whole
    for key in ("headline", "certificate", "classes", "whatif", "flows", "curve"):
        assert hidden[key] == small.report[key]
    assert [row["events"] for row in hidden["slices"]["deferred"]["slices"]] == [
        row["events"] for row in small.report["slices"]["deferred"]["slices"]
    ]
    card, full = hidden["cards"]["cards"][0], small.report["cards"]["cards"][0]
    assert card["text"] == f"({len(full['text']):,} characters)"
    assert (card["teacher"], card["suspicion"]) == (full["teacher"], full["suspicion"])
