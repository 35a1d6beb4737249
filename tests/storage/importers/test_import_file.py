"""What an import does to a store: all or nothing, once, and with an account of what was found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tasks import banking
from tracer_serve.errors import ImportFileError
from tracer_serve.forms.slot import Slot
from tracer_serve.storage.importers import import_file, read_traces
from tracer_serve.storage.importers import importer as importing
from tracer_serve.storage.importers.summary import survey
from tracer_serve.storage.traces import TraceStore

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes records, or lines as they are, to a JSONL file."""

    def to_file(*lines: Any, name: str = "traces.jsonl") -> Path:
        path = tmp_path / name
        written = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        path.write_bytes(b"\n".join(written) + b"\n")
        return path

    return to_file


def _labels(store: TraceStore) -> list[tuple[Any, str | None]]:
    return [(one.input, one.teacher_label) for one in store.traces.labelled()]


def test_an_import(store: TraceStore, write: Write) -> None:
    """Rows come in as imported traces in the order of the file, and the summary counts what was found."""
    path = write(
        {"input": "where is my card", "teacher": "card_arrival"},
        {"input": "where is my card", "teacher": "card_arrival"},
        {"input": "where is my card", "teacher": "lost_card"},
        {"input": "hello", "teacher": "greeting"},
    )
    summary = import_file(store, path)
    assert (summary.rows, summary.imported, summary.duplicates, summary.refused) == (4, 4, 1, 0)
    assert summary.labels == {"card_arrival": 2, "greeting": 1, "lost_card": 1}
    assert summary.once == ("greeting", "lost_card")
    assert summary.contradictory == 1
    assert (summary.contradictions[0].line, summary.contradictions[0].earlier) == (3, "card_arrival")
    first = next(store.traces.labelled())
    assert (first.label_source, first.decision, first.version, first.audit_rate) == ("import", None, None, 1.0)
    assert [label for _, label in _labels(store)] == ["card_arrival", "card_arrival", "lost_card", "greeting"]
    assert store.tallies.counts().by_source == {"import": 4}


