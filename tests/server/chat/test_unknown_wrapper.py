"""Tweets in a wrapper that no certificate is about are forwarded, and handled at alpha once their form is certified."""

import csv
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from scipy.stats import binomtest

from tests.server.chat.conftest import listening
from tests.support.stub_llm import StubLLM
from tests.support.tasks import write_traces
from tests.support.waiting import until
from tracer_serve.config.load import Task
from tracer_serve.lifecycle.refit import refit

DATA = Path(os.environ.get("TRACER_BENCH_DATA", "missing"))
pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="TRACER_BENCH_DATA names no folder of benchmark data"),
    pytest.mark.slow,
]
MakeTask = Callable[..., Task]
ALPHA, BARE, WRAPPED, ASKED = 0.9, 1500, 2000, 300
LABELS = ["hate", "neither", "offensive"]
WRAPPER = (
    "You help the moderators of a forum for local sports clubs. Read the message below with care, think about who wrote"
    " it and to whom, and about the words that were chosen. Then say which of the three categories fits it best. Quotes"
    " count as what they quote, jokes as what they are about. If you are not sure, take the milder one.\n\nMessage: "
)
SCHEMA = {"type": "object", "properties": {"label": {"type": "string", "enum": LABELS}}, "required": ["label"]}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def tweets() -> list[tuple[str, str]]:
    with (DATA / "moderation.csv").open(encoding="utf-8", newline="") as lines:
        rows = {row["text"].strip(): row["label"] for row in csv.DictReader(lines) if row["text"].strip()}
    found = sorted(rows.items())
    random.Random(0).shuffle(found)
    return found[: BARE + WRAPPED + ASKED]


def ask(url: str, texts: list[str]) -> list[tuple[Counter[str], str]]:
    """Ask about texts in the wrapper; return decision and reason, and the label, of each."""
    with OpenAI(base_url=url, api_key="none", max_retries=0) as client, ThreadPoolExecutor(4) as pool:

        def one(text: str) -> tuple[Counter[str], str]:
            messages: Any = [{"role": "user", "content": WRAPPER + text}]
            got = client.chat.completions.with_raw_response.create(
                model="stub-1", messages=messages, response_format=FORMAT
            )
            label = json.loads(got.parse().choices[0].message.content or "")["label"]
            return Counter([f"{got.headers['x-tracer-decision']} {got.headers['x-tracer-reason']}"]), label

        return list(pool.map(one, texts))


def forwarded_calls(url: str, calls: int) -> list[tuple[int, str]]:
    """Return count and reason of each kind of forwarded call, once so many are counted: every two seconds."""
    status = httpx.get(url.replace("/v1", "/status.json")).json()
    found = [(one["calls"], one["reason"]) for one in status["forwarded"]]
    return found if sum(count for count, _ in found) >= calls else []


def test_a_wrapper_is_learned_and_certified_before_it_is_answered(
    task: MakeTask, stub_llm: StubLLM, tmp_path: Path
) -> None:
    """Of 300 held-out tweets none is handled in an unknown wrapper; learned and certified, at agreement of alpha."""
    rows = tweets()
    texts, held_out = [text for text, _ in rows], rows[-ASKED:]
    traces = write_traces(tmp_path / "bare.jsonl", texts[:BARE], [label for _, label in rows[:BARE]])
    spec = {"labels": LABELS, "gate": {"alpha": ALPHA}, "surrogates": ["blend"], "acceptors": ["logistic"]}
    spec |= {"traces": {"import": [traces.name], "audit_rate": 0.0}}
    bare = task(**spec)
    stub_llm.labels = dict(rows)
    assert refit(bare).certificate.certified

    with listening(bare) as url:
        answers = ask(url, [text for text, _ in held_out])
        forwarded = until(lambda: forwarded_calls(url, ASKED))
    assert sum((kind for kind, _ in answers), Counter()) == {"forwarded unknown_prompt": ASKED}
    assert [label for _, label in answers] == [label for _, label in held_out]
    assert forwarded == [(ASKED, "unknown_prompt")]

    form = {"name": "forum", "prompt": WRAPPER + "{text}", "options": {"response_format": FORMAT}}
    learning = task(**spec, forms=[form])
    stub_llm.labels = dict(rows)  # a task that is made brings its own
    with listening(learning) as url:
        answers = ask(url, texts[BARE : BARE + WRAPPED])
    assert [label for _, label in answers] == [label for _, label in rows[BARE : BARE + WRAPPED]]
    decisions = sum((kind for kind, _ in answers), Counter[str]())
    assert {*decisions} <= {"deferred form_not_certified", "deferred out_of_scope", "deferred below_threshold"} | {
        "deferred too_long"
    }
    outcome = refit(learning)
    assert outcome.certificate.certified

    with listening(learning) as url:
        answers = ask(url, [text for text, _ in held_out])
    handled = [
        said == label for (kind, said), (_, label) in zip(answers, held_out, strict=True) if "handled certified" in kind
    ]
    print(f"{len(handled)} of {ASKED} handled, {sum(handled)} agree")  # noqa: T201  # the figures of the proof
    assert len(handled) > 0.25 * ASKED
    assert binomtest(sum(handled), len(handled), ALPHA, alternative="less").pvalue > 0.01
