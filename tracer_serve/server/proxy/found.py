"""List the tasks among the observed calls, project their coverage in a separate process, and write their files."""

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer_serve.errors import BadInputError
from tracer_serve.forms.prompt_group import Totals
from tracer_serve.report.discovery import FoundTask, Prices, found_tasks
from tracer_serve.report.proposed_task import write_task
from tracer_serve.server.proxy.observer import Observer

PASS_THROUGH = "pass_through"  # noqa: S105  what a YAML says of the key
_NICE = 10  # a projection takes minutes of CPU; forwarded calls have priority


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a running proxy.

    Parameters
    ----------
    upstream : root of the API, for the YAMLs
    observed : file of the observed calls
    tasks : folder for the YAMLs
    alpha : agreement of projections and YAMLs
    """

    upstream: str
    observed: Path
    tasks: Path
    alpha: float
    prices: Prices


class FoundCalls:
    """The tasks that the observer has found so far."""

    def __init__(self, observer: Observer, settings: Settings) -> None:
        self.observer, self.settings = observer, settings
        self.coverage: dict[str, float | None] = {}
        """Projected coverage by fingerprint of the form."""
        self.projecting = threading.Lock()

    def tasks(self) -> list[FoundTask]:
        """Return the tasks found so far, the most calls first."""
        with self.observer.lock:
            return found_tasks(self.observer.groups.groups(), self.settings.prices)

    def totals(self) -> Totals:
        """Return the counts over all calls."""
        return self.observer.groups.totals

    def write(self, name: str) -> Path:
        """Write the files of a task.

        Raises
        ------
        BadInputError
            If there is no such task, or its files exist.
        """
        with self.observer.lock:
            tasks = {task.name: task for task in found_tasks(self.observer.groups.groups(), self.settings.prices)}
            if name not in tasks:
                raise BadInputError(f"no task {name[:64]!r} was found; there are: {', '.join(tasks) or 'none'}")
            return write_task(self.settings.tasks, tasks[name], self.settings.upstream, self.settings.alpha)

    def project(self) -> bool:
        """Start to project the coverage of every task; return False if a projection is under way."""
        if not self.projecting.acquire(blocking=False):
            return False
        threading.Thread(target=self._project, name="projection", daemon=True).start()
        return True

    def _project(self) -> None:
        try:
            words = [
                "nice",
                "-n",
                str(_NICE),
                sys.executable,
                "-m",
                "tracer_serve",
                "discover",
                str(self.settings.observed),
                "--json",
            ]
            words += ["--alpha", f"{self.settings.alpha:g}"]
            done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603  our own words
            facts: Mapping[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {}
            self.coverage = {task["form"]: task["coverage"] for task in facts.get("tasks", ())}
        finally:
            self.projecting.release()
