"""The question that a text is part of: its form, and how the teacher is asked about it."""

import logging
from dataclasses import dataclass
from typing import Protocol

from tracer_serve.errors import TeacherError
from tracer_serve.forms.known import NATIVE
from tracer_serve.protocols import Remembering, Teacher
from tracer_serve.types import Answer, Text

_log = logging.getLogger(__name__)


class Question(Protocol):
    """How texts of one form are asked about.

    Parameters
    ----------
    form : fingerprint of the form, as rows keep it
    certified_as : fingerprint of the form whose certificate covers it
    fingerprint : of the teacher that answers
    """

    @property
    def form(self) -> str: ...  # noqa: D102
    @property
    def certified_as(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    async def ask(self, text: Text, *, anew: bool = False) -> Answer:
        """Ask the teacher about a text; `anew` whatever it remembers.

        Raises
        ------
        TeacherError
            Where there is no label.
        """


@dataclass(frozen=True, slots=True)
class DirectQuestion:
    """The task's own question, asked with the teacher's prompt."""

    teacher: Teacher
    fingerprint: str
    form: str = NATIVE
    certified_as: str = NATIVE

    async def ask(self, text: Text, *, anew: bool = False) -> Answer:
        """Ask the teacher; whatever a plugin's teacher raises becomes a `TeacherError` of that text alone."""
        if anew and isinstance(self.teacher, Remembering):
            self.teacher.forget(text)
        try:
            return await self.teacher.label(text)
        except TeacherError:
            raise
        except Exception as error:
            _log.exception("the teacher raised an exception that is no TeacherError")
            raise TeacherError("the teacher failed unexpectedly, see the server's log", reason="unavailable") from error