def test_a_second_import_adds_nothing(store: TraceStore, write: Write, tmp_path: Path) -> None:
    """The same bytes, under another name too, are imported once; other bytes are another file."""
    path = write({"input": "a", "teacher": "x"})
    import_file(store, path)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    again = import_file(store, copy)
    assert (again.already, again.imported) == (True, 0)
    assert import_file(store, write({"input": "a", "teacher": "y"})).imported == 1
    assert _labels(store) == [("a", "x"), ("a", "y")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("head", [b"", b"input,teacher"], ids=["jsonl", "csv"])
def test_a_file_that_grew_brings_its_new_lines(store: TraceStore, tmp_path: Path, head: bytes, end: bytes) -> None:
    """A log that is imported again and again has each line in the store once, also one that stands in it twice."""
    path = tmp_path / ("log.csv" if head else "log.jsonl")
    rows = [b"%s,x" % text if head else b'{"input": "%s", "teacher": "x"}' % text for text in (b"a", b"b", b"a", b"c")]
    lines = [head, *rows] if head else rows
    for length in (1, 2, 4):
        path.write_bytes((end or b"\n").join(lines[: length + bool(head)]) + end)
        import_file(store, path)
    assert [text for text, _ in _labels(store)] == ["a", "b", "a", "c"]


def test_a_dry_run_writes_nothing(file_store: TraceStore, write: Write) -> None:
    """A dry run counts as an import would, before and after a real one, and leaves the store as it is."""
    path = write({"input": "a", "teacher": "x"}, {"input": "b", "teacher": "x"})
    summary = import_file(file_store, path, dry_run=True)
    assert (summary.rows, summary.imported, summary.labels, summary.already) == (2, 0, {"x": 2}, False)
    assert _labels(file_store) == []
    import_file(file_store, path)
    after = import_file(file_store, path, dry_run=True)
    assert (after.rows, after.already) == (2, True)


_BAD = [
    (b'{"input": "cut off', "malformed JSON"),
    ({"teacher": "x"}, "has no text: no field input, text"),
    ({"input": "a"}, "has no label: no field teacher"),
    ({"input": "   ", "teacher": "x"}, "the text is empty"),
    ({"input": "a", "teacher": ""}, "the label is empty"),
    ({"input": "a", "teacher": None}, "has no label"),
    (b'{"input": "a", "teacher": NaN}', "has no label"),
    ({"input": 5, "teacher": "x"}, "the text is a int, not a string"),
    ({"input": "a", "teacher": ["x", "y"]}, "the label is a list"),
    ({"input": ["a", "b", "c"], "teacher": "x"}, "a list of 3; a pair has two"),
    ({"input": ["a", "b"], "teacher": "x"}, "has a pair, the task wants one text"),
    ({"input": "a", "teacher": "xy"}, "label 'xy' is not in the task's label set; did you mean 'x'"),
    (b'{"input": "caf\xe9", "teacher": "x"}', "is not UTF-8 (byte 0xe9"),
    (b"17", "is a JSON int, not an object"),
    (b"[" * 100_000, "nested too deeply"),
    ({"resourceSpans": [5]}, "does not have the structure of its format"),
]


@pytest.mark.parametrize(("bad", "reason"), _BAD, ids=[reason for _, reason in _BAD])
def test_a_refused_line_refuses_the_file(file_store: TraceStore, write: Write, bad: Any, reason: str) -> None:
    """A line that is no trace is named with file, line and reason, and nothing of the file is imported."""
    path = write({"input": "a", "teacher": "x"}, b"", bad)
    with pytest.raises(ImportFileError) as caught:
        import_file(file_store, path, labels=["x", "long_label"], pair=False)
    assert f"{path}: line 3: " in str(caught.value)
    assert reason in str(caught.value)
    assert "nothing was imported" in str(caught.value)
    assert _labels(file_store) == []
    skipped = import_file(file_store, path, labels=["x", "long_label"], pair=False, skip_bad=True)
    assert (skipped.imported, skipped.refused, skipped.refusals[0].line) == (1, 1, 3)


def test_many_refusals_are_few_lines(file_store: TraceStore, write: Write) -> None:
    """The error shows the first refusal of each reason and counts the rest."""
    with pytest.raises(ImportFileError) as caught:
        import_file(file_store, write(*[{"input": "a"}, {"input": "", "teacher": "x"}] * 1_000))
    assert str(caught.value).count("traces.jsonl: line") == 2
    assert "line 2: the text is empty (and 499 more lines)" in str(caught.value)
    assert "and 1,000 more" in str(caught.value)


def test_another_case_of_a_closed_label(file_store: TraceStore, write: Write) -> None:
    """It is read as the label that is meant, as in the teacher's answers; where two could be, it is refused."""
    path = write({"input": "a", "teacher": "CARD_lost "}, {"input": "b", "teacher": "Card_Lost"})
    assert import_file(file_store, path, labels=["card_lost", "x"]).labels == {"card_lost": 2}
    with pytest.raises(ImportFileError, match="label 'CARD_lost' is not in the task's label set"):
        import_file(file_store, path, labels=["card_lost", "card_LOST"], dry_run=True)


def test_files_without_traces(file_store: TraceStore, write: Write, tmp_path: Path) -> None:
    """A missing, an empty and an all-refused file each say so; a folder is none."""
    for path, problem in [
        (tmp_path / "missing.jsonl", "there is no such file"),
        (write(b"", name="empty.jsonl"), "has no traces"),
        (write(b"", name="empty.csv"), "is empty"),
        (tmp_path, "cannot be read"),
    ]:
        with pytest.raises(ImportFileError, match=problem):
            import_file(file_store, path)
    with pytest.raises(ImportFileError, match="has no traces; the first refusal: line 1"):
        import_file(file_store, write({"input": "a"}), skip_bad=True)


def test_mixed_teachers(file_store: TraceStore, write: Write) -> None:
    """A file with the answers of two teachers is refused, with their names, unless it is meant."""
    path = write({"input": "a", "teacher": "x", "model": "big"}, {"input": "b", "teacher": "x", "model": "small"})
    with pytest.raises(ImportFileError, match=r"2 teachers: big \(1 rows\), small \(1 rows\)"):
        import_file(file_store, path)
    summary = import_file(file_store, path, any_teacher=True)
    assert (summary.imported, summary.teachers) == (2, {"big": 1, "small": 1})
    assert [one.metadata["teacher_model"] for one in file_store.traces.labelled()] == ["big", "small"]


@pytest.mark.parametrize(
    ("model", "same"),
    [("gpt-4.1-mini", True), ("openai/gpt-4.1-mini-2025-04-14", True), ("gpt-4.1", False), ("gpt-4.1-mini-x", False)],
)
def test_another_teachers_file(file_store: TraceStore, write: Write, model: str, same: bool) -> None:
    """A file of another teacher than the task's is refused; a snapshot's date or a provider's name is no other."""
    path = write({"input": "a", "teacher": "x", "model": model})
    if not same:
        with pytest.raises(ImportFileError, match=r"the task's teacher is gpt-4\.1-mini"):
            import_file(file_store, path, teacher="gpt-4.1-mini")
    assert import_file(file_store, path, teacher="gpt-4.1-mini", any_teacher=not same).imported == 1


def test_a_file_that_changes_meanwhile(file_store: TraceStore, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is written to while it is imported is refused, and none of it is in the store."""
    path = write({"input": "a", "teacher": "x"})

    def slow_survey(*arguments: Any) -> Any:
        summary = survey(*arguments)
        path.write_text('{"input": "b", "teacher": "x"}\n')
        return summary

    monkeypatch.setattr(importing, "survey", slow_survey)
    with pytest.raises(ImportFileError, match="changed while it was imported"):
        import_file(file_store, path)
    assert _labels(file_store) == []
    monkeypatch.undo()
    assert import_file(file_store, path).imported == 1


PROMPT = "Which intent does this message have? Answer with its name.\n\nMessage: ", "\n\nIntent:"


def _wrapped(rows: int) -> list[dict[str, str]]:
    texts, labels = banking(rows)
    return [{"input": text.join(PROMPT), "teacher": label} for text, label in zip(texts, labels, strict=True)]


def test_a_wrapper_that_all_texts_share_is_removed(store: TraceStore, write: Write) -> None:
    """The store gets the texts without the prompt around them, and the summary has the prompt and how many had it."""
    summary = import_file(store, write(*_wrapped(60), {"input": "a bare one", "teacher": "x"}))
    assert summary.wrapper == Slot(*PROMPT)
    assert (summary.rows, summary.unwrapped, summary.imported) == (61, 60, 61)
    assert [text for text, _ in _labels(store)] == [*banking(60)[0], "a bare one"]


def test_a_wrapper_is_removed_without_a_store_too(write: Write) -> None:
    """`read_traces`, which scan and the offline teacher use, gives the same texts as an import."""
    found = read_traces(write(*_wrapped(60)), "task")
    assert [trace.input for trace in found] == banking(60)[0]


def test_a_wrapper_can_be_kept(store: TraceStore, write: Write) -> None:
    """With `keep_wrapper` texts are stored as they are."""
    summary = import_file(store, write(*_wrapped(60)), keep_wrapper=True)
    assert (summary.wrapper, summary.unwrapped) == (None, 0)
    assert [text for text, _ in _labels(store)] == [row["input"] for row in _wrapped(60)]


@pytest.mark.parametrize(
    ("before", "after", "rows"),
    [("", "", 60), ("how do I ", "", 60), ("", " please", 60), ("", "?", 60), ("Tweet: ", "", 19)],
    ids=["bare", "same words", "same last word", "question marks", "few rows"],
)
def test_what_texts_have_in_common_by_chance_is_kept(
    store: TraceStore, write: Write, before: str, after: str, rows: int
) -> None:
    """Texts that begin or end alike without a delimiter, and fewer than twenty texts, are stored as they are."""
    texts = [f"{before}{text}{after}" for text in banking(rows)[0]]
    summary = import_file(store, write(*({"input": text, "teacher": "x"} for text in texts)))
    assert summary.wrapper is None
    assert [text for text, _ in _labels(store)] == texts


def test_html_entities_are_counted(store: TraceStore, write: Write) -> None:
    """Texts with entities are imported unchanged and counted; an ampersand alone is none."""
    texts = ["fish &amp; chips", "&#8220;quoted&#8221;", "R&D; AT&T", "a &nbsp b"]
    summary = import_file(store, write(*({"input": text, "teacher": "x"} for text in texts)))
    assert summary.escaped == 2
    assert [text for text, _ in _labels(store)] == texts


def test_reading_without_a_store(write: Write) -> None:
    """Traces can be streamed from a file alone; the first refused line ends the stream unless it is to be skipped."""
    path = write({"input": "a", "teacher": "x"}, {"input": "b"}, {"input": "c", "teacher": "y"})
    assert [one.input for one in read_traces(path, "task", skip_bad=True)] == ["a", "c"]
    with pytest.raises(ImportFileError, match="line 2: has no label"):
        list(read_traces(path, "task"))


def test_a_large_import(store: TraceStore, write: Write) -> None:
    """More rows than one statement takes come in whole, in order."""
    path = write(*({"input": f"text {n}", "teacher": f"label {n % 7}"} for n in range(6_001)))
    assert import_file(store, path).imported == 6_001
    assert [text for text, _ in _labels(store)] == [f"text {n}" for n in range(6_001)]


def test_one_list_of_a_json_object_of_lists(store: TraceStore, tmp_path: Path) -> None:
    """``file.json#key`` imports one list of the file; another list of it is another import; a wrong key lists them."""
    file = tmp_path / "splits.json"
    file.write_text('{"train": [["a", "x"], ["b", "y"]], "test": [["c", "x"]]}', encoding="utf-8")
    assert import_file(store, f"{file}#train").imported == 2
    assert import_file(store, f"{file}#test").imported == 1
    assert import_file(store, f"{file}#train").already
    with pytest.raises(ImportFileError, match="has no list 'val'; it has: train, test"):
        import_file(store, f"{file}#val")
