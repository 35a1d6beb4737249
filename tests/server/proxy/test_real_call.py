"""A real prompt with a real LLM's answers: found behind the proxy by an unchanged client, as one task, exactly."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI
from scipy.stats import binomtest

from tests.server.chat.conftest import listening
from tests.server.proxy.conftest import Proxied, proxying
from tests.support.replay_llm import PROMPT_TOKENS, ReplayLLM, read_recording, serve
from tracer_serve.config.load import load_task
from tracer_serve.lifecycle.refit import refit
from tracer_serve.report.discovery import FoundTask
from tracer_serve.storage.importers import read_traces

SHUFFLED = 10
DATA = Path(os.environ.get("TRACER_BENCH_DATA", "missing"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="TRACER_BENCH_DATA names no folder of benchmark data")


@pytest.fixture
def replay() -> Iterator[ReplayLLM]:
    recording = read_recording(DATA)
    with serve(recording):
        yield recording


def shuffled_prefix(replay: ReplayLLM, chance: random.Random) -> str:
    """Return the prompt with its few-shot examples in another order."""
    head, *examples = replay.prefix.split("\n\nExample ")
    *examples, last = examples
    chance.shuffle(examples)
    return "\n\nExample ".join([head, *examples, last])


def ask(url: str, replay: ReplayLLM, texts: list[str], *, shuffle_every: int = 0) -> int:
    """Ask about texts with OpenAI's client; return how many calls were refused by the replay server."""
    chance, refused = random.Random(0), 0
    with OpenAI(base_url=f"{url}/v1", api_key="sk-of-the-caller", max_retries=0) as client:
        for number, text in enumerate(texts):
            other = bool(shuffle_every) and number % shuffle_every == 0
            keywords = replay.call(text, shuffled_prefix(replay, chance) if other else None)
            try:
                answer = client.chat.completions.create(**keywords)
            except NotFoundError:
                refused += 1
                continue
            label, confidence = replay.answers[text]
            said = json.loads(answer.choices[0].message.content or "")
            assert said == {"category": label, "confidence": round(confidence, 2)}
    return refused


def found(proxy: Proxied, replay: ReplayLLM, calls: int) -> FoundTask:
    """Return the one task that was found, with slot, labels and tokens exact."""
    proxy.observed(calls)
    assert proxy.observer.missed == 0
    [task] = proxy.found.tasks()
    assert (task.group.slot.prefix, task.group.slot.suffix) == (replay.prefix, replay.suffix)
    assert task.group.label_set == tuple(replay.labels)
    assert task.group.totals.calls == calls
    assert task.prompt_tokens == PROMPT_TOKENS
    return task


def texts_of(replay: ReplayLLM, seed: int = 0) -> list[str]:
    texts = [text for text in replay.answers if text.strip() == text]
    random.Random(seed).shuffle(texts)
    return texts


def test_calls_are_one_task(replay: ReplayLLM, tmp_path: Path) -> None:
    """Every call is answered as without the proxy, and the written traces are the recorded labels."""
    texts = texts_of(replay)[:150]
    with proxying(replay.url, tmp_path) as proxy:
        assert ask(proxy.url, replay, texts) == 0
        task = found(proxy, replay, 150)
        proxy.found.write(task.name)
    traces = read_traces(tmp_path / "tasks" / f"{task.name}.traces.jsonl", "task")
    assert {(one.input, one.teacher_label) for one in traces} == {(text, replay.answers[text][0]) for text in texts}
    written = json.loads((tmp_path / "tasks" / f"{task.name}.call.json").read_text(encoding="utf-8"))
    assert written["messages"] == [{"role": "user", "content": f"{replay.prefix}{{text}}{replay.suffix}"}]
    assert written["guided_json"] == replay.body["extra_body"]["guided_json"]


def test_shuffled_examples_are_another_form(replay: ReplayLLM, tmp_path: Path) -> None:
    """Calls whose examples come in another order are refused by the replay server, and are no part of the task."""
    with proxying(replay.url, tmp_path) as proxy:
        assert ask(proxy.url, replay, texts_of(replay)[:100], shuffle_every=10) == 10
        found(proxy, replay, 90)


def answers(file: Path, replay: ReplayLLM, texts: list[str]) -> tuple[int, int]:
    """Fit and serve a written task, ask about texts; return how many were handled and how many of these agree.

    Every tenth call has its examples in another order, and none of these is handled.
    """
    chance = random.Random(0)
    task = load_task(file)
    outcome = refit(task, "start")
    assert outcome.certificate.certified
    handled = agree = 0
    with listening(task) as url, OpenAI(base_url=url, api_key="sk-of-the-caller", max_retries=0) as client:
        for number, text in enumerate(texts):
            if number % SHUFFLED == 0:
                with pytest.raises(NotFoundError) as refused:
                    client.chat.completions.create(**replay.call(text, shuffled_prefix(replay, chance)))
                assert refused.value.response.headers["x-tracer-decision"] == "forwarded"
                continue
            before = len(replay.bodies)
            got = client.chat.completions.with_raw_response.create(**replay.call(text))
            said = json.loads(got.parse().choices[0].message.content or "")
            label, confidence = replay.answers[text]
            assert set(said) == {"category", "confidence"}
            if got.headers["x-tracer-decision"] == "handled":
                assert isinstance(said["confidence"], int | float)
                assert 0 <= said["confidence"] <= 100
                handled += 1
                agree += said["category"] == label
            else:
                assert said == {"category": label, "confidence": round(confidence, 2)}
                assert len(replay.bodies) > before  # audits of handled calls come in between
    return handled, agree


@pytest.mark.slow
def test_nine_thousand_calls_are_one_task_that_certifies(
    replay: ReplayLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 9,000 calls the counts are exact; the written task handles others at alpha; the rest reach the LLM as sent."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-operator")
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path / "state"))
    texts = texts_of(replay)
    with proxying(replay.url, tmp_path) as proxy:
        assert ask(proxy.url, replay, texts[:9000]) == 0
        task = found(proxy, replay, 9000)
        assert len(task.group.examples) == 2000
        assert sum(task.group.labels.values()) == 9000
        file = proxy.found.write(task.name)
    assert replay.refused == 0
    rest = texts[9000:]
    handled, agree = answers(file, replay, rest)
    shuffled = len(rest[::SHUFFLED])
    assert replay.refused == shuffled  # whatever else was forwarded was byte for byte a call of the form
    saved = handled / (len(rest) - shuffled) * PROMPT_TOKENS
    print(f"{handled} of {len(rest) - shuffled} handled, {agree} agree; {saved:,.0f} tokens of a call saved")  # noqa: T201
    assert saved > 0.25 * PROMPT_TOKENS  # of each call's prompt tokens, on average
    assert binomtest(agree, handled, 0.9, alternative="less").pvalue > 0.01
