"""Each shape of log that people have gives its text, label, teacher, tokens, cost, time and user."""

import csv
import gzip
import importlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tracer_serve.errors import ImportFileError
from tracer_serve.storage.importers import ReadOptions, read_traces
from tracer_serve.storage.importers.calls import read_calls
from tracer_serve.types import Trace

_SYSTEM = {"role": "system", "content": "Classify the customer's message."}
_USER = {"role": "user", "content": "where is my card"}
_COMPLETION = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1_724_858_089, "model": "gpt-4.1-mini-2025-04-14",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "card_arrival"}}],
    "usage": {"prompt_tokens": 24, "completion_tokens": 3, "total_tokens": 27},
}  # fmt: skip
_RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1_724_858_089, "model": "gpt-4.1-mini-2025-04-14",
    "output": [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "card_arrival"}]},
    ],
    "usage": {"input_tokens": 24, "output_tokens": 3, "total_tokens": 27},
}  # fmt: skip
_RESPONSE_CALL = {
    **_RESPONSE,
    "output": [{"type": "function_call", "name": "f", "call_id": "c1", "arguments": '{"label": "card_arrival"}'}],
}
_ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "where is my card"}]},
    {"type": "function_call_output", "call_id": "c0", "output": "{}"},
]
_PARTS_IN = [{"role": "user", "parts": [{"type": "text", "content": "where is my card"}]}]
_PARTS_OUT = [{"role": "assistant", "parts": [{"type": "text", "content": "card_arrival"}], "finish_reason": "stop"}]


