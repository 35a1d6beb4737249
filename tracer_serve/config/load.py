"""Load a YAML file as a `Task`: fill in environment variables; errors say what is wrong and what is allowed."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tracer_serve.config.server import HASHED
from tracer_serve.config.task import PASS_THROUGH, Spec
from tracer_serve.errors import SpecError

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")
_IN_WORDS = {
    "tuple_type": "has to be a list, in [...] or a line each after '- '",
    "string_type": "has to be a text; quotes make one of a number or a date",
    "model_type": "has to be a block of keys, in {...} or indented below",
}
_SHARES = ("gate.alpha", "gate.delta", "gate.min_coverage", "gate.class_floor", "canary")
_TRACES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".gz")
_SECRETS = re.compile(r"(^|\.)(api_keys?|admin_key|token|password|secret)(\[\d+\](\.key)?)?$")


@dataclass(frozen=True, slots=True)
class Task:
    """A loaded spec with its file and source.

    Parameters
    ----------
    file : the YAML file
    source : its text as written, with ``${ENV}`` unfilled: safe to store
    """

    spec: Spec
    file: Path
    source: str

    @property
    def base(self) -> Path:
        """Folder that the paths in the YAML are relative to."""
        return self.file.resolve().parent

    @property
    def state(self) -> Path:
        """Folder of store, versions and caches; ``TRACER_SERVE_STATE`` moves it."""
        moved = os.environ.get("TRACER_SERVE_STATE")
        if moved:
            return Path(moved).resolve() / self.spec.name
        return (self.spec.state or Path(".tracer") / self.spec.name).resolve()

    @property
    def database(self) -> Path | str:
        """Return the URL of the shared trace store, or the path of the SQLite file in the state folder."""
        return self.spec.traces.url or self.state / "traces.db"

    @property
    def changed(self) -> bool:
        """Whether the YAML file has another content than when it was loaded; a file that is gone has not changed."""
        try:
            return self.file.read_text(encoding="utf-8") != self.source
        except (OSError, UnicodeDecodeError):
            return False

    def resolve(self, path: Path) -> Path:
        """Return a path of the YAML as an absolute one."""
        return (self.base / path).resolve()


def load_task(file: Path | str, *, need_keys: bool = True) -> Task:
    """Read, fill in and validate the YAML of a task.

    Parameters
    ----------
    need_keys : whether an unset environment variable of a key is an error; if not, the key is left out

    Raises
    ------
    SpecError
        One line per problem, each ``FILE: PATH: what is wrong, what is allowed``.
    """
    file = Path(file)
    try:
        source = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError("no such file; shipped examples are in configs/", file=file) from None
    except IsADirectoryError:
        raise SpecError("is a folder; name the YAML file of one task", file=file) from None
    except UnicodeDecodeError as error:
        raise SpecError(f"is not UTF-8: byte {error.start} cannot be read; save it as UTF-8", file=file) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}; look: ls -l {file}", file=file) from None
    try:
        raw = parse_yaml(source)
    except yaml.YAMLError as error:
        raise SpecError(f"is not YAML: {_place_of(error)}{_hint(error, source, file)}", file=file) from None
    if not isinstance(raw, Mapping):
        raise SpecError(
            "needs `key: value` lines, at least `name:` and `teacher:`; configs/openai.yaml is one to copy", file=file
        )
    filled = _fill(raw, file, "", need_keys=need_keys)
    try:
        return Task(Spec.model_validate(filled), file, source)
    except ValidationError as error:
        problems = [_explain(dict(e), file) for e in error.errors() if not _of_the_other_form(dict(e))]
        raise SpecError("\n".join(problems)) from None


def parse_yaml(source: str) -> Any:
    """Parse YAML safely: repeated keys are errors, and `no` is a text.

    Examples
    --------
    >>> parse_yaml("labels: [yes, no]")
    {'labels': ['yes', 'no']}
    """
    return yaml.load(source, _UniqueKeys)  # noqa: S506  # a SafeLoader


class _UniqueKeys(yaml.SafeLoader):
    """YAML loader that rejects repeated keys; plain YAML silently keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is repeated", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# As in YAML 1.2, which editors follow, only `true` and `false` are truth values: `no` and `on` are labels like others.
