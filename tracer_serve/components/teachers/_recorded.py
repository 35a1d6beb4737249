"""The prompt of a recorded call: the body that callers send, with the text in its place."""

import json
from pathlib import Path
from typing import Any

from tracer_serve.errors import PluginError
from tracer_serve.forms.answer_enum import answer_enum
from tracer_serve.forms.calls import NOT_ASKED, NotACallError, parse
from tracer_serve.types import Text

SLOT = "{text}"
"""Placeholder of the text in the file."""


class RecordedPrompt:
    """Messages and options of one call, read from a file.

    Parameters
    ----------
    file : JSON of the body, with `SLOT` once in its last message
    api : whose request it is, as in `forms.calls.parse`

    Raises
    ------
    PluginError
        If the file cannot be read, or is no such call.
    """

    def __init__(self, file: Path, api: str) -> None:
        try:
            self.template = file.read_text(encoding="utf-8")
            body = json.loads(self.template)
            call = parse(body, api)
            before, after = (call.message or "").split(SLOT)
        except OSError as error:
            raise PluginError(f"parameter 'request': {file} cannot be read: {error.strerror}") from None
        except NotACallError as error:
            raise PluginError(f"parameter 'request': {file}: {error}") from None
        except ValueError:
            raise PluginError(f"parameter 'request': {file}: needs {SLOT} once in its last message") from None
        self._around = before, after
        self.options: dict[str, Any] = {
            name: value for name, value in body.items() if name not in NOT_ASKED or name in _KEPT
        }
        enum = answer_enum(call.form.option_values)
        self.label_path = () if enum is None else enum.path
        """Names of the fields that lead to the label in the answer."""
        *self._before, self._last = body["messages"]

    def messages(self, text: Text) -> list[dict[str, Any]]:
        """Return the messages that ask for the label of a text."""
        if not isinstance(text, str):
            raise TypeError("a recorded call has one slot; pairs need a prompt")
        before, after = self._around
        return [*self._before, {**self._last, "content": f"{before}{text}{after}"}]

    def note(self, label: str) -> None:
        """Ignore an answer: the prompt is as it was recorded."""


_KEPT = frozenset({"seed", "max_tokens", "max_completion_tokens", "service_tier"})
"""Fields that do not change the question and are sent all the same."""
