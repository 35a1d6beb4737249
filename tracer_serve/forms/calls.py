"""Parse the body of an LLM call into its form and the message that holds the text."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tracer_serve.forms.form import Form, Turn
from tracer_serve.forms.translate import from_messages, from_responses

CHAT, RESPONSES, MESSAGES = "chat", "responses", "messages"
"""`Form.api` of calls of OpenAI's chat completions, of its Responses API, and of Anthropic's Messages API."""

NOT_ASKED = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "user", "safety_identifier", "metadata", "store"),
        *("seed", "service_tier", "prompt_cache_key", "prompt_cache_retention", "max_tokens", "max_completion_tokens"),
    }
)
"""Fields of a body that do not change the question: identity, transport, storage, price, and the answer's length."""

_DEFAULTS: Mapping[str, Any] = {"n": 1, "logprobs": False}
_OF_MESSAGE = "message"  # option that holds what the last message has beside its role and one text


class NotACallError(ValueError):
    """The body is no request of this API."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Parameters
    ----------
    form : its form, with the whole last user message as the slot; `Form.wrapped` narrows it
    message : the last message's text; None if the last message is not the user's or holds more than text
    stream : whether the caller wants server-sent events
    user : the end user whom the caller names
    body : the body as it was parsed
    """

    form: Form
    message: str | None
    stream: bool = False
    user: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


def parse(body: bytes | str | Mapping[str, Any], api: str | None = None) -> Call:
    """Parse the body of a call.

    Everything beside the last message, `NOT_ASKED` and nulls is part of the form, fields that are not known here
    included: what an unknown field does to the answer is unknown too. ``developer`` counts as ``system``.

    Parameters
    ----------
    api : whose request it is; None: `RESPONSES` where it has an input in place of messages, else `CHAT`

    Raises
    ------
    NotACallError
        If it is no JSON object with a model and messages, or names a field twice: servers differ in which they take.

    Examples
    --------
    >>> body = {"model": "gpt", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}
    >>> call = parse(body)
    >>> call.message, call.form.options
    ('hello', '{"temperature": 0}')
    """
    try:
        return _parse(body if isinstance(body, Mapping) else _decoded(body), api)
    except RecursionError:
        raise NotACallError("the body is nested too deeply") from None


def _parse(body: Any, api: str | None) -> Call:
    if not isinstance(body, Mapping) or not isinstance(body.get("model"), str):
        raise NotACallError("the body is no JSON object with a model")
    api = api or (RESPONSES if "input" in body and "messages" not in body else CHAT)
    translate = _AS_CHAT.get(api)
    asked = body if translate is None else translate(body)
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages:
        raise NotACallError(f"the body has no {'input' if api == RESPONSES else 'messages'}")
    read = [_Message.of(message) for message in messages]
    options = {name: value for name, value in asked.items() if name not in NOT_ASKED and value is not None}
    options = {name: value for name, value in options.items() if name not in _DEFAULTS or value != _DEFAULTS[name]}
    media = tuple(sorted({kind for message in read for kind in message.media}))
    last, before = read[-1], read[:-1]
    said = last.text
    if last.role != "user" or last.media:
        before, said = read, None
    elif last.rest:
        options[_OF_MESSAGE] = last.rest
    canonical = json.dumps(_canonical(options))
    turns = tuple(message.turn for message in before)
    form = Form(api, str(asked["model"]), turns, options=canonical, media=media)
    user = asked.get("user")
    named = user if isinstance(user, str) else None
    return Call(form, said, stream=asked.get("stream") is True, user=named, body=body)


_AS_CHAT: Mapping[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    RESPONSES: from_responses,
    MESSAGES: from_messages,
}


def slotted(body: bytes | str | Mapping[str, Any], mark: str, slots: int = 1, api: str | None = None) -> Form:
    """Parse a body with a placeholder for the text, or for each text of a pair; return its form.

    Raises
    ------
    NotACallError
        If it is no call, or the mark is not in the last user message as often as there are slots.

    Examples
    --------
    >>> body = {"model": "gpt", "messages": [{"role": "user", "content": "Tweet: {text} Label:"}]}
    >>> slotted(body, "{text}").around
    ('Tweet: ', ' Label:')
    """
    call = parse(body, api)
    around = (call.message or "").split(mark)
    if len(around) != slots + 1:
        times = "once" if slots == 1 else f"{slots} times"
        raise NotACallError(f"{mark} has to be in the last message, which is the user's, {times}")
    return call.form.wrapped(*around)


def as_conversation(call: Call, turns: int) -> Call:
    r"""Return a call whose text is its last turns, one line each, for tasks that classify conversations.

    Parameters
    ----------
    turns : how many of the last messages are the text, system messages not counted

    Examples
    --------
    >>> said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}]
    >>> call = parse({"model": "gpt", "messages": [*said, {"role": "user", "content": "my card"}]})
    >>> as_conversation(call, 2).message
    'assistant: yes?\nuser: my card'
    """
    if call.message is None:
        return call
    said = [*call.form.earlier, Turn("user", call.message)][-turns:]
    form = replace(call.form, turns=tuple(turn for turn in call.form.turns if turn.role == "system"))
    return replace(call, form=form, message="\n".join(f"{turn.role}: {turn.content}" for turn in said))


def _canonical(value: Any, ordered: bool = False) -> Any:
    """Sort the keys of all objects but a schema's properties: a model answers in their order."""
    if isinstance(value, dict):
        names = value if ordered else sorted(value)
        return {name: _canonical(value[name], ordered=not ordered and name == "properties") for name in names}
    return [_canonical(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class _Message:
    """A message taken apart; `rest` holds its other fields, and the number of its texts where that is not one."""

    role: str
    text: str | None
    media: tuple[str, ...] = ()
    rest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Any) -> "_Message":
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise NotACallError("a message has no role")
        role = "system" if message["role"] == "developer" else str(message["role"])
        rest = {name: value for name, value in message.items() if name not in ("role", "content") and value is not None}
        content = message.get("content")
        if content is None or isinstance(content, str):
            return cls(role, content, rest=rest)
        if not isinstance(content, list):
            raise NotACallError("a message's content is neither text nor a list of parts")
        texts = [part["text"] for part in content if _is_text(part)]
        kinds = [part.get("type") if isinstance(part, Mapping) else None for part in content if not _is_text(part)]
        if len(texts) != 1:
            rest["texts"] = len(texts)
        return cls(role, "\n".join(texts) if texts else None, tuple(str(kind) for kind in kinds), rest)

    @property
    def turn(self) -> Turn:
        """The message as a turn; tool calls, names and ids are part of what the model reads."""
        rest = json.dumps(self.rest, sort_keys=True) if self.rest else ""
        return Turn(self.role, "\n".join(part for part in (self.text, rest) if part))


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _decoded(body: bytes | str) -> Any:
    try:
        return json.loads(body, object_pairs_hook=_unique)
    except NotACallError:
        raise
    except ValueError as error:
        raise NotACallError(f"the body is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotACallError("the body names a field twice")
    return found
