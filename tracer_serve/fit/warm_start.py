"""Continue from an earlier version's weights, without certifying on rows that it was trained on.

Only in `gate.mode: strict`: a cross-fit certifies on every row, and the earlier version was trained on all of them. The
held-out fifth is chosen by hash, so that it stays held out as traces come.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tracer_serve.components.factory import make_surrogate
from tracer_serve.config.load import Task
from tracer_serve.fit.dataset import Rows
from tracer_serve.fit.groups import row_hashes
from tracer_serve.protocols import Resumable, Surrogate
from tracer_serve.types import Ints


def can_resume(task: Task) -> bool:
    """Return whether one of the task's surrogates continues from earlier ones."""
    made = (make_surrogate(task, s) for s in range(len(task.spec.surrogates)))
    return any(isinstance(one, Resumable) and one.resumes for one in made)


@dataclass(frozen=True, slots=True, eq=False)
class Resume:
    """Arguments of `Resumable.resume` before a final fit.

    Parameters
    ----------
    folder : the earlier policy's, None for the first one
    seen, apart : hashes of the training rows, and of the held-out rows, some of which certify
    """

    folder: Path | None
    seen: Ints
    apart: Ints

    @classmethod
    def of(cls, folder: Path | None, training: Rows, held_out: Rows) -> Self:
        """Hash the rows."""
        return cls(folder, row_hashes(training.texts), row_hashes(held_out.texts))

    def tell(self, surrogate: Surrogate, name: str) -> None:
        """Warm-start a surrogate that supports it from the earlier one with the same registry name."""
        if isinstance(surrogate, Resumable) and surrogate.resumes:
            surrogate.resume(self._earlier(name), self.seen, self.apart)

    def _earlier(self, name: str) -> Path | None:
        # the most expensive comes last: of two blends in a cascade, the one with an encoder
        stages = sorted(self.folder.glob("stage_*/stage.json"), reverse=True) if self.folder else []
        found = (file.parent / "surrogate" for file in stages if json.loads(file.read_text())["surrogate"] == name)
        return next(found, None)
