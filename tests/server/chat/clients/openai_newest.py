# mypy: ignore-errors
"""Calls of `openai` in its newest major; prints what it parsed. Arguments: base_url, text."""

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Literal

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

MODEL = "gpt-4.1-mini"
SYSTEM = "Name the colour, red or blue."


class Answer(BaseModel):
    colour: Literal["red", "blue"]


def calls(url: str, text: str) -> Iterator[str]:
    """Yield each call's answer: chat, then responses; created, streamed, parsed."""
    client = OpenAI(base_url=url, api_key="sk-of-the-caller", max_retries=0)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    yield client.chat.completions.create(model=MODEL, messages=messages).choices[0].message.content
    pieces = client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    yield "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    parsed = client.chat.completions.parse(model=MODEL, messages=messages, response_format=Answer)
    yield parsed.choices[0].message.parsed.colour
    yield client.responses.create(model=MODEL, instructions=SYSTEM, input=text).output_text
    with client.responses.stream(model=MODEL, instructions=SYSTEM, input=text) as stream:
        yield stream.get_final_response().output_text
    yield client.responses.parse(model=MODEL, instructions=SYSTEM, input=text, text_format=Answer).output_parsed.colour
    yield asyncio.run(_asynchronous(url, messages))


async def _asynchronous(url: str, messages: list[dict[str, str]]) -> str:
    async with AsyncOpenAI(base_url=url, api_key="sk-of-the-caller", max_retries=0) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=messages)
    return answer.choices[0].message.content


if __name__ == "__main__":
    print(json.dumps(list(calls(*sys.argv[1:]))))  # noqa: T201
