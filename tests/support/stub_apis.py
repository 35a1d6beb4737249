"""The stub LLM server's other APIs: OpenAI's Responses and Anthropic's Messages, each as strict as the real one."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Body = dict[str, Any]

_RESPONSES_FIELDS = frozenset(
    {
        *("background", "include", "input", "instructions", "max_output_tokens", "metadata", "model"),
        *("parallel_tool_calls", "previous_response_id", "prompt_cache_key", "reasoning", "service_tier", "store"),
        *("stream", "stream_options", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p"),
        *("truncation", "user", "safety_identifier", "conversation"),
    }
)
_MESSAGES_FIELDS = frozenset(
    {
        *("max_tokens", "messages", "metadata", "model", "output_config", "service_tier", "stop_sequences", "stream"),
        *("system", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p"),
    }
)


class Responses:
    """``POST /v1/responses``."""

    def problem(self, body: Body, headers: Mapping[str, str]) -> str | None:
        """Return what is wrong with a request."""
        del headers
        if unknown := set(body) - _RESPONSES_FIELDS:
            return f"Unknown parameter: {min(unknown)!r}."
        if not isinstance(body.get("model"), str) or "input" not in body:
            return "Missing required parameter: 'model' or 'input'."
        for tool in body.get("tools", ()):
            if "function" in tool or "name" not in tool:
                return "Missing required parameter: 'tools[0].name'."
        return None

    def as_chat(self, body: Body) -> Body:
        """Return the parts of a request that decide about the answer, as a chat completion has them."""
        given = body["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        messages = [{"role": item.get("role", "tool"), "content": _said(item.get("content"))} for item in items]
        tools = [{"type": "function", "function": tool} for tool in body.get("tools") or ()]
        wanted = (body.get("text") or {}).get("format") or {}
        shape = {"type": "json_schema", "json_schema": wanted} if wanted.get("type") == "json_schema" else {}
        return {"messages": messages, "tools": tools, "tool_choice": body.get("tool_choice"), "response_format": shape}

    def error(self, status: int, message: str, code: str | None) -> Body:
        """Return the body of a refusal."""
        del status
        return {"error": {"message": message, "type": "stub", "param": None, "code": code}}

    def answer(self, body: Body, message: Body, finish: str, usage: Body) -> Body:
        """Return a finished response."""
        counts = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
        cut = finish == "length"
        return {
            "id": "resp_stub",
            "object": "response",
            "created_at": 0,
            "model": body["model"],
            "status": "incomplete" if cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.get("instructions"),
            "metadata": {},
            "output": [self._item(message)],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {
                **counts,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": sum(counts.values()),
            },
        }

    def _item(self, message: Body) -> Body:
        for call in message.get("tool_calls") or ():
            function = call["function"]
            return {"id": "fc_stub", "type": "function_call", "call_id": "call_1", "status": "completed", **function}
        part: Body = {"type": "output_text", "text": message["content"], "annotations": []}
        if message.get("refusal"):
            part = {"type": "refusal", "refusal": message["refusal"]}
        return {"id": "msg_stub", "type": "message", "role": "assistant", "status": "completed", "content": [part]}

    def events(self, whole: Body) -> Iterator[Body]:
        """Yield the events of a stream, a few characters each."""
        number = iter(range(1_000))
        begun = {**whole, "status": "in_progress", "output": [], "usage": None}
        yield {"type": "response.created", "sequence_number": next(number), "response": begun}
        (item,) = whole["output"]
        place = {"item_id": item["id"], "output_index": 0}
        blank_part: Body = {"arguments": ""} if "arguments" in item else {"content": []}
        empty = {**item, "status": "in_progress"} | blank_part
        yield {"type": "response.output_item.added", "sequence_number": next(number), "output_index": 0, "item": empty}
        if "arguments" in item:
            kind = "response.function_call_arguments"
            for piece in _pieces(item["arguments"]):
                yield {"type": f"{kind}.delta", "sequence_number": next(number), **place, "delta": piece}
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield {"type": f"{kind}.done", "sequence_number": next(number), **place, **done}
        else:
            (part,) = item["content"]
            place["content_index"] = 0
            blank = {**part, "text": ""}
            yield {"type": "response.content_part.added", "sequence_number": next(number), **place, "part": blank}
            text = part.get("text") or ""
            for piece in _pieces(text):
                kind = "response.output_text.delta"
                yield {"type": kind, "sequence_number": next(number), **place, "delta": piece, "logprobs": []}
            end: Body = {"text": text, "logprobs": []}
            yield {"type": "response.output_text.done", "sequence_number": next(number), **place, **end}
            yield {"type": "response.content_part.done", "sequence_number": next(number), **place, "part": part}
        yield {"type": "response.output_item.done", "sequence_number": next(number), "output_index": 0, "item": item}
        yield {"type": f"response.{whole['status']}", "sequence_number": next(number), "response": whole}


class Messages:
    """``POST /v1/messages``."""

    def problem(self, body: Body, headers: Mapping[str, str]) -> str | None:
        """Return what is wrong with a request."""
        if "anthropic-version" not in headers:
            return "anthropic-version: header is required"
        for name in ("model", "max_tokens", "messages"):
            if name not in body:
                return f"{name}: Field required"
        if unknown := set(body) - _MESSAGES_FIELDS:
            return f"{min(unknown)}: Extra inputs are not permitted"
        if any(message.get("role") not in ("user", "assistant") for message in body["messages"]):
            return "messages: Unexpected role"
        for tool in body.get("tools", ()):
            if not isinstance(tool.get("input_schema"), dict):
                return "tools.0.input_schema: Field required"
        return None

    def as_chat(self, body: Body) -> Body:
        """Return the parts of a request that decide about the answer, as a chat completion has them."""
        messages = [{"role": m["role"], "content": _said(m["content"])} for m in body["messages"]]
        tools = [
            {"type": "function", "function": {"name": tool["name"], "parameters": tool["input_schema"]}}
            for tool in body.get("tools") or ()
        ]
        wanted = (body.get("output_config") or {}).get("format")
        shape = {"type": "json_schema", "json_schema": wanted} if wanted else {}
        choice = (body.get("tool_choice") or {}).get("type")
        return {"messages": messages, "tools": tools, "tool_choice": choice, "response_format": shape}

    def error(self, status: int, message: str, code: str | None) -> Body:
        """Return the body of a refusal."""
        del code
        kinds = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(status, "api_error" if status != 529 else "overloaded_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_stub"}

    def answer(self, body: Body, message: Body, finish: str, usage: Body) -> Body:
        """Return a finished message."""
        reasons = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens"}
        return {
            "id": "msg_stub",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [self._block(message)],
            "stop_reason": "refusal" if message.get("refusal") else reasons[finish],
            "stop_sequence": None,
            "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]},
        }

    def _block(self, message: Body) -> Body:
        for call in message.get("tool_calls") or ():
            function = call["function"]
            written = json.loads(function["arguments"])
            return {"type": "tool_use", "id": "toolu_stub", "name": function["name"], "input": written}
        return {"type": "text", "text": message.get("content") or ""}

    def events(self, whole: Body) -> Iterator[Body]:
        """Yield the events of a stream, a few characters each."""
        counts = {**whole["usage"], "output_tokens": 1}
        yield {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, "usage": counts}}
        (block,) = whole["content"]
        called = block["type"] == "tool_use"
        unfilled: Body = {"input": {}} if called else {"text": ""}
        empty = block | unfilled
        yield {"type": "content_block_start", "index": 0, "content_block": empty}
        yield {"type": "ping"}
        kind, name = ("input_json_delta", "partial_json") if called else ("text_delta", "text")
        for piece in _pieces(json.dumps(block["input"]) if called else block["text"]):
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": kind, name: piece}}
        yield {"type": "content_block_stop", "index": 0}
        end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
        yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": whole["usage"]["output_tokens"]}}
        yield {"type": "message_stop"}


def _said(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content)
    return content if isinstance(content, str) else ""


def _pieces(text: str) -> list[str]:
    return [text[start : start + 4] for start in range(0, len(text), 4)]
