# mypy: ignore-errors
"""Calls of `langchain-anthropic`; prints what it parsed. Arguments: base_url, text."""

import asyncio
import json
import sys
from collections.abc import Iterator
from typing import Literal

from langchain_anthropic import ChatAnthropic
from pydantic import BaseModel

SYSTEM = "Name the colour, red or blue."


class Answer(BaseModel):
    colour: Literal["red", "blue"]


def calls(url: str, text: str) -> Iterator[str]:
    """Yield each call's answer: plain, streamed, by a tool, asynchronous."""
    root = url.removesuffix("/v1")
    model = ChatAnthropic(model="claude-haiku-4-5", base_url=root, api_key="sk-of-the-caller", max_retries=0)
    messages = [("system", SYSTEM), ("human", text)]
    yield model.invoke(messages).text
    yield "".join(piece.text for piece in model.stream(messages))
    yield model.with_structured_output(Answer).invoke(messages).colour
    yield asyncio.run(model.ainvoke(messages)).text


if __name__ == "__main__":
    print(json.dumps(list(calls(*sys.argv[1:]))))  # noqa: T201
