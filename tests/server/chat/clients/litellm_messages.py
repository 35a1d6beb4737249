# mypy: ignore-errors
"""Calls of `litellm` as a client of Anthropic's Messages API; prints what it parsed. Arguments: base_url, text."""

import asyncio
import json
import sys
from collections.abc import Iterator

import litellm

SYSTEM = "Name the colour, red or blue."


def calls(url: str, text: str) -> Iterator[str]:
    """Yield each call's answer: created, streamed, asynchronous."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    asked = {"model": "anthropic/claude-haiku-4-5", "api_base": url.removesuffix("/v1"), "api_key": "sk-of-the-caller"}
    asked |= {"messages": messages, "max_retries": 0, "max_tokens": 64}
    yield litellm.completion(**asked).choices[0].message.content
    pieces = litellm.completion(**asked, stream=True)
    yield "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    yield asyncio.run(litellm.acompletion(**asked)).choices[0].message.content


if __name__ == "__main__":
    print(json.dumps(list(calls(*sys.argv[1:]))))  # noqa: T201
