"""Versions in an object store: the same on every machine, whole or absent, kept and fetched once, verified."""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fsspec import get_filesystem_class

from tests.storage.versions.conftest import Machine
from tests.storage.versions.test_local import manifest
from tests.support.tiny import tiny_task
from tracer_serve.errors import ArtifactError, BusyError
from tracer_serve.storage.traces import TraceStore
from tracer_serve.storage.traces.lease_owner import LEASE
from tracer_serve.storage.versions import Objects, ObjectStoreVersions, open_versions
from tracer_serve.storage.versions.local import LocalVersions
from tracer_serve.storage.versions.manifest import Manifest
from tracer_serve.storage.versions.store import VersionStore, adopt, mark_forgotten, pin


def write(versions: VersionStore, text: str = "hello", shared: str = "an encoder") -> int:
    def fill(folder: Path) -> None:
        (folder / "model").mkdir()
        (folder / "model" / "weights.txt").write_text(text, encoding="utf-8")
        (folder / "model" / "encoder.onnx").write_text(shared, encoding="utf-8")
        (folder / "report.html").write_text(f"about {text}", encoding="utf-8")

    return versions.write(fill, manifest)


def blobs(versions: ObjectStoreVersions) -> list[str]:
    return versions._objects.names("blobs")


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_what_one_machine_writes_another_serves(machine: Machine, where: str, request: pytest.FixtureRequest) -> None:
    """A version is there for all once it is written, serves for all once it is activated, and is the same bytes."""
    at = request.getfixturevalue("s3" if where == "s3" else "url")
    one, other = machine("one", at), machine("other", at)
    assert (one.current(), one.numbers(), other.numbers()) == (None, [], [])
    assert write(one) == 1
    assert other.current() is None
    one.activate(1)
    assert other.current() == 1
    assert other.verify(1) == one.verify(1)
    assert (other.folder(1) / "model" / "weights.txt").read_text(encoding="utf-8") == "hello"
    assert write(other, "again") == 2
    other.activate(2)
    assert (one.current(), one.numbers()) == (2, [1, 2])
    assert one.verify(2).version == 2
    one.activate(1)
    assert other.current() == 1


def test_a_report_is_read_without_the_model(machine: Machine) -> None:
    """The folder of a version that does not serve here is filled with everything but its model."""
    write(machine("one"))
    folder = machine("other").folder(1)
    assert (folder / "report.html").read_text(encoding="utf-8") == "about hello"
    assert not (folder / "model").exists()
    assert not machine("other").folder(7).exists()


def test_shared_files_are_kept_and_fetched_once(machine: Machine) -> None:
    """Two versions with the same encoder have one blob of it, and a machine that has it needs no second."""
    one, other = machine("one"), machine("other")
    write(one)
    other.verify(1)
    write(one, "again")
    assert len(blobs(one)) == 5  # weights and report of each, one encoder
    (encoder,) = [digest for name, digest in one.manifest(1).files.items() if name.endswith("encoder.onnx")]
    one._objects.delete([f"blobs/{encoder}"])
    assert machine("other").verify(2)
    with pytest.raises(ArtifactError, match=r"blobs/\w+ is missing: versions with this file are corrupt"):
        machine("third").verify(2)


