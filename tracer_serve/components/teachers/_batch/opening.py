"""Build a task's teacher for work that can wait."""

from tracer_serve.components.factory import make_teacher
from tracer_serve.components.teachers._batch.journal import BatchJournal
from tracer_serve.components.teachers._batch.teacher import BatchTeacher
from tracer_serve.components.teachers._spend_limit import share_spend
from tracer_serve.config.load import Task
from tracer_serve.errors import PluginError, SpecError
from tracer_serve.storage.traces.key_values import KeyValues


def make_batch_teacher(task: Task, known: tuple[str, ...], values: KeyValues, job: str) -> BatchTeacher:
    """Build the task's teacher, asked by its provider's batch API at half the price.

    Parameters
    ----------
    known : labels that an open task's prompt offers
    values : of the task's store, which keep the journal
    job : name of the work; the same work with the same teacher continues the batches of an interrupted run

    Raises
    ------
    SpecError
        If the teacher has no batch API.
    """
    teacher = make_teacher(task, known)
    share_spend(teacher, values)
    try:
        return BatchTeacher(teacher, BatchJournal(values, f"{teacher.fingerprint} {job}"))
    except PluginError as error:
        raise SpecError(str(error), file=task.file, path="teacher") from error
