"""What of a text is kept: redacted before anything stores it, and before the surrogate sees it.

The surrogate judges the redacted text because it is trained and certified on redacted ones; the teacher is asked with
the text as it came, and its label stands for both.
"""

import logging
from collections.abc import Callable, Sequence

from tracer_serve.protocols import Redactor
from tracer_serve.types import Text

_log = logging.getLogger(__name__)

WITHHELD = "[withheld: a redactor failed on this text]"
"""Stands for a text that could not be redacted: it is never stored, and deferred; compared by identity."""

Redact = Callable[[Text], Text]


def redaction(redactors: Sequence[Redactor]) -> Redact | None:
    """Return a function that applies all redactors in order; None where there are none.

    A redactor that raises withholds its text.
    """
    if not redactors:
        return None

    def clean(part: str) -> str:
        for redactor in redactors:
            part = redactor.redact(part)
        return part

    def redact(text: Text) -> Text:
        try:
            return clean(text) if isinstance(text, str) else (clean(text[0]), clean(text[1]))
        except Exception as error:  # noqa: BLE001  a plugin may raise anything; its message may quote the text
            _log.error("a redactor failed (%s): the text is deferred and not stored", type(error).__name__)
            return WITHHELD

    return redact
