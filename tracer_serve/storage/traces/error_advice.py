"""Explain database errors: the likely cause, and the next command."""

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from tracer_serve.errors import StoreError

_SQLITE = {
    sqlite3.SQLITE_BUSY: "another process has been writing for too long. Find it: fuser -v {name}",
    sqlite3.SQLITE_LOCKED: "another process has been writing for too long. Find it: fuser -v {name}",
    sqlite3.SQLITE_FULL: "the disk is full; what was acknowledged is kept. Make room: df -h {name}",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only. Check the owner and mode: ls -l {name}*",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened. Check the owner and mode: ls -l {name}*",
    sqlite3.SQLITE_PERM: "the file cannot be opened. Check the owner and mode: ls -l {name}*",
    sqlite3.SQLITE_IOERR: "the disk failed or is full. Check: df -h {name}; dmesg | tail",
    sqlite3.SQLITE_NOTADB: "the file is not a trace store. Move it away to start a new one: mv {name} {name}.old",
    sqlite3.SQLITE_CORRUPT: "the file is damaged. Stop the server and save what can be read:"
    " sqlite3 {name} .recover | sqlite3 {name}.new",
}
_POSTGRES = {  # by class or code of https://www.postgresql.org/docs/current/errcodes-appendix.html
    "53100": "the server's disk is full; what was acknowledged is kept. Make room on the server",
    "28": "the server refuses this user or password. Check traces.url",
    "3D": "there is no such database. Create it: createdb {database}",
    "42501": "this user may not create or write tables. Grant it: GRANT ALL ON SCHEMA public TO USER",
    "55P03": "another session locks the tables. Find it: SELECT * FROM pg_locks",
    "25006": "the server is read-only (a standby?). Point traces.url at the primary",
    "53": "the server is short of resources. See its log",
    "57": "the server is stopping, or an administrator ended the session. Try again",
}


def explain(error: Exception, name: str, *, sqlite: bool) -> str:
    """Return one line: store, cause, what the database said, next command."""
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = str(origin).strip().splitlines()[0] if str(origin).strip() else type(origin).__name__
    advice = _sqlite_advice(origin) if sqlite else _postgres_advice(origin)
    return f"{name}: {advice.format(name=name, database=name.rsplit('/', 1)[-1])} ({said})"


def refuses_values(error: StoreError) -> bool:
    """Return whether the database rejects a row because of its values; otherwise it accepts no row at all."""
    cause: BaseException | None = error
    while isinstance(cause, StoreError):
        cause = cause.__cause__
    limit = isinstance(cause, DBAPIError) and (getattr(cause.orig, "sqlstate", None) or "").startswith("54")
    return limit or isinstance(cause, DataError | IntegrityError)


def _sqlite_advice(origin: BaseException) -> str:
    code = getattr(origin, "sqlite_errorcode", None)
    if code is None:
        return "the trace store failed"
    return _SQLITE.get(code & 0xFF, f"the trace store failed with {getattr(origin, 'sqlite_errorname', code)}")


def _postgres_advice(origin: BaseException) -> str:
    state = getattr(origin, "sqlstate", None)
    if state is None and (advice := _tls_advice(str(origin))):
        return advice
    if state is None and "FATAL:  the database system is" in str(origin):
        return _POSTGRES["57"].replace("stopping", "starting or stopping")
    if state is None and "FATAL" in str(origin):  # the server answered; drivers report no code this early
        return "the server refuses the connection. Check traces.url, or create the database: createdb {database}"
    if state is None:
        return "the server cannot be reached. Check that it runs: pg_isready -d '{name}'"
    return _POSTGRES.get(state) or _POSTGRES.get(state[:2]) or f"the server failed with SQLSTATE {state}"


def _tls_advice(said: str) -> str:
    """Return what to check if TLS failed, by libpq's message; empty if the failure lies elsewhere."""
    if "does not support SSL" in said:
        return "TLS failed: the server speaks none. Turn it on there (ssl = on), or check sslmode in traces.url"
    if "no encryption" in said:
        return "TLS failed: the server wants it. Add ?sslmode=verify-full to traces.url"
    if "SSL" in said or "certificate" in said:
        return (
            "TLS failed: the server's certificate is refused. Check host and sslrootcert in traces.url, this machine's"
            " clock, and what the server shows: openssl s_client -starttls postgres -connect HOST:PORT"
        )
    return ""