def _otlp(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {"arrayValue": {"values": [_otlp(part) for part in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [{"key": key, "value": _otlp(part)} for key, part in value.items()]}}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}


_GEN_AI = {
    "gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4.1-mini", "gen_ai.usage.input_tokens": 24,
    "gen_ai.usage.output_tokens": 3, "gen_ai.input.messages": json.dumps([_SYSTEM, *_PARTS_IN]),
    "gen_ai.output.messages": json.dumps(_PARTS_OUT),
}  # fmt: skip
_STRUCTURED = {**_GEN_AI, "gen_ai.input.messages": _PARTS_IN, "gen_ai.output.messages": _PARTS_OUT}


def _span(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"name": "chat", "attributes": [{"key": key, "value": _otlp(value)} for key, value in attributes.items()]}


def _spans(*spans: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}


_CALL = {"function": {"name": "f", "arguments": '{"label": "card_arrival"}'}}


def _chained(kind: str, content: str) -> dict[str, Any]:
    """Return a message as LangChain serialises it."""
    kwargs = {"content": content, "type": kind.lower()}
    return {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", f"{kind}Message"],
        "kwargs": kwargs,
    }


_PLAIN = [
    {"input": "where is my card", "teacher": "card_arrival"},
    *(
        {name: "where is my card", "label": "card_arrival"}
        for name in ("text", "query", "prompt", "message", "sentence")
    ),
    *({"text": "where is my card", name: "card_arrival"} for name in ("answer", "output", "intent", "category")),
    {"Text": "where is my card", " Label ": " card_arrival "},
    ["where is my card", "card_arrival"],
    {"input": [_SYSTEM, _USER], "output": {"role": "assistant", "content": "card_arrival"}},
    {"messages": [_SYSTEM, _USER], "label": "card_arrival"},
    {"input": "where is my card", "teacher_output": {"label": "card_arrival"}, "id": 3, "ground_truth": "lost_card"},
]
_CHATS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [_SYSTEM, _USER, {"role": "assistant", "content": "card_arrival"}]},
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "where is "}, {"type": "text", "text": "my card"}]},
            {"role": "assistant", "content": '{"intent": "card_arrival", "confidence": 0.9}'},
        ]
    },
    "tool call": {
        "messages": [
            _USER,
            {"role": "assistant", "tool_calls": [_CALL]},
        ]
    },
    "code block": {
        "messages": [_USER, {"role": "assistant", "content": '```json\n{"intent": "card_arrival"}\n```'}],
    },
    "completion": {**_COMPLETION, "messages": [_SYSTEM, _USER]},
    "request and response": {"request": {"messages": [_USER], "model": "gpt-4.1-mini"}, "response": _COMPLETION},
    "response": {**_RESPONSE, "input": "where is my card"},
    "response with items": {**_RESPONSE, "instructions": "Classify.", "input": _ITEMS},
    "response request": {"request": {"model": "gpt-4.1-mini", "input": _ITEMS}, "response": _RESPONSE_CALL},
    "langfuse response": {
        "traceId": "t1", "type": "GENERATION", "model": "gpt-4.1-mini",
        "input": {"instructions": "Classify.", "input": _ITEMS}, "output": _RESPONSE,
    },
    "langfuse output items": {"traceId": "t1", "input": "where is my card", "output": _RESPONSE["output"]},
    "litellm response": {
        "call_type": "aresponses", "status": "success", "model": "gpt-4.1-mini", "messages": "where is my card",
        "response": _RESPONSE,
    },
    "litellm spend logs response": {
        "call_type": "aresponses", "model": "gpt-4.1-mini", "messages": "{}", "response": json.dumps(_RESPONSE),
        "proxy_server_request": json.dumps({"input": _ITEMS}),
    },
    "langfuse": {
        "id": "o1", "traceId": "t1", "type": "GENERATION", "startTime": "2024-08-28T15:14:49.000Z",
        "model": "gpt-4.1-mini", "input": {"messages": [_SYSTEM, _USER]}, "output": {"role": "assistant", "content":
        "card_arrival"}, "usageDetails": {"input": 24, "output": 3}, "totalCost": 0.5, "userId": "u1",
    },
    "langfuse blob storage": {
        "id": "o1", "trace_id": "t1", "type": "GENERATION", "start_time": "2024-08-28 15:14:49.000000",
        "provided_model_name": "gpt-4.1-mini", "input": json.dumps([_USER]), "output": "card_arrival",
        "usage_details": {"input": 24, "output": 3}, "total_cost": 0.5, "user_id": "u1",
    },
    "litellm": {
        "id": "c1", "call_type": "acompletion", "status": "success", "model": "gpt-4.1-mini", "messages": [_USER],
        "response": _COMPLETION, "response_cost": 0.5, "startTime": 1_724_858_089.0, "prompt_tokens": 24,
        "completion_tokens": 3, "end_user": "u1",
    },
    "litellm spend logs": {
        "request_id": "c1", "call_type": "acompletion", "model": "gpt-4.1-mini", "messages": "{}", "spend": 0.5,
        "response": json.dumps(_COMPLETION), "proxy_server_request": json.dumps({"messages": [_USER]}),
        "startTime": "2024-08-28T15:14:49+00:00",
    },
    "langsmith run": {
        "id": "r1", "run_type": "llm", "start_time": "2024-08-28T15:14:49", "error": None,
        "inputs": {"messages": [[_chained("System", "Classify."), _chained("Human", "where is my card")]]},
        "outputs": {"generations": [[{"text": "card_arrival", "message": _chained("AI", "card_arrival")}]],
        "llm_output": {"model_name": "gpt-4.1-mini"}}, "prompt_tokens": 24, "completion_tokens": 3, "total_cost": 0.5,
    },
    "langsmith tool call": {
        "run_type": "llm", "inputs": {"messages": [{"type": "human", "data": {"content": "where is my card"}}]},
        "outputs": {"generations": [[{"text": "", "message": {"kwargs": {"type": "ai", "content": "", "tool_calls":
        [{"name": "f", "args": {"label": "card_arrival"}, "id": "c1"}]}}}]]},
    },
    "langsmith client": {"run_type": "llm", "inputs": {"messages": [_SYSTEM, _USER]}, "outputs": _COMPLETION},
    "langsmith table": {"inputs": '{"question": "where is my card"}', "outputs": '{"answer": "card_arrival"}'},
    "langsmith example": {"inputs": {"ticket": "where is my card"}, "outputs": {"queue": "card_arrival"}},
    "otlp": _spans(_span(_GEN_AI)),
    "otlp structured": _spans(_span(_STRUCTURED)),
    "span": {"name": "chat", "attributes": _STRUCTURED, "start_time": "2024-08-28T15:14:49Z"},
}  # fmt: skip


def _read(path: Path, *records: Any, **reading: Any) -> list[Trace]:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return list(read_traces(path, "task", ReadOptions(**reading)))


@pytest.mark.parametrize("record", [*_PLAIN, *_CHATS.values()], ids=[*map(str, range(len(_PLAIN))), *_CHATS])
def test_text_and_label_are_found(tmp_path: Path, record: Any) -> None:
    """The last thing the user said is the text, what the model answered is the label, however it is wrapped."""
    assert [(one.input, one.teacher_label) for one in _read(tmp_path / "log.jsonl", record)] == [
        ("where is my card", "card_arrival")
    ]