def test_an_upload_cut_short_shows_nowhere(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its manifest a version is not there; the next one gets its number; what was left goes after a day."""
    one = machine("one")

    def fails(*_: Any) -> bool:
        raise ArtifactError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(one._objects, "create", fails)
        with pytest.raises(ArtifactError, match="network is gone"):
            write(one, "lost")
    assert (machine("other").numbers(), len(blobs(one))) == ([], 3)
    assert write(one) == 1
    assert one.collect(5) == []
    assert len(blobs(one)) == 5
    assert machine("one", orphan_s=-1.0).collect(5) == []
    assert len(blobs(one)) == 3
    assert machine("other").verify(1)


@pytest.mark.parametrize("damage", ["blob", "manifest"])
def test_a_damaged_version_is_named_and_never_activated(machine: Machine, damage: str) -> None:
    """A blob or manifest that is not what was written makes a version corrupt; the one that serves stays."""
    one = machine("one")
    write(one)
    one.activate(1)
    write(one, "again")
    name = f"blobs/{one.manifest(2).files['report.html']}" if damage == "blob" else "manifests/000002.json"
    one._objects.write(name, b"{")
    other = machine("other")
    with pytest.raises(ArtifactError, match=rf"{name}.*(corrupt|cannot be read)"):
        other.activate(2)
    assert other.current() == 1
    other.activate(1)


def test_a_damaged_copy_is_fetched_again(machine: Machine) -> None:
    """Whatever happens to this machine's files, what is verified is what was written."""
    one = machine("one")
    write(one)
    folder = one.folder(1)
    (folder / "model" / "weights.txt").write_text("hellO", encoding="utf-8")
    (folder / "report.html").unlink()
    (folder / "foreign.txt").touch()
    assert one.verify(1)
    assert (folder / "model" / "weights.txt").read_text(encoding="utf-8") == "hello"
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "model", "report.html"}


def test_a_manifest_names_nothing_outside_of_its_folder(machine: Machine, tmp_path: Path) -> None:
    """Whoever may write to the store cannot make a machine write elsewhere than into its copies."""
    one = machine("one")
    write(one)
    name = "manifests/000001.json"
    facts = json.loads(one._objects.read(name) or b"")
    facts["files"]["../../escaped"] = facts["files"]["report.html"]
    one._objects.write(name, json.dumps(facts).encode())
    with pytest.raises(ArtifactError, match="not in its folder"):
        machine("other").verify(1)
    assert not (tmp_path / "escaped").exists()


def test_of_two_writers_of_a_number_one_fails(machine: Machine) -> None:
    """A version that was written meanwhile is not overwritten: the later writer is told, and its version is nowhere."""
    one, other = machine("one"), machine("other")

    def meanwhile(number: int, files: dict[str, str]) -> Manifest:
        write(other, "faster")
        return manifest(number, files)

    with pytest.raises(ArtifactError, match=r"version 1 was written .* by another refit meanwhile"):
        one.write(lambda folder: (folder / "a").touch(), meanwhile)
    assert one.numbers() == [1]
    assert (one.folder(1) / "report.html").read_text(encoding="utf-8") == "about faster"


def test_a_refit_that_lost_its_lease_activates_nothing(machine: Machine, store: TraceStore) -> None:
    """`current` is replaced in the transaction that looks at the lease; a person needs none."""
    assert store.leases.acquire(LEASE, "leader", 60.0)
    leader, late = machine("one", holder="leader"), machine("one", holder="late")
    write(leader)
    write(leader, "again")
    leader.activate(1)
    with pytest.raises(BusyError, match="lost its lease"):
        late.activate(2)
    assert leader.current() == 1
    machine("one").activate(2)
    assert leader.current() == 2


def test_retention_keeps_what_is_needed_in_the_store_and_here(machine: Machine) -> None:
    """Collecting deletes old versions and their blobs; the current, the pinned and shared files stay, here as there."""
    one, other = machine("one"), machine("other")
    for text in "abcdef":
        write(one, text)
    other.verify(3)
    one.activate(1)
    pin(machine("third"), 2)
    assert one.collect(keep=2) == [3, 4]
    assert one.numbers() == machine("other").numbers() == [1, 2, 5, 6]
    assert len(blobs(one)) == 2 * 4 + 1
    assert [machine("third").verify(number).version for number in (1, 2, 5, 6)] == [1, 2, 5, 6]
    assert machine("third").manifest(2).pinned
    machine("other").verify(5)
    assert sorted(path.name for path in other.root.iterdir()) == ["000005"]
    assert write(machine("other"), "g") == 7


