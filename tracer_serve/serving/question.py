"""How the teacher is asked about a text: by the task's own prompt, or by a call of a known form."""

import logging
from dataclasses import dataclass
from typing import Protocol

from tracer_serve.errors import TeacherError
from tracer_serve.forms.known import NATIVE
from tracer_serve.protocols import Remembering, Teacher
from tracer_serve.types import Answer, Text

_log = logging.getLogger(__name__)


class Question(Protocol):
    """Asks the teacher about texts of one form.

    Attributes
    ----------
    form : fingerprint of the form, as stored with rows
    certified_as : fingerprint of the form whose certificate covers it
    fingerprint : of the teacher that answers
    """

    @property
    def form(self) -> str: ...  # noqa: D102
    @property
    def certified_as(self) -> str: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    async def ask(self, text: Text, *, fresh: bool = False) -> Answer:
        """Ask the teacher about a text.

        Parameters
        ----------
        fresh : bypass the teacher's cache

        Raises
        ------
        TeacherError
            If there is no label.
        """


@dataclass(frozen=True, slots=True)
class DirectQuestion:
    """The task's own question, asked with the teacher's prompt."""

    teacher: Teacher
    fingerprint: str
    form: str = NATIVE
    certified_as: str = NATIVE

    async def ask(self, text: Text, *, fresh: bool = False) -> Answer:
        """Ask the teacher; any other exception of a teacher becomes a `TeacherError` of that text."""
        if fresh and isinstance(self.teacher, Remembering):
            self.teacher.forget(text)
        try:
            return await self.teacher.label(text)
        except TeacherError:
            raise
        except Exception as error:
            _log.exception("the teacher raised an exception other than TeacherError")
            raise TeacherError("the teacher failed unexpectedly, see the server's log", reason="unavailable") from error