@pytest.mark.parametrize("name", ["langfuse", "langfuse blob storage", "litellm"])
def test_what_else_a_log_knows(tmp_path: Path, name: str) -> None:
    """Teacher, time, tokens, cost and user of a log's record come along."""
    [one] = _read(tmp_path / "log.jsonl", _CHATS[name])
    assert one.metadata == {"teacher_model": "gpt-4.1-mini", "user": "u1"}
    assert one.ts == datetime(2024, 8, 28, 15, 14, 49, tzinfo=UTC)
    assert one.usage == {"prompt_tokens": 24, "completion_tokens": 3}
    assert one.cost == 0.5


@pytest.mark.parametrize(
    "names", [("text_a", "text_b"), ("premise", "hypothesis"), ("sentence_A", "sentence_B"), None], ids=str
)
def test_pairs(tmp_path: Path, names: tuple[str, str] | None) -> None:
    """Two fields with the usual names, or a list of two, are a pair."""
    texts = {"input": ["a man", "a person"]} if names is None else {names[0]: "a man", names[1]: "a person"}
    [one] = _read(tmp_path / "log.jsonl", {**texts, "label": "entailment"}, pair=True)
    assert (one.input, one.teacher_label) == (("a man", "a person"), "entailment")


def test_own_names(tmp_path: Path) -> None:
    """Fields of any name are taken where they are named, for texts and for pairs."""
    record = {"body": "a", "more": "b", "klass": "x", "label": "not this one"}
    [one] = _read(tmp_path / "log.jsonl", record, text_field="body", label_field="klass")
    assert (one.input, one.teacher_label) == ("a", "x")
    [pair] = _read(tmp_path / "log.jsonl", record, text_field=("body", "more"), label_field="klass")
    assert pair.input == ("a", "b")


_SPAM = '{"result": {"is_spam": true, "why": "it sells"}, "score": 0.5}'


@pytest.mark.parametrize(
    "record",
    [
        {"text": "a", "output": _SPAM},
        {"text": "a", "result": {"is_spam": True}},
        {"text": "a", "result": '{"is_spam": true}', "label": "not this one"},
        {"messages": [_USER, {"role": "assistant", "content": f"```json\n{_SPAM}\n```"}]},
        {"request": {"input": "a"}, "response": {"object": "response", "output": [
            {"type": "message", "content": [{"type": "output_text", "text": _SPAM}]}]}},
        {**_CHATS["langfuse"], "output": json.loads(_SPAM)},
    ],
    ids=["answer", "object", "column", "chat", "response", "langfuse"],
)  # fmt: skip
def test_a_label_inside_a_json_answer(tmp_path: Path, record: dict[str, Any]) -> None:
    """A path of names leads to the label, in the record and in the answer; a boolean is written as in JSON."""
    [one] = _read(tmp_path / "log.jsonl", record, label_field="result.is_spam")
    assert one.teacher_label == "true"


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    """The refusal names the path and what is there instead."""
    with pytest.raises(ImportFileError, match=r"no field 'result\.spam'; at 'spam' there is 'is_spam', 'why'"):
        _read(tmp_path / "log.jsonl", {"text": "a", "output": _SPAM}, label_field="result.spam")
    with pytest.raises(ImportFileError, match=r"no label among the answer's fields .* Name it: --label-field NAME"):
        _read(tmp_path / "log.jsonl", {"text": "a", "output": _SPAM})


def test_a_batch_of_responses(tmp_path: Path) -> None:
    """A batch of ``/v1/responses`` is joined with its requests, as one of chat completions is."""
    requests = tmp_path / "in.jsonl"
    requests.write_text(json.dumps({"custom_id": "r1", "url": "/v1/responses", "body": {"input": "where"}}))
    done = {"custom_id": "r1", "response": {"status_code": 200, "body": _RESPONSE}, "error": None}
    [one] = _read(tmp_path / "out.jsonl", done, requests=requests)
    assert (one.input, one.teacher_label) == ("where", "card_arrival")
    assert one.usage == {"prompt_tokens": 24, "completion_tokens": 3}
    assert one.ts == datetime(2024, 8, 28, 15, 14, 49, tzinfo=UTC)


def test_a_batch_and_its_requests(tmp_path: Path) -> None:
    """A batch's output is joined with its input file by custom id; requests that failed are left out."""
    requests = tmp_path / "in.jsonl"
    bodies = [{"messages": [{"role": "user", "content": f"text {n}"}]} for n in range(3)]
    lines = [{"custom_id": f"r{n}", "method": "POST", "body": body} for n, body in enumerate(bodies)]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = {"id": "b1", "custom_id": "r1", "response": {"status_code": 200, "body": _COMPLETION}, "error": None}
    failed = {**done, "custom_id": "r2", "response": {"status_code": 500, "body": {}}}
    expired = {**done, "custom_id": "r0", "response": None, "error": {"code": "batch_expired", "message": "late"}}
    [one] = _read(tmp_path / "out.jsonl", failed, done, expired, requests=requests)
    assert (one.input, one.teacher_label) == ("text 1", "card_arrival")
    with pytest.raises(Exception, match=r"--requests batch_input\.jsonl"):
        _read(tmp_path / "out.jsonl", done)