def test_a_store_out_of_reach_leaves_what_is_here(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine starts with the version that it has while the object store is away, and says so of any other."""
    one = machine("one")
    write(one)
    one.activate(1)

    def away(*_: Any) -> Any:
        raise ArtifactError("cannot be reached")

    restarted = machine("one")
    for name in ("read", "names", "fetch"):
        monkeypatch.setattr(restarted._objects, name, away)
    assert restarted.current() == 1
    assert restarted.verify(1).version == 1
    with pytest.raises(ArtifactError, match="cannot be reached"):
        restarted.verify(2)


def test_adopting_publishes(machine: Machine, tmp_path: Path) -> None:
    """A version that came with an image serves for all machines where there was none, and never replaces one."""
    made = LocalVersions(tmp_path / "image")
    write(made, "baked")
    assert adopt(machine("one"), made.folder(1)) == 1
    assert machine("other").current() == 1
    assert adopt(machine("other"), made.folder(1)) is None
    assert json.dumps(machine("third").verify(1).files)


def test_a_plain_folder_needs_no_driver(tmp_path: Path) -> None:
    """A path and a file:// URL are version folders as ever, one per task, with `current` beside them."""
    for url in (str(tmp_path / "shared"), f"file://{tmp_path}/shared"):
        versions = open_versions(tiny_task(tmp_path, versions={"url": url}))
        assert type(versions) is LocalVersions
        assert versions.root == tmp_path / "shared" / "tiny"


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("at", "variables", "told"),
    [
        ("s3://nowhere-at-all/v", {}, r"there is no such bucket. Create it: aws s3 mb s3://nowhere-at-all"),
        (
            "s3://versions/v",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
            r"cannot be reached.*AWS_ENDPOINT_URL",
        ),
        ("s3://versions/v", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, r"no credentials. Set AWS_ACCESS"),
        ("nonsense://versions/v", {}, r"versions.url: nonsense://versions/v: .*looks like s3://bucket/folder"),
    ],
)
def test_errors_say_what_to_do(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, at: str, variables: dict[str, str], told: str
) -> None:
    """A missing bucket, missing credentials, an endpoint that is not there, and a protocol that nobody speaks."""
    for name, value in variables.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name)
    monkeypatch.setattr(get_filesystem_class("s3"), "retries", 1)
    get_filesystem_class("s3").clear_instance_cache()  # a client keeps the environment that it was made in
    with pytest.raises(ArtifactError, match=told):
        write(machine("one", at))


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without s3fs the error names the extra to install."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(ArtifactError, match=r"pip install '.\[s3\]' in a checkout of tracer-serve"):
        Objects("s3://bucket/folder")


def test_what_several_machines_note_at_once_is_all_there(machine: Machine) -> None:
    """Rows that are forgotten on two machines add up, and a version that is pinned meanwhile stays pinned."""
    write(machine("one"))
    both = [machine("one"), machine("other")]
    with ThreadPoolExecutor(5) as people:
        notes = [people.submit(mark_forgotten, both[n % 2], 1, 1) for n in range(8)]
        notes.append(people.submit(pin, both[1], 1))
    assert all(note.result() is None for note in notes)
    assert (both[0].manifest(1).forgotten, both[1].manifest(1).forgotten) == (8, 8)
    assert machine("third").manifest(1).pinned


def test_a_version_that_goes_is_not_made_current_meanwhile(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes back to a version while another machine removes it is told so, and the present one stays."""
    one, other = machine("one"), machine("other")
    for text in "abc":
        write(one, text)
    one.activate(3)
    other.verify(1)  # its files are on that machine
    removing = one._objects.delete

    def slowly(names: Any) -> None:
        time.sleep(0.3)
        removing(names)

    monkeypatch.setattr(one._objects, "delete", slowly)
    with ThreadPoolExecutor(1) as person:
        gone = person.submit(one.collect, 1)
        time.sleep(0.1)
        with pytest.raises(ArtifactError, match="there is no version 1"):
            other.activate(1)
        assert gone.result() == [1, 2]
    assert (other.current(), other.numbers()) == (3, [3])


def test_who_waits_too_long_is_told_for_whom(machine: Machine) -> None:
    """Where another process keeps changing the versions the error names it, and nothing is changed."""
    one, other = machine("one"), machine("other", patience_s=0.1)
    write(one)
    with one._current.locked(), pytest.raises(BusyError, match=rf"being changed by process {os.getpid()} "):
        other.activate(1)
    assert other.current() is None
    other.activate(1)
    assert one.current() == 1
