"""Audits by the teacher's batch API: one process at a time asks about the audited rows that have no label yet."""

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from tracer_serve.components.teachers._batch.opening import make_batch_teacher
from tracer_serve.components.teachers._batch.teacher import REQUESTS, BatchTeacher
from tracer_serve.config.load import Task
from tracer_serve.errors import StoreError, TeacherError
from tracer_serve.lifecycle.teacher_change import known_labels
from tracer_serve.serving.auditor import Auditor
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.traces.lease_owner import new_holder, take_lease
from tracer_serve.types import Trace

_log = logging.getLogger(__name__)

_LEASE, _KEY = "batch_audits", "batch_audits"
_LEASE_S, _RENEW_S = 60.0, 20.0


class BatchAuditor:
    """Ask about audited rows in rounds, each a batch, as long as this process holds the lease.

    A round is a range of rows, which is stored before it is asked about: after a restart the same rows are asked about,
    so that the journal finds their batch. A row without an answer at the end of its round stays unanswered.

    Parameters
    ----------
    audits : takes the answers
    every_s : seconds between rounds
    settle_s : age after which no row with an earlier id is still to be written
    """

    def __init__(
        self, task: Task, store: TraceStore, audits: Auditor, *, every_s: float = 3_600.0, settle_s: float = 60.0
    ) -> None:
        self._task, self._store, self._audits = task, store, audits
        self._every_s, self._settle = every_s, timedelta(seconds=settle_s)
        self._holder = new_holder()

    async def run(self) -> None:
        """Work until cancelled; another process takes over at once where this one ends in order."""
        work: asyncio.Task[None] | None = None
        try:
            while True:
                if not await self._holds():
                    await _cancel(work)
                    work = None
                elif work is None or work.done():
                    work = asyncio.create_task(self._rounds())
                await asyncio.sleep(_RENEW_S)
        finally:
            await _cancel(work)
            with suppress(StoreError):
                await asyncio.to_thread(self._store.leases.release, _LEASE, self._holder)

    async def _holds(self) -> bool:
        try:
            return await asyncio.to_thread(take_lease, self._store, _LEASE, self._holder, _LEASE_S)
        except StoreError:
            return False  # as if another process had it: without the store nothing can be recorded

    async def _rounds(self) -> None:
        while True:
            try:
                await self.round()
            except (StoreError, TeacherError) as error:
                _log.warning("audits by batch will be tried again: %s", error)
            await asyncio.sleep(self._every_s)

    async def round(self) -> int:
        """Ask about the audited rows since the last round; return how many there were.

        Raises
        ------
        TeacherError
            If the API is down; the same rows are asked about in the next round, at no further cost.
        """
        rows, known = await asyncio.to_thread(self._begin)
        if not rows:
            return 0
        teacher = make_batch_teacher(self._task, known, self._store.values, "audits")
        try:
            found = await asyncio.gather(*(self._ask(teacher, row) for row in rows))
        finally:
            await teacher.close()
        if outage := next(filter(None, found), None):
            raise outage
        await asyncio.to_thread(teacher.finish)
        await asyncio.to_thread(self._store.values.put, _KEY, {"after": rows[-1].id})
        return len(rows)

    def _begin(self) -> tuple[list[Trace], tuple[str, ...]]:
        """Store the range of the next round, or read that of an unfinished one; return its rows."""
        place: dict[str, Any] = self._store.values.get(_KEY) or {"after": ""}
        if "until" not in place:
            settled = datetime.now(UTC) - self._settle
            rows = [row for row in self._store.traces.to_audit(place["after"], "", REQUESTS) if row.ts < settled]
            if rows:
                place["until"] = rows[-1].id
                self._store.values.put(_KEY, place)
        else:
            rows = self._store.traces.to_audit(place["after"], place["until"], REQUESTS)
            if not rows:  # all had been recorded
                self._store.values.put(_KEY, {"after": place["until"]})
        return rows, known_labels(self._task, self._store)

    async def _ask(self, teacher: BatchTeacher, row: Trace) -> TeacherError | None:
        """Record the answer about a row; return an outage."""
        try:
            answer = await teacher.label(row.input)
        except TeacherError as error:
            if teacher.outage:
                return error
            self._audits.unanswered(error)
            return None
        self._audits.record(row, answer, teacher.fingerprint)
        return None


async def _cancel(work: asyncio.Task[None] | None) -> None:
    if work is not None:
        work.cancel()
        await asyncio.wait([work])