def test_what_is_no_call_is_left_out(tmp_path: Path) -> None:
    """Spans of other kinds and calls that failed are no refusals."""
    found = _read(
        tmp_path / "log.jsonl",
        {**_CHATS["langfuse"], "type": "SPAN"},
        {**_CHATS["litellm"], "status": "failure"},
        {**_CHATS["litellm"], "call_type": "aembedding"},
        {**_CHATS["langsmith run"], "run_type": "chain"},
        {**_CHATS["langsmith run"], "error": "RateLimitError"},
        _spans(_span({"http.method": "GET"})),
        _spans(_span(_GEN_AI), _span({"db": "x"}), _span(_GEN_AI)),
    )
    assert len(found) == 2


@pytest.mark.parametrize("text", ['{"order": 1}', "[1, 2]", "[]", '["a", "b"]', '{"broken'])
def test_a_text_may_be_json(tmp_path: Path, text: str) -> None:
    """A text that happens to be JSON is that text, not a structure to be taken apart."""
    [one] = _read(tmp_path / "log.jsonl", {"input": text, "teacher": "x"})
    assert one.input == text


@pytest.mark.parametrize("number", ["Infinity", "NaN", "-1e400", "1e300", '"soon"', "[]"])
def test_odd_numbers_do_no_harm(tmp_path: Path, number: str) -> None:
    """Impossible times and costs are left out, the trace is kept."""
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"input": "a", "teacher": "x", "timestamp": {number}, "cost": {number}}}\n')
    [one] = read_traces(path, "task")
    assert one.ts.year >= 2026 or number == "-1e400"
    assert 0.0 <= one.cost < float("inf")


@pytest.mark.parametrize(
    ("name", "delimiter"),
    [("t.csv", ","), ("t.csv", ";"), ("t.csv", "|"), ("t.tsv", "\t"), ("t", ","), ("t.csv.gz", ",")],
)
def test_tables(tmp_path: Path, name: str, delimiter: str) -> None:
    """CSV and TSV with named columns, quotes, line breaks in a text, a byte-order mark, gzipped or not."""
    path = tmp_path / name
    lines = ["text{0}extra{0}category", '"two\nlines{0} ""quoted"""{0}1{0}x', "شكرا{0}2{0}y", ""]
    content = ("\ufeff" + "\r\n".join(lines).format(delimiter)).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = [(one.input, one.teacher_label) for one in read_traces(path, "task")]
    assert found == [(f'two\nlines{delimiter} "quoted"', "x"), ("شكرا", "y")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"caf\xe9,x", "line 4: is not UTF-8"),
        (b"a,b,c", "line 4: has 3 fields, the header has 2"),
        (b'"never closed,x', "line 4: malformed CSV"),
        (b",x", "line 4: the text is empty"),
        (b"a,", "line 4: the label is empty"),
    ],
)
def test_a_bad_row_of_a_table(tmp_path: Path, row: bytes, reason: str) -> None:
    """A row that is no trace is named by the line on which it begins, after a text of two lines too."""
    path = tmp_path / "t.csv"
    path.write_bytes(b'text,label\n"two\nlines",x\n' + row + b"\nb,x\n")
    with pytest.raises(Exception, match=reason):
        list(read_traces(path, "task"))


def test_the_rows_behind_a_bad_one_are_read(tmp_path: Path) -> None:
    """A quote in the wrong place costs its own row; with one that is never closed, the end of the file is one row."""
    path = tmp_path / "t.csv"
    path.write_bytes(b'text,label\na,x\n"b"c,x\nd,x\n"e,x\nf,x\n')
    assert [one.input for one in read_traces(path, "task", skip_bad=True)] == ["a", "d"]


