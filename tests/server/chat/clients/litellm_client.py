# mypy: ignore-errors
"""Calls of `litellm` as a client of OpenAI's APIs; prints what it parsed. Arguments: base_url, text."""

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Literal

import litellm
from pydantic import BaseModel

SYSTEM = "Name the colour, red or blue."


class Answer(BaseModel):
    colour: Literal["red", "blue"]


def calls(url: str, text: str) -> Iterator[str]:
    """Yield each call's answer: chat completions, then the Responses API."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    asked = {"model": "openai/gpt-4.1-mini", "api_base": url, "api_key": "sk-of-the-caller", "max_retries": 0}
    yield litellm.completion(**asked, messages=messages).choices[0].message.content
    pieces = litellm.completion(**asked, messages=messages, stream=True)
    yield "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    whole = litellm.completion(**asked, messages=messages, response_format=Answer)
    yield Answer.model_validate_json(whole.choices[0].message.content).colour
    yield asyncio.run(litellm.acompletion(**asked, messages=messages)).choices[0].message.content
    said = litellm.responses(**asked, instructions=SYSTEM, input=text)
    yield said.output[0].content[0].text


if __name__ == "__main__":
    print(json.dumps(list(calls(*sys.argv[1:]))))  # noqa: T201
