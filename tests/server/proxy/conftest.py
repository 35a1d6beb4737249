"""A proxy in front of an LLM, over real sockets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tests.server.chat.conftest import running_app
from tests.support.waiting import until
from tracer_serve.report.discovery import Prices
from tracer_serve.server.proxy.app import make_proxy
from tracer_serve.server.proxy.found import FoundCalls, Settings
from tracer_serve.server.proxy.observer import Observer
from tracer_serve.storage.observed import ObservedCalls

ADMIN = "the-admin-key-of-the-tests"


@dataclass(frozen=True)
class Proxied:
    """A running proxy."""

    url: str
    found: FoundCalls
    folder: Path

    @property
    def observer(self) -> Observer:
        return self.found.observer

    def observed(self, calls: int) -> None:
        """Wait until that many calls are observed; each is, only after its answer was sent."""
        until(lambda: self.found.totals().calls == calls)


@contextmanager
def proxying(upstream: str, folder: Path, **options: Any) -> Iterator[Proxied]:
    """Run a proxy in a thread; yields it."""
    file = folder / "proxy" / "observed.db"
    observer = Observer(ObservedCalls(file), options.pop("days", 7.0), options.pop("redact", None), save_s=1.0)
    settings = Settings(upstream, file, folder / "tasks", options.pop("alpha", 0.9), Prices(0.4, 1.6))
    found = FoundCalls(observer, settings)
    key = SecretStr(options.pop("admin_key", ADMIN))
    with running_app(make_proxy(upstream, observer, found, key)) as root:
        yield Proxied(root, found, folder)
