"""Write the files of a task that was found in traffic: its YAML, the exact call, and its texts with labels."""

import json
from pathlib import Path
from typing import Any

import yaml

from tracer_serve.components.teachers._recorded import SLOT
from tracer_serve.errors import BadInputError
from tracer_serve.forms.calls import CHAT, RESPONSES
from tracer_serve.forms.form import Form
from tracer_serve.forms.translate import to_responses
from tracer_serve.report.discovery import FoundTask

_KEY = "${OPENAI_API_KEY}"


def write_task(folder: Path, found: FoundTask, base_url: str, alpha: float, api_key: str = _KEY) -> Path:
    """Write ``NAME.yaml``, ``NAME.call.json`` and ``NAME.traces.jsonl``; return the YAML's path.

    The call is a chat completion, which the teacher asks. Calls of the Responses API have a file of their own.

    Parameters
    ----------
    folder : output folder, created if missing
    base_url : root of the LLM's API
    alpha : the agreement to certify
    api_key : value of the key in the YAML; an environment variable, or ``pass_through``

    Raises
    ------
    BadInputError
        If one of the files exists, the form cannot be served, or the folder cannot be written.
    """
    form, name, labels = found.group.form, found.name, frozenset(found.group.label_set)
    if SLOT in "".join(form.around):
        raise BadInputError(f"{name}: its prompt contains {SLOT}, which marks the text in {name}.call.json")
    calls = {_request(name, CHAT): call_of(form)}
    if form.api == RESPONSES:
        calls[_request(name, RESPONSES)] = to_responses(call_of(form))
    files = {
        folder / f"{name}.yaml": _yaml(found, base_url, alpha, api_key),
        **{folder / file: json.dumps(call, ensure_ascii=False, indent=1) + "\n" for file, call in calls.items()},
        folder / f"{name}.traces.jsonl": "".join(
            json.dumps({"input": example.text, "teacher": example.label}, ensure_ascii=False) + "\n"
            for example in found.group.examples
            if example.label in labels
        ),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if there := next((file for file in files if file.exists()), None):
            raise BadInputError(f"{there}: exists already; remove it, or write into another folder")
        for file, content in files.items():
            file.touch(0o600)  # texts of users
            file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be written: {error.strerror}. Check: ls -ld {folder}") from error
    return folder / f"{name}.yaml"


def several_answers(found: FoundTask) -> str:
    """Return why no call of a found task would be handled as proposed, and what to write instead."""
    return (
        f"The calls' schema asks for {', '.join(found.also_asked)} beside one label: nothing is handled until `fields`"
        " replaces `labels`, or the form's `when_handled` sets them. See docs/how-to/several-answers.md"
    )


def call_of(form: Form) -> dict[str, Any]:
    """Return the body of a call of a form, with `SLOT` in place of the text."""
    turns = [{"role": turn.role, "content": turn.content} for turn in form.turns]
    last = {"role": "user", "content": SLOT.join(form.around)}
    return {"model": form.model, "messages": [*turns, last], **form.option_values}


def _request(name: str, api: str) -> str:
    return f"{name}.call.json" if api == CHAT else f"{name}.{api}.json"


def _yaml(found: FoundTask, base_url: str, alpha: float, api_key: str) -> str:
    group, name = found.group, found.name
    request = _request(name, CHAT)
    form: dict[str, Any] = {"name": "observed", "request": _request(name, group.form.api), "same_as": "teacher"}
    if handled := found.when_handled:
        form["when_handled"] = handled
    teacher: dict[str, Any] = {"type": "openai", "base_url": base_url, "model": group.form.model, "api_key": api_key}
    spec = {
        "name": name,
        "labels": list(group.label_set),
        "gate": {"alpha": alpha},
        "teacher": {**teacher, "request": request},
        "forms": [form],
        "traces": {"import": [f"{name}.traces.jsonl"]},
    }
    known = (
        "the labels are those of the calls' schema" if group.enum else "the labels are those that were seen: add others"
    )
    also = f"# {several_answers(found)}\n" if found.also_asked else ""
    head = f"# Found in {group.totals.calls:,} calls; {known}.\n{also}# Check it: tracer-serve check {name}.yaml\n"
    return head + yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=120)
