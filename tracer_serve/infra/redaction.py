"""Redact texts before they are stored and before the surrogate sees them.

The surrogate gets redacted texts, because it is trained and certified on them. The teacher gets the original text, and
its label is used for both.
"""

import logging
from collections.abc import Callable, Sequence

from tracer_serve.protocols import Redactor
from tracer_serve.types import Text

_log = logging.getLogger(__name__)

WITHHELD = "[withheld: a redactor failed on this text]"
"""Placeholder for a text whose redaction failed; the text is deferred and not stored. Compare by identity."""

Redact = Callable[[Text], Text]


def redaction(redactors: Sequence[Redactor]) -> Redact | None:
    """Return a function that applies all redactors in order, or None if there are none.

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


def redact_text(redact: Redact | None) -> Callable[[str], str]:
    """Return a function for single texts; without a redactor it changes nothing."""

    def apply(text: str) -> str:
        kept = text if redact is None else redact(text)
        return kept if isinstance(kept, str) else " ".join(kept)

    return apply
