"""Translate bodies of OpenAI's Responses API and Anthropic's Messages API into chat completion bodies, and back.

A form is compared, and an answer's shape is read, in the vocabulary of chat completions alone. Fields without a
counterpart keep their names, so that a call with one that is not known differs from every form.
"""

from collections.abc import Mapping
from typing import Any

_LIMITS = frozenset({"cache_control", "inference_geo"})  # of Anthropic: neither changes the question
_SPOKEN = ("input_text", "output_text")


def from_responses(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body of ``POST /v1/responses`` as one of chat completions.

    Examples
    --------
    >>> from_responses({"model": "gpt", "instructions": "Be brief.", "input": "hi"})["messages"]
    [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': 'hi'}]
    """
    chat = dict(body)
    said, wanted = chat.pop("input", None), chat.pop("text", None)
    system, tools = chat.pop("instructions", None), chat.get("tools")
    chat.pop("max_output_tokens", None)
    chat.update(_format_of(wanted, "text"))
    if isinstance(tools, list):
        chat["tools"] = [_function(tool, "function", "parameters") for tool in tools]
    choice: Any = chat.get("tool_choice")
    if _type_of(choice) == "function":
        chat["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    items = [{"role": "user", "content": said}] if isinstance(said, str) else said
    if isinstance(items, list):
        first = [{"role": "system", "content": system}] if system else []
        chat["messages"] = [*first, *map(_item, items)]
    defaults = {"background": False, "truncation": "disabled"}
    return {name: value for name, value in chat.items() if name not in defaults or value != defaults[name]}


def to_responses(chat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of ``POST /v1/responses`` that `from_responses` reads as a chat completion body.

    Examples
    --------
    >>> to_responses({"model": "gpt", "messages": [{"role": "user", "content": "hi"}]})
    {'model': 'gpt', 'input': [{'role': 'user', 'content': 'hi'}]}
    """
    body = dict(chat)
    body["input"], wanted = body.pop("messages"), body.pop("response_format", None)
    if _type_of(wanted) == "json_schema":
        wanted = {"type": "json_schema", **wanted["json_schema"]}
    if wanted is not None:
        body["text"] = {**body.get("text", {}), "format": wanted}
    if isinstance(tools := body.get("tools"), list):
        body["tools"] = [_flat(tool) for tool in tools]
    if "tool_choice" in body:
        body["tool_choice"] = _flat(body["tool_choice"])
    return body


def _flat(tool: Any) -> Any:
    if _type_of(tool) == "function" and isinstance(tool.get("function"), Mapping):
        return {"type": "function", **tool["function"]}
    return tool


def from_messages(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body of Anthropic's ``POST /v1/messages`` as one of chat completions.

    Examples
    --------
    >>> body = {"model": "claude", "max_tokens": 9, "system": "Be brief.", "messages": []}
    >>> from_messages(body)["messages"]
    [{'role': 'system', 'content': 'Be brief.'}]
    """
    chat = {name: value for name, value in body.items() if name not in _LIMITS}
    system, tools, choice = chat.pop("system", None), chat.get("tools"), chat.pop("tool_choice", None)
    chat.update(_format_of(chat.pop("output_config", None), "output_config"))
    if isinstance(tools, list):
        chat["tools"] = [_function(tool, "custom", "input_schema") for tool in tools]
    if choice is not None:
        chat.update(_choice(choice))
    if isinstance(chat.get("messages"), list):
        first = [{"role": "system", "content": system}] if system else []
        chat["messages"] = [*first, *chat["messages"]]
    if isinstance(metadata := chat.get("metadata"), Mapping):
        chat["user"] = metadata.get("user_id")
    return chat


def _format_of(config: Any, name: str) -> dict[str, Any]:
    """Return ``response_format`` and, under the block's own name, what else the block says."""
    if not isinstance(config, Mapping):
        return {} if config is None else {name: config}
    rest = {key: value for key, value in config.items() if key != "format" and value is not None}
    wanted: Any = config.get("format")
    found: dict[str, Any] = {name: rest} if rest else {}
    if _type_of(wanted) == "json_schema":
        inner = {key: value for key, value in wanted.items() if key != "type"}
        return found | {"response_format": {"type": "json_schema", "json_schema": inner}}
    return found if wanted is None or _type_of(wanted) == "text" else found | {"response_format": wanted}


def _function(tool: Any, kind: str, schema: str) -> Any:
    """Return a tool as chat completions name it; a tool of another type as it is."""
    if not isinstance(tool, Mapping) or tool.get("type", "custom") not in (kind, None):
        return tool
    named = {"name": tool.get("name"), "parameters": tool.get(schema)}
    rest = {k: v for k, v in tool.items() if k not in ("type", "name", schema, "cache_control") and v is not None}
    return {"type": "function", "function": named | rest}


def _choice(choice: Any) -> dict[str, Any]:
    """Return ``tool_choice`` of Anthropic in the words of chat completions."""
    kind = _type_of(choice)
    words: dict[Any, Any] = {"any": "required", "auto": "auto", "none": "none"}
    if kind == "tool":
        words["tool"] = {"type": "function", "function": {"name": choice.get("name")}}
    found: dict[str, Any] = {"tool_choice": words.get(kind, choice)}
    if isinstance(choice, Mapping) and choice.get("disable_parallel_tool_use"):
        found["parallel_tool_calls"] = False
    return found


def _item(item: Any) -> Any:
    """Return an input item as a message; one that is no message has its type as its role."""
    if not isinstance(item, Mapping):
        return item
    rest = {name: value for name, value in item.items() if name not in ("type", "id", "status")}
    content = item.get("content")
    if isinstance(content, list):
        rest["content"] = [_part(part) for part in content]
    return rest if "role" in item else {"role": item.get("type"), **rest}


def _part(part: Any) -> Any:
    if _type_of(part) in _SPOKEN:
        return {"type": "text", "text": part.get("text")}
    return part


def _type_of(value: Any) -> Any:
    return value.get("type") if isinstance(value, Mapping) else None
