"""Write a fit as a version: its files and manifest, and whether it replaces the current version."""

import json
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np

from tracer_serve.config.load import Task
from tracer_serve.fit.result import Fitted
from tracer_serve.gate.certificate import CERTIFICATE, Certificate
from tracer_serve.gate.monitor import MonitorState
from tracer_serve.lifecycle.certificates import current_version
from tracer_serve.lifecycle.gate_state.requirements import Requirements
from tracer_serve.lifecycle.training_set import Snapshot
from tracer_serve.report.build import build_report
from tracer_serve.report.render import render_html
from tracer_serve.storage.versions.manifest import NEAREST, Manifest
from tracer_serve.storage.versions.store import VersionStore

_SOFTWARE = ("tracer-serve", "numpy", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Fresh:
    """A fit, and the rows it was made from.

    Parameters
    ----------
    spent : rows up to this id were used by earlier certificates
    requirements : what the new certificate, and the current one, must satisfy
    migration : which labels changed when this teacher relabelled another one's texts
    """

    taken: Snapshot
    fitted: Fitted
    spent: str
    requirements: Requirements
    migration: dict[str, Any] | None = None


def write_version(task: Task, versions: VersionStore, fresh: Fresh, plugins: dict[str, str]) -> int:
    """Write a version and return its number. It does not serve until it is activated.

    Parameters
    ----------
    plugins : sha256 of each plugin file
    """
    parent = versions.current()
    return versions.write(
        lambda folder: _fill(folder, task, fresh, versions),
        lambda number, files: _manifest(task, fresh, plugins, parent, number, files),
    )


def may_serve(
    task: Task,
    versions: VersionStore,
    found: Certificate,
    requirements: Requirements,
    audits: MonitorState | None = None,
) -> bool:
    """Return whether a new version replaces the current one.

    A certified version does. An uncertified one does where the current version is uncertified too, or is refuted: the
    refit disagrees too often and so do the current version's audits. Otherwise a version that was certified by luck
    would serve for ever, as one that fails never replaces it. A current
    version whose certificate is void (drift, another teacher, a higher promise) stays for shadow scoring until another
    one certifies, but its coverage is no longer a benchmark.

    Parameters
    ----------
    audits : of the current version
    """
    before = current_version(versions)
    if before is None or not before.certificate.certified:
        return True
    void = requirements.state(before).void
    if not found.certified:
        return not void and found.reason == "disagreement" and audits is not None and audits.refuted
    if void or not task.spec.versions.must_keep_coverage:
        return True
    return found.coverage >= before.certificate.coverage


def _manifest(  # noqa: PLR0917  # the parts of a version, and what the version store adds
    task: Task, fresh: Fresh, plugins: dict[str, str], parent: int | None, number: int, files: dict[str, str]
) -> Manifest:
    policy, certificate, taken = fresh.fitted.policy, fresh.fitted.certificate, fresh.taken
    return Manifest(
        version=number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        task=task.spec.name,
        certified=certificate.certified,
        reason=certificate.reason,
        basis=certificate.basis,
        attempt=certificate.attempt if _tested(certificate) else max(0, certificate.attempt - 1),
        parent=parent,
        traces=len(taken.rows),
        last_trace=taken.until,
        embedder=policy.fingerprint,
        teacher=fresh.requirements.teacher,
        plugins=plugins,
        software={"python": platform.python_version()} | {name: installed(name) for name in _SOFTWARE},
        files=files,
        labels=tuple(map(str, policy.classes)),
        after=taken.after,
        forms=taken.forms,
        spent=taken.until if _tested(certificate) else fresh.spent,
    )


def _tested(found: Certificate) -> bool:
    """Return whether a certificate tested any rows. One with too few rows tested none."""
    return found.n > 0 or (found.per_class and any(row.reason == "disagreement" for row in found.classes))


def _fill(folder: Path, task: Task, fresh: Fresh, versions: VersionStore) -> None:
    fitted, taken = fresh.fitted, fresh.taken
    fitted.policy.save(folder / "model")
    fitted.calibration.save(folder / "calibration.npz")
    nearest = fitted.trained[np.sort(fitted.policy.view.index.rows)]  # every view's index keeps the same rows
    np.save(folder / NEAREST, taken.ids[nearest], allow_pickle=False)
    (folder / "certificate.json").write_bytes(CERTIFICATE.dump_json(fitted.certificate, indent=1))
    candidates = [asdict(candidate) for candidate in fitted.candidates]
    (folder / "candidates.json").write_text(json.dumps(candidates, indent=1), encoding="utf-8")
    (folder / "spec.yaml").write_text(task.source, encoding="utf-8")
    history = [versions.folder(number) / "report.json" for number in versions.numbers()]
    earlier = [json.loads(file.read_text(encoding="utf-8")) for file in history if file.is_file()]
    texts = [taken.rows.texts[i] for i in fitted.calibration.row]
    ids = [taken.ids[i].decode("ascii") for i in fitted.calibration.row]
    closing, teacher = fresh.requirements.closing, fresh.requirements.teacher
    facts: dict[str, Any] = {
        "left_out": taken.left_out,
        "alarm": closing and closing.at,
        "teacher": teacher,
        "ids": ids,
    }
    report = build_report(task, fitted, texts, earlier, fresh.migration, **facts)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "report.html").write_text(render_html(report), encoding="utf-8")
