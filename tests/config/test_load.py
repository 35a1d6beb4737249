"""YAML to task: every mistake of a newcomer has its own clear error."""

from pathlib import Path

import pytest

from tests.support.tasks import CONFIGS
from tracer_serve.config.load import load_task
from tracer_serve.errors import SpecError

MINIMAL = "name: t\nteacher: {type: offline, file: [x.jsonl]}\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "task.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problem(folder: Path, text: str) -> str:
    with pytest.raises(SpecError) as caught:
        load_task(write(folder, text))
    return str(caught.value)


def test_minimal_task_has_the_documented_defaults(tmp_path: Path) -> None:
    """Two keys are a task; everything else has a default."""
    spec = load_task(write(tmp_path, MINIMAL)).spec
    assert (spec.gate.alpha, spec.gate.delta, spec.gate.mode) == (0.95, 0.05, "cross_fit")
    assert (spec.server.host, spec.server.port) == ("127.0.0.1", 3000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: t\nteachr: offline\n", ["teachr: unknown key", "Did you mean 'teacher'?"]),
        (MINIMAL + "gate: {alfa: 0.9}\n", ["gate.alfa: unknown key", "'alpha'", "delta"]),
        (MINIMAL + "gate: {alpha: 1.0}\n", ["gate.alpha", "less than 1", "(got 1.0)"]),
        (MINIMAL + "gate: {alpha: high}\n", ["gate.alpha", "valid number", "'high'"]),
        (MINIMAL + "server: {port: 99999}\n", ["server.port", "65535"]),
        (MINIMAL + "surrogates: []\n", ["surrogates", "at least 1"]),
        (MINIMAL + "labels: [1, b]\n", ["labels[0]: has to be a text; quotes", "(got 1)"]),
        (MINIMAL + "gate: {alpha: 95}\n", ["gate.alpha", "a share such as 0.95, not a percentage (got 95)"]),
        (MINIMAL + "gate:\nalpha: 0.9\n", ["alpha: unknown key. It belongs under `gate:`; indent it there"]),
        (MINIMAL + "gate:\n\talpha: 0.9\n", ["is not YAML: line 4", "Indent with spaces, not with tabs"]),
        (MINIMAL + "gate:\n  alpha: 0.9\n   delta: 0.1\n", ["line 5", "indented like its neighbours"]),
        ("name: t\nteacher: {typ: offline}\n", ["teacher.type: is required, as in teacher: {type: NAME", "are: typ"]),
        (MINIMAL + "surrogates: blend\n", ["surrogates: has to be a list", "(got 'blend')"]),
        (MINIMAL + "gate: 0.9\n", ["gate: has to be a block of keys", "(got 0.9)"]),
        (MINIMAL + "labels: [a, b, a]\n", ["labels", "'a' is listed twice"]),
        (MINIMAL + "schedule: {cron: 'every day'}\n", ["schedule.cron"]),
        (MINIMAL + "schedule: {timezone: Mars/Base}\n", ["schedule.timezone", "IANA"]),
        (MINIMAL + "name: again\n", ["key 'name' is repeated"]),
        ("name: t\n", ["teacher: is required"]),
        ("name: Not A Name\nteacher: offline\n", ["name: takes only a to z", "'Not A Name'"]),
        ("name: 2024\nteacher: offline\n", ["name: has to be a text", "quotes", "2024"]),
        ("- a list\n", ["needs `key: value` lines"]),
        ("name: [unclosed\n", ["is not YAML: line 2, column 1: expected"]),
        ("name: t\nteacher: {type: ${KIND}}\n", ["is not YAML", "in quotes"]),
    ],
)
def test_a_mistake_is_named_with_file_path_and_what_is_allowed(tmp_path: Path, text: str, words: list[str]) -> None:
    """The error reads FILE: PATH: what is wrong, what is allowed."""
    message = problem(tmp_path, text)
    assert message.startswith(str(tmp_path / "task.yaml"))
    for word in words:
        assert word in message


