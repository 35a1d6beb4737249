"""The manifest of a version: its facts, and the sha256 of its files."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from tracer_serve.errors import ArtifactError
from tracer_serve.infra.file_hash import sha256_of

NEAREST = "nearest.npy"
"""File of a version: trace ids of the rows in its neighbour index, in their order, ASCII; the texts are in the trace
store only."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Facts about a version.

    Parameters
    ----------
    version : its number, from 1
    created : UTC, ISO 8601
    task : name of the task
    certified : whether the surrogate may answer
    reason : why not, or ``certified``
    attempt : which attempt to open the gate after an alarm this was, counted from 1; 0: no alarm had closed it
    basis : ``proved`` or ``empirical``: what supports the certificate's delta
    parent : the version that was current when this one was written
    traces : labelled rows it was fitted on
    last_trace : id of the newest of them
    embedder, teacher : fingerprints; of a cascade, of all its embedders
    plugins : sha256 of each plugin file
    software : versions of tracer-serve and of the libraries that affect results
    files : sha256 of every other file, by path relative to the folder
    pinned : never deleted by age
    labels : the labels that it can give
    after : its calibration rows came after this trace id; empty: from the first on
    spent : with ``gate.spend: series``, rows up to this id may be in no further certificate
    forms : fingerprints of the forms that its calibration rows came from; empty: direct calls and imports alone
    forgotten : rows it was fitted on that were deleted since at a user's request
    """

    version: int
    created: str
    task: str
    certified: bool
    reason: str
    parent: int | None
    traces: int
    last_trace: str
    embedder: str
    teacher: str
    plugins: dict[str, str]
    software: dict[str, str]
    files: dict[str, str]
    pinned: bool = False
    labels: tuple[str, ...] = ()
    after: str = ""
    spent: str = ""
    forgotten: int = 0
    forms: tuple[str, ...] = ()
    basis: str = "empirical"
    attempt: int = 0

    @classmethod
    def of_json(cls, text: str) -> Self:
        """Parse a manifest of any release; unknown keys are ignored.

        Raises
        ------
        ValueError, TypeError
            If it is not a manifest.
        """
        facts: dict[str, Any] = json.loads(text)
        facts |= {name: tuple(facts.get(name, ())) for name in ("labels", "forms")}
        return cls(**{f.name: facts[f.name] for f in fields(cls) if f.name in facts})

    def as_json(self) -> str:
        """Return the text of ``manifest.json``."""
        return json.dumps(asdict(self), indent=1)

    def digest(self) -> str:
        """Return the sha256 of everything that never changes: all but `pinned` and `forgotten`."""
        facts = asdict(self)
        del facts["pinned"], facts["forgotten"]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def check(self, folder: Path) -> None:
        """Compare every file of the version's folder.

        Raises
        ------
        ArtifactError
            Naming the first file that is missing, changed or not listed.
        """
        found = checksums(folder)
        for name in sorted({*self.files, *found} - {"manifest.json"}):
            if found.get(name) != self.files.get(name):
                what = "is missing" if name not in found else "was changed after it was written"
                raise ArtifactError(
                    f"{folder / name} {what}: version {self.version} is corrupt and does not serve."
                    " Choose another with `tracer-serve rollback TASK.yaml`, or refit."
                )


def checksums(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }
