"""The known forms of a task: match a call against them, or say which rule it breaks."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tracer_serve.forms.calls import Call
from tracer_serve.forms.form import Form, split
from tracer_serve.types import Text

NATIVE = "native"
"""Fingerprint and name of the form of direct calls: the task's own question, asked by ``POST /v1/classify``."""

SAMPLING = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})
ANSWER_SHAPE = frozenset(
    {
        *("response_format", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"),
        *("guided_json", "guided_choice", "structured_outputs", "format"),
    }
)
"""Options that say in which shape the label is wanted."""

Rule = Literal[
    "unsupported_content",
    "no_user_text",
    "earlier_turns",
    "unknown_model",
    "unknown_prompt",
    "unknown_options",
    "unknown_api",
]
RULES: tuple[Rule, ...] = get_args(Rule)
"""Why a call is no call of a known form, in the order in which the rules are checked."""

NOT_A_CALL, AMBIGUOUS, OTHER_ROUTE = "not_a_call", "ambiguous", "other_route"
FORWARD_REASONS = (*RULES, NOT_A_CALL, AMBIGUOUS, OTHER_ROUTE)
"""Why calls are forwarded unanswered: bounded words for metrics and headers."""


@dataclass(frozen=True, slots=True)
class KnownForm:
    """A form whose calls belong to the task.

    Parameters
    ----------
    name : ``native``, ``teacher``, or as the YAML names it
    form : what calls are compared with
    fingerprint : as rows keep it
    certified_as : fingerprint of the form whose certificate covers it; its own, unless the YAML says ``same_as``
    exact : whether sampling options have to be equal too; otherwise they may be left out on either side
    any_shape : whether the label may be wanted in any shape and through any API (direct calls)
    when_handled : what a handled answer says in fields beside the label, see `config.forms`
    """

    name: str
    form: Form
    fingerprint: str
    certified_as: str
    exact: bool = False
    any_shape: bool = False
    when_handled: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """A call of a known form, and the text in its slot."""

    known: KnownForm
    text: Text


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why a call is of no known form, by the form that it comes nearest to.

    Parameters
    ----------
    rule : the first rule that it breaks
    nearest : name of that form
    detail : what differs, without a word of the call's texts
    """

    rule: Rule
    nearest: str
    detail: str


def recognise(call: Call, known: Iterable[KnownForm]) -> Match | Mismatch:
    """Match a call against known forms; the first that fits counts.

    Examples
    --------
    >>> from tracer_serve.forms.calls import parse
    >>> native = KnownForm("native", Form("chat", "colours"), NATIVE, NATIVE)
    >>> body = {"model": "colours", "messages": [{"role": "user", "content": "a rose"}]}
    >>> recognise(parse(body), [native]).text
    'a rose'
    >>> recognise(parse(body | {"model": "gpt"}), [native]).rule
    'unknown_model'
    """
    nearest, best = Mismatch("unknown_prompt", NATIVE, "the task has no form"), (-1, 0)
    for one in known:
        text = None if call.message is None else split(one.form, call.message)
        broken = list(_broken(call, one, text))
        if not broken and text is not None:
            return Match(one, text)
        rule, detail = broken[0]
        if (near := (RULES.index(rule), -len(broken))) > best:
            nearest, best = Mismatch(rule, one.name, detail), near
    return nearest


def _broken(call: Call, known: KnownForm, text: Text | None) -> Iterator[tuple[Rule, str]]:
    """Yield the rules that a call breaks, in their order, each with what differs."""
    asked, form = call.form, known.form
    if asked.media:
        yield "unsupported_content", f"the call holds {', '.join(asked.media)}; only text is classified"
    if call.message is None:
        yield "no_user_text", "the last message is not a text of the user"
        return
    if asked.earlier != form.earlier:
        yield (
            "earlier_turns",
            f"it has {len(asked.earlier)} earlier turns, the form {len(form.earlier)}, or other words",
        )
    if asked.model != form.model:
        yield "unknown_model", f"it asks the model {asked.model[:64]!r}, the form {form.model!r}"
    if [said.strip() for said in asked.system] != [said.strip() for said in form.system]:
        yield "unknown_prompt", _other_words("system message", "\n".join(asked.system), "\n".join(form.system))
    if text is None:
        yield "unknown_prompt", _other_wrapper(call.message, form)
    if options := _options_that_differ(asked.option_values, known):
        yield "unknown_options", "; ".join(options)
    if asked.api != form.api and not known.any_shape:
        yield "unknown_api", f"it came through the API {asked.api!r}, the form through {form.api!r}"


def _other_words(what: str, said: str, wanted: str) -> str:
    if not said or not wanted:
        return f"{'the' if said else 'the form has a'} {what} {'is not in the form' if said else 'that the call lacks'}"
    return f"the {what} differs from character {_common(said, wanted) + 1:,} on"


def _other_wrapper(message: str, form: Form) -> str:
    before, after = form.around[0], form.around[-1]
    if not message.startswith(before):
        return _other_words("beginning of the user message", message[: len(before)], before)
    if not message.endswith(after):
        end = _common(message[::-1], after[::-1])
        return f"the user message ends differently: only its last {end:,} characters are those of the form"
    return "the user message does not have the slots of the form, or has them more than once"


def _common(first: str, second: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _options_that_differ(asked: Mapping[str, Any], known: KnownForm) -> list[str]:
    wanted = known.form.option_values
    found = []
    for name in sorted({*asked, *wanted}):
        there, expected = name in asked, name in wanted
        # as text: a model answers in the order of a schema's properties
        if there and expected and json.dumps(asked[name]) == json.dumps(wanted[name]):
            continue
        if name in SAMPLING and not known.exact and not (there and expected):
            continue
        if known.any_shape and name in ANSWER_SHAPE:
            continue
        how = "has another value" if there and expected else "is not in the form" if there else "is missing"
        found.append(f"{name} {how}")
    return found