@pytest.mark.parametrize("ts", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-13-01", 1e300, []])
def test_a_time_that_is_none_is_not_told(tmp_path: Path, ts: Any) -> None:
    """The row counts as of now, also where the time is none only in UTC."""
    [one] = _read(tmp_path / "t.jsonl", {"input": "a", "teacher": "x", "ts": ts})
    assert abs((datetime.now(UTC) - one.ts).total_seconds()) < 60


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"data": rows, "meta": {}}], ids=["list", "data"])
def test_a_json_list(tmp_path: Path, wrap: Any) -> None:
    """A JSON file with a list of objects, bare or under `data`, over many lines or on one."""
    path = tmp_path / "t.json"
    for indent in (2, None):
        rows = [{"input": "a", "teacher": "x"}, {"input": "b", "teacher": "y"}]
        path.write_text(json.dumps(wrap(rows), indent=indent) + "\n")
        assert [one.input for one in read_traces(path, "task")] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", "text,label\na,x\n".encode("utf-16"), r"is UTF-16. Convert it: iconv -f utf-16 .*t\.utf8\.csv"),
        ("t.xlsx", b"PK\x03\x04 and so on", "Excel workbook. Unpack it, or save its sheet as CSV"),
        ("t.json", b'{\n"text": "a"\n}\n{\n"text": "b"\n}\n', r"write one per line: jq -c \. .*t\.json > .*t\.jsonl"),
    ],
    ids=["utf-16", "workbook", "documents"],
)
def test_a_file_that_is_something_else(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    """It is told as a whole, with the way out, not line by line."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImportFileError, match=says):
        list(read_traces(path, "task"))


def test_fields_that_nobody_knows(tmp_path: Path) -> None:
    """Text and label are asked for at once."""
    with pytest.raises(ImportFileError, match=r"Name it: --text-field NAME, and the label: --label-field NAME"):
        _read(tmp_path / "t.jsonl", {"Kundentext": "a", "Kategorie": "x"})


def test_a_json_file_with_lines(tmp_path: Path) -> None:
    """A file that is called .json but holds an object per line is read as such."""
    assert len(_read(tmp_path / "t.json", {"input": "a", "teacher": "x"}, {"input": "b", "teacher": "y"})) == 2


def test_parquet(tmp_path: Path) -> None:
    """Parquet is read row by row; a cut-off file is an error that names it."""
    arrow = pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    table = arrow.table({"text": [f"text {n}" for n in range(3_000)], "label": ["x", "y", "z"] * 1_000})
    importlib.import_module("pyarrow.parquet").write_table(table, path)
    found = list(read_traces(path, "task"))
    assert [one.input for one in found] == [f"text {n}" for n in range(3_000)]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Exception, match=r"t\.parquet: cannot be read as Parquet"):
        list(read_traces(path, "task"))


@pytest.mark.parametrize(("kind", "value"), [("timestamp[ns]", 1_700_000_000_000_000_001), ("timestamp[us]", 2**60)])
def test_parquet_that_python_has_no_value_for(tmp_path: Path, kind: str, value: int) -> None:
    """Nanoseconds, and years beyond 9999, are an error that names file and row, not a traceback."""
    arrow = pytest.importorskip("pyarrow")
    path = tmp_path / "t.parquet"
    table = arrow.table({"text": ["a"], "label": ["x"], "at": arrow.array([value]).cast(kind)})
    importlib.import_module("pyarrow.parquet").write_table(table, path)
    with pytest.raises(ImportFileError, match=r"t\.parquet: cannot be read as Parquet, row 1"):
        list(read_traces(path, "task"))


def test_an_unknown_format() -> None:
    """A format that there is not is refused with those that there are."""
    with pytest.raises(ValueError, match="is not one of auto, jsonl"):
        ReadOptions(fmt="xml")  # type: ignore[arg-type]


def test_long_fields(tmp_path: Path) -> None:
    """A CSV text of a megabyte is read, which Python's csv module refuses unless told."""
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], ["long " * 200_000, "x"]])
    [one] = read_traces(path, "task")
    assert len(one.input) == 1_000_000


@pytest.mark.parametrize(
    "line",
    [
        {"run_type": "llm", "inputs": {"prompt": "x"}, "outputs": {"generations": [[]]}},
        {"input": "x", "label": "red", "usage": {"prompt_tokens": 10**400}},
        {"messages": [_USER, {"role": "assistant", "content": f'{{"label": "red", "score": 1{"0" * 400}}}'}]},
    ],
)
def test_an_odd_line_does_not_end_an_import(tmp_path: Path, line: dict[str, Any]) -> None:
    """Empty lists and numbers beyond all bounds are read or refused by line, as traces and as calls."""
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps(one) for one in (line, {"input": "y", "label": "blue"})))
    assert [trace.input for trace in read_traces(file, "t", skip_bad=True)][-1] == "y"
    assert len(list(read_calls(file, ReadOptions()))) == 2
