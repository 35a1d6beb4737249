"""Fuzz every parser of input from callers, endpoints and log files.

    python -m bench.fuzz --seconds 60

An input may be refused with the error that the parser documents; anything else is a crash and ends the run. Inputs are
mutated from examples, and one with an outcome that was not seen before (which error, or which shape of result) becomes
an example itself. With atheris installed, ``--atheris TARGET`` lets it guide the inputs by branch coverage instead.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.table import Table

from tracer_serve.cli.console import out
from tracer_serve.components.teachers._labels import LabelSet
from tracer_serve.errors import ImportFileError, TeacherError
from tracer_serve.forms.calls import NotACallError, as_conversation, parse
from tracer_serve.forms.grouping import CallGroups
from tracer_serve.forms.slot import split_prompts
from tracer_serve.server.chat.answer_shape import Answers, shape_of
from tracer_serve.server.chat.read_answer import read_answer
from tracer_serve.server.chat.request import ChatRequest
from tracer_serve.server.chat.schema_places import UnfillableError
from tracer_serve.server.http.request_body import explain
from tracer_serve.server.proxy.answers import read_stream
from tracer_serve.server.routes.classify_request import ClassifyRequest
from tracer_serve.storage.importers.calls import observed, read_calls
from tracer_serve.storage.importers.extract import mapping
from tracer_serve.storage.importers.items import ReadOptions, RefusedError
from tracer_serve.storage.importers.parse import read_items

Run = Callable[[bytes], object]

_LABELS = ("red", "blue", "very dark blue")
_SCHEMA = {"type": "object", "properties": {"colour": {"enum": [*_LABELS]}}, "required": ["colour"]}
_SAID = [{"role": "system", "content": "Which colour?"}, {"role": "user", "content": [{"type": "text", "text": "sky"}]}]
_CALL = {
    "model": "gpt", "messages": _SAID, "temperature": 0, "stream": True, "user": "u", "n": 1,
    "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": _SCHEMA, "strict": True}},
}  # fmt: skip
_TOOL = {"type": "function", "function": {"name": "f", "parameters": _SCHEMA}}
_TOOLS = _CALL | {"tools": [_TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}
_GUIDED = {"model": "gpt", "messages": _SAID, "guided_choice": [*_LABELS], "guided_json": _SCHEMA, "format": _SCHEMA}
_RESPONSES = {
    "model": "gpt", "instructions": "Which colour?", "input": [{"role": "user", "content": [
        {"type": "input_text", "text": "sky"}]}], "text": {"format": {"type": "json_schema", "schema": _SCHEMA}},
}  # fmt: skip
_ARGUMENTS = {"name": "f", "arguments": '{"colour": "blue"}'}
_MESSAGE = {"role": "assistant", "content": '{"colour": "blue"}', "tool_calls": [
    {"index": 0, "id": "c", "type": "function", "function": _ARGUMENTS}]}  # fmt: skip
_COMPLETION = {
    "id": "c", "object": "chat.completion", "created": 1_724_858_089, "model": "gpt",
    "choices": [{"index": 0, "finish_reason": "stop", "message": _MESSAGE}],
    "usage": {"prompt_tokens": 24, "completion_tokens": 3},
}  # fmt: skip
_RESPONSE = {
    "id": "r", "object": "response", "created_at": 1.5, "model": "gpt", "usage": {"input_tokens": 3},
    "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "blue"}]}],
}  # fmt: skip
_CHUNK = {"id": "c", "choices": [{"index": 0, "delta": _MESSAGE, "finish_reason": None}], "usage": None}
_SPAN = {"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "1", "attributes": [
    {"key": "gen_ai.input.messages", "value": {"stringValue": json.dumps(_SAID)}},
    {"key": "gen_ai.output.messages", "value": {"stringValue": json.dumps([_MESSAGE])}}]}]}]}]}  # fmt: skip
_LINES = [
    {"input": "sky", "teacher": "blue", "ts": "2026-01-01T00:00:00Z", "cost": 0.1, "usage": {"prompt_tokens": 3}},
    {"premise": "a", "hypothesis": "b", "label": "red", "user": "u", "model": "gpt"},
    {"messages": [*_SAID, _MESSAGE]}, {"request": _CALL, "response": _COMPLETION}, _COMPLETION | {"messages": _SAID},
    {"request": _RESPONSES, "response": _RESPONSE},
    {"custom_id": "1", "response": {"status_code": 200, "body": _COMPLETION}},
    {"type": "GENERATION", "input": _SAID, "output": _MESSAGE, "usageDetails": {"input": 3}, "startTime": 1}, _SPAN,
    {"run_type": "llm", "inputs": {"messages": [_SAID]}, "outputs": {"generations": [[{"text": "blue"}]]}},
]  # fmt: skip


def _event(facts: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(facts).encode() + b"\n\n"


@dataclass(frozen=True, slots=True)
class Target:
    """Parser under test: its first examples, and the errors that it may raise."""

    run: Run
    examples: Sequence[bytes]
    refusals: tuple[type[Exception], ...] = ()


def _body(model: Any) -> Run:
    def run(content: bytes) -> object:
        try:
            return type(model.model_validate_json(content)).__name__
        except ValidationError as error:
            return explain(error, content).code

    return run


def _call(content: bytes) -> object:
    call = parse(content)
    as_conversation(call, 3)
    shape = shape_of(call.form.option_values, Answers({*_LABELS}), {})
    problem = shape.problem("blue")
    if problem is None:
        json.dumps(shape.message("blue", "call_1", 0.5))
    return problem, type(shape).__name__, call.message is None, call.form.media


def _observed(content: bytes) -> object:
    request, _, answer = content.partition(b"\n")
    try:
        body, said = json.loads(request), json.loads(answer or b"null")
    except (ValueError, RecursionError):
        return None
    return observed(mapping(body), said, 0.0, {}).label


def _answer(content: bytes) -> object:
    whole = _outcome(lambda: read_answer(content, stream=False), (TeacherError,))
    streamed = _outcome(lambda: read_answer(content, stream=True), (TeacherError,))
    return whole, streamed, _outcome(lambda: read_stream(content), (ValueError,))


def _slots(content: bytes) -> object:
    return len(split_prompts(content.decode(errors="replace").split("\n")))


def _groups(content: bytes) -> object:
    groups = CallGroups()
    for line in content.decode(errors="replace").split("\n"):
        body = {"model": "gpt", "messages": [{"role": "user", "content": line}]}
        groups.add(observed(body, line[-3:], 0.0, {}))
    return [(group.totals.calls, len(group.slot)) for group in groups.groups()]


@cache
def _file() -> Path:
    shared = Path("/dev/shm")  # noqa: S108  a file a second for minutes
    return Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None)) / "log.jsonl"


def _imports(suffix: str) -> Run:
    def run(content: bytes) -> object:
        path = _file().with_suffix(suffix)
        path.write_bytes(content)
        items = [type(item).__name__ for item in read_items(path, ReadOptions(labels=_LABELS[:1]))]
        return items, [type(call).__name__ for call in read_calls(path, ReadOptions())]

    return run


_PROMPTS = "\n".join(f"Which colour is number {n}?\nAnswer:" for n in range(30)).encode()
_JSON = [json.dumps(one).encode() for one in (_CALL, _TOOLS, _GUIDED, _RESPONSES)]
TARGETS: dict[str, Target] = {
    "classify bodies": Target(
        _body(ClassifyRequest), [b'{"input": ["a", "b"], "top_k": 3, "probs": true, "user": "u"}']
    ),
    "chat bodies": Target(_body(ChatRequest), _JSON),
    "chat calls and answer shapes": Target(_call, _JSON, (NotACallError, UnfillableError)),
    "responses bodies": Target(
        _observed,
        [_JSON[3] + b"\n" + json.dumps(_RESPONSE).encode(), _JSON[0] + b"\n" + json.dumps(_COMPLETION).encode()],
        (NotACallError, RefusedError),
    ),
    "answers and streams": Target(
        _answer,
        [
            json.dumps(_COMPLETION).encode(),
            _event(_CHUNK) * 2 + b"data: [DONE]\n\n",
            _event({"response": _RESPONSE, "type": "response.completed"}),
        ],
    ),
    "labels": Target(
        lambda content: LabelSet(_LABELS).parse(content.decode(errors="replace")),
        [b'{"label": "red"}', b' "Red". '],
        (TeacherError,),
    ),
    "slots": Target(_slots, [_PROMPTS]),
    "groups of prompts": Target(_groups, [_PROMPTS]),
    "imports of JSONL": Target(_imports(".jsonl"), [json.dumps(line).encode() for line in _LINES], (ImportFileError,)),
    "imports of JSON": Target(
        _imports(".json"), [json.dumps(_LINES).encode(), json.dumps({"data": _LINES[:2]}).encode()], (ImportFileError,)
    ),
    "imports of CSV": Target(
        _imports(".csv"), [b"text,label\nsky,blue\n", b'text;label\n"a;b";red\n'], (ImportFileError,)
    ),
}
_ODD: list[Any] = [
    *(None, True, False, 0, -1, 1e308, 10**400, 2**63, float("nan"), float("inf"), "", "\x00", "\ud800", [], {}, [[]]),
    *({"a": {}}, [None], "9" * 5000, {"$ref": "#"}, {"anyOf": [{}]}, ["x"] * 300, {"type": "text"}, "é" * 99),
]
_TOKENS = [
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\n",
    b"\\u0000",
    b"\\ud800",
    b"\xff",
    b"null",
    b"1e999",
    b"data: ",
]


def mutated(chance: random.Random, examples: Sequence[bytes]) -> bytes:
    """Return a changed example: other bytes, another value at some place of its JSON, or two examples spliced."""
    content = chance.choice(examples)
    for _ in range(chance.choice((1, 1, 2, 4))):
        kind = chance.randrange(6)
        if kind <= 2:
            content = _in_json(chance, content)
            continue
        at, until = sorted(chance.randrange(len(content) + 1) for _ in range(2))
        if kind == 3:
            content = content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]
        elif kind == 4:
            content = (
                content[:at] + chance.choice((b"", chance.choice(_TOKENS), content[at:until] * 2)) + content[until:]
            )
        else:
            other = chance.choice(examples)
            content = content[:at] + other[chance.randrange(len(other) + 1) :]
    return content[:20_000]


def _in_json(chance: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    which = chance.randrange(len(lines))
    start = b"data: " if lines[which].startswith(b"data: ") else b""
    try:
        value = json.loads(lines[which][len(start) :])
        _change(chance, value)
        lines[which] = start + json.dumps(value).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return content
    return b"\n".join(lines)


def _change(chance: random.Random, value: Any) -> None:
    """Change one place of a JSON value."""
    while isinstance(value, dict | list) and value:
        key = chance.choice([*value]) if isinstance(value, dict) else chance.randrange(len(value))
        inside = value[key]
        if isinstance(inside, dict | list) and inside and chance.random() < 0.8:
            value = inside
            continue
        kind = chance.randrange(4)
        if kind == 0 and isinstance(value, dict):
            value[chance.choice(["type", "text", "content", "$ref", "", "model", "enum", "role"])] = value.pop(key)
        elif kind == 1:
            del value[key]
        elif kind == 2:
            value[key] = [inside] * chance.choice((1, 2, 50))
        else:
            value[key] = chance.choice(_ODD)
        return


def _outcome(run: Callable[[], object], refusals: tuple[type[Exception], ...]) -> object:
    try:
        return run()
    except refusals as error:
        return type(error).__name__, re.sub(r"\d+|'.*'|\".*\"", "", str(error))[:80]


@dataclass(slots=True)
class Count:
    """Counts of a target's outcomes."""

    inputs: int = 0
    outcomes: int = 0
    slowest_ms: float = 0.0