_UniqueKeys.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in forms if letter in "tTfF" or tag != "tag:yaml.org,2002:bool"]
    for letter, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _place_of(error: yaml.YAMLError) -> str:
    """Return position and message of a YAML error on one line."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"


def _hint(error: yaml.YAMLError, source: str, file: Path) -> str:
    """Return the most likely cause of a YAML error."""
    if file.suffix.lower() in _TRACES:
        return f". A file of traces? tracer-serve scan {file} looks into it; the YAML of a task comes first"
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    lines = source.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return ". Indent with spaces, not with tabs"
    if "${" in line:
        return '. Inside {...} and [...] write "${NAME}" in quotes'
    return ". Is the line indented like its neighbours, and a text with `: `, `#` or `?` in quotes?"


def _fill(value: Any, file: Path, path: str, *, need_keys: bool) -> Any:
    """Replace ``${ENV}`` and ``${ENV:-default}`` in every string; refuse literal secrets."""
    if isinstance(value, Mapping):
        return {
            key: _fill(item, file, f"{path}.{key}" if path else str(key), need_keys=need_keys)
            for key, item in value.items()
        }
    if isinstance(value, list):
        items = [_fill(item, file, f"{path}[{i}]", need_keys=need_keys) for i, item in enumerate(value)]
        return items if need_keys else [item for item in items if item is not None]
    if not isinstance(value, str):
        return value
    unset = (match := _VARIABLE.fullmatch(value)) and not os.environ.get(match["name"]) and match["default"] is None
    if unset and not need_keys and _SECRETS.search(path):
        return None
    own = (path, value) == ("teacher.api_key", PASS_THROUGH)
    if _SECRETS.search(path) and not own and not _VARIABLE.fullmatch(value) and not HASHED.fullmatch(value):
        raise SpecError(
            "a literal secret in a file is a leak; write ${ENV_NAME} and set that environment variable",
            file=file,
            path=path,
        )

    def look_up(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"]) or match["default"]
        if found is None:
            otherwise = "" if _SECRETS.search(path) else f" or write ${{{match['name']}:-default}}"
            raise SpecError(
                f"environment variable {match['name']} is not set; export {match['name']}=...{otherwise}",
                file=file,
                path=path,
            )
        return found

    return _VARIABLE.sub(look_up, value)


def _explain(error: dict[str, Any], file: Path) -> str:
    """Render one pydantic error as ``FILE: PATH: problem``."""
    loc = [part for part in error["loc"] if not _is_union_branch(part)]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    if error["type"] == "extra_forbidden":
        fields = _fields_at(loc[:-1])
        near = difflib.get_close_matches(str(loc[-1]), fields, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else _section_of(str(loc[-1]))
        return f"{file}: {path}: unknown key.{hint} Allowed here: {', '.join(fields)}"
    if error["type"] == "missing":
        return f"{file}: {path}: is required{_component_hint(loc, error['input'])}"
    message = _IN_WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    message = message.replace("Input should ", "has to ", 1)
    if isinstance(error["input"], int | float | str) and (path in _SHARES or path.startswith("gate.protect.")):
        message += "; a share such as 0.95, not a percentage"
    if path == "name" and error["type"] == "string_pattern_mismatch":
        message = "takes only a to z, 0 to 9, - and _, begins with a letter or digit, and has at most 63 of them"
    secret = isinstance(error["input"], Mapping | list) or _SECRETS.search(path)
    got = "" if secret else f" (got {error['input']!r})"
    return f"{file}: {path}: {message[0].lower() + message[1:]}{got}"


def _section_of(key: str) -> str:
    """Return a hint on the block of a misplaced key: most likely its line is not indented."""
    for name, field in Spec.model_fields.items():
        block = field.annotation
        if isinstance(block, type) and issubclass(block, BaseModel) and key in _names(block):
            return f" It belongs under `{name}:`; indent it there."
    return ""


def _component_hint(loc: list[str | int], given: Any) -> str:
    """Return a hint on how to write a component whose `type` is missing."""
    if loc[-1] != "type":
        return ""
    has = f"; there are: {', '.join(map(str, given))}" if isinstance(given, Mapping) else ""
    return f", as in {loc[0]}: {{type: NAME, ...}}{has}"


def _of_the_other_form(error: dict[str, Any]) -> bool:
    """Return whether an error is about the other form of `labels` (list or map) than the one that was written."""
    meant = "tuple_type" if isinstance(error["input"], Mapping) else "dict_type"
    return (error["loc"][0], error["type"]) == ("labels", meant)


def _is_union_branch(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("tuple", "dict", "str", "constrained-float"))


def _fields_at(loc: list[str | int]) -> list[str]:
    """Names of the keys that the spec allows at a path."""
    model: type[BaseModel] = Spec
    for part in loc:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return _names(model)


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