@pytest.mark.parametrize("labels", ["a", "[1]", "{a: 1}"])
def test_labels_are_refused_in_the_form_that_was_meant(tmp_path: Path, labels: str) -> None:
    """A mistake in a list of labels does not also complain that the list is no map, nor the other way round."""
    assert len(problem(tmp_path, MINIMAL + f"labels: {labels}\n").splitlines()) == 1


def test_no_default_is_proposed_for_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not set has to be set: a default in the file would be the literal that is refused."""
    monkeypatch.delenv("NOT_SET", raising=False)
    message = problem(tmp_path, "name: t\nteacher: {type: openai, model: m, api_key: '${NOT_SET}'}\n")
    assert message.endswith("export NOT_SET=...")


def test_words_that_yaml_once_took_for_truth_values(tmp_path: Path) -> None:
    """`no` and `on` are labels, as in YAML 1.2; where a truth value belongs they still are one."""
    words = "labels: {yes: 'they agree', no: 'they do not', on: 'y', off: 'n'}\ngate: {per_class: yes}\n"
    spec = load_task(write(tmp_path, MINIMAL + words)).spec
    assert spec.label_names == ("yes", "no", "on", "off")
    assert spec.gate.per_class is True


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    """Three mistakes make three lines."""
    assert len(problem(tmp_path, "name: t\ngate: {alpha: 2, delta: 0}\nservr: {}\nteacher: x\n").splitlines()) == 3


def test_environment_variables_fill_in_and_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """${NAME} takes the environment's value, ${NAME:-default} a default where it is unset."""
    monkeypatch.setenv("TASK_NAME", "fromenv")
    text = "name: ${TASK_NAME}\nteacher: {type: '${KIND:-offline}'}\n"
    spec = load_task(write(tmp_path, text)).spec
    assert (spec.name, spec.teacher.type) == ("fromenv", "offline")


def test_an_unset_variable_is_named_with_its_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset ${ENV} is an error that says which, where, and what to type."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    message = problem(tmp_path, "name: t\nteacher: {type: openai, api_key: '${NO_SUCH_KEY}'}\n")
    assert "teacher.api_key: environment variable NO_SUCH_KEY is not set; export NO_SUCH_KEY=" in message


def test_a_literal_secret_is_refused_and_not_repeated(tmp_path: Path) -> None:
    """A key written into the YAML is refused, naming the field but never the key."""
    message = problem(tmp_path, "name: t\nteacher: {type: openai, api_key: sk-secret}\n")
    assert "teacher.api_key" in message
    assert "sk-secret" not in message


def test_the_stored_source_keeps_variables_unfilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a version stores of the YAML holds ${ENV}, not its value."""
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    task = load_task(write(tmp_path, "name: t\nteacher: {type: openai, api_key: '${SOME_KEY}'}\n"))
    assert "sk-secret" not in task.source
    assert task.spec.teacher.params["api_key"] == "sk-secret"


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_is_not_there_is_a_spec_error(tmp_path: Path, name: str) -> None:
    """A missing file and a folder are reported as such."""
    with pytest.raises(SpecError, match=r"no such file|is a folder"):
        load_task(tmp_path / name)


def test_bytes_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    """A YAML in another encoding names the first byte that cannot be read."""
    (tmp_path / "task.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(SpecError, match="not UTF-8: byte 9"):
        load_task(tmp_path / "task.yaml")


def test_state_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRACER_SERVE_STATE moves the state of every task, one folder each."""
    monkeypatch.setenv("TRACER_SERVE_STATE", str(tmp_path / "elsewhere"))
    assert load_task(write(tmp_path, MINIMAL)).state == tmp_path / "elsewhere" / "t"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.name)
def test_every_shipped_config_loads(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shipped example is broken."""
    monkeypatch.setenv("TRACER_BENCH_DATA", "/data")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert load_task(file).spec.name
    assert "yaml-language-server: $schema=" in file.read_text(encoding="utf-8").splitlines()[0]