def fuzz(target: Target, seed: int, seconds: float, most: float = float("inf")) -> Count:
    """Feed a target for some seconds, or some number of inputs.

    Raises
    ------
    AssertionError
        With the input that crashes it, and how.
    """
    chance, count = random.Random(seed), Count()
    examples, seen = [*target.examples], set[str]()
    end = time.perf_counter() + seconds
    while count.inputs < most and (began := time.perf_counter()) < end:
        content = mutated(chance, examples) if count.inputs >= len(target.examples) else examples[count.inputs]
        try:
            outcome = str(_outcome(lambda content=content: target.run(content), target.refusals))[:200]  # type: ignore[misc]
        except Exception as error:
            raise AssertionError(f"{content!r}\n{traceback.format_exc()}") from error
        count.inputs += 1
        count.slowest_ms = max(count.slowest_ms, 1e3 * (time.perf_counter() - began))
        if outcome not in seen and len(seen) < 2000:
            seen.add(outcome)
            examples.append(content)
    count.outcomes = len(seen)
    return count


def by_coverage(target: Target, inputs: int) -> None:
    """Let atheris choose the inputs; it ends the process."""
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: PLC0415  # an own installation: not a dependency

    def one(content: bytes) -> None:
        _outcome(lambda: target.run(content), target.refusals)

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as folder:
        for number, example in enumerate(target.examples):
            (Path(folder) / str(number)).write_bytes(example)
        atheris.Setup(
            [sys.argv[0], folder, f"-runs={inputs}", "-max_len=4000", "-timeout=5", "-rss_limit_mb=2000"], one
        )
        atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the fuzzer from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", metavar="TARGET", choices=TARGETS)
    parser.add_argument("--inputs", type=int, default=100_000, help="with --atheris")
    options = parser.parse_args(arguments)
    if options.atheris:
        by_coverage(TARGETS[options.atheris], options.inputs)
        return
    shown, total = Table("target", "inputs", "outcomes", "slowest ms"), 0
    for name, target in TARGETS.items():
        count = fuzz(target, options.seed, options.seconds)
        total += count.inputs
        shown.add_row(name, f"{count.inputs:,}", str(count.outcomes), f"{count.slowest_ms:.0f}")
    shown.caption = f"{total:,} inputs without a crash"
    out.print(shown)


if __name__ == "__main__":
    main()
