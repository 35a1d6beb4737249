"""An HTTP API that is called with a key: bounded bodies, masked keys, explained failures.

The teachers and the ``http`` embedder share it; each brings its own client (async or sync) and its own error class.
"""

import json
import ssl
import zlib
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from tracer_serve.errors import EndpointError, PluginError
from tracer_serve.infra.resilience.retry import retry_after

MIB = 2**20
_SECRET_LENGTH = 8  # shorter values ("none", "EMPTY") are placeholders; masking them would garble every message
_EXCERPT = 300  # characters of an endpoint's error message that are passed on
_INFLATED = ("gzip", "x-gzip", "deflate")
_HINTS = {401: "; check api_key", 403: "; check api_key", 404: "; check base_url and model"}


class HttpEndpoint:
    """Base URL, request headers and the errors of one API.

    Parameters
    ----------
    base_url : root of the API, such as ``https://api.openai.com/v1``
    api_key : sent as bearer token
    headers : further request headers; their values are as secret as the key
    error : class of the errors that the methods return or raise

    Raises
    ------
    PluginError
        If `base_url` is not an http(s) URL, or HTTP cannot send a key; the message does not show the key.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: SecretStr | None,
        headers: Mapping[str, SecretStr],
        error: type[EndpointError],
    ) -> None:
        self.url, self.error = _checked(base_url), error
        self.name = self.url.netloc.decode("ascii")
        sent = {name: value.get_secret_value() for name, value in headers.items()}
        if api_key is not None:
            sent["Authorization"] = f"Bearer {api_key.get_secret_value()}"
        for name, value in sent.items():
            if not ((name + value).isascii() and (name + value).isprintable() and value == value.strip()):
                raise PluginError(
                    f"the key or header {name!r} for {self.name} holds white space at an end, a line break or a"
                    " character that HTTP cannot send; the environment variable may end in a newline"
                )
        words = {word for value in sent.values() for word in (value, *value.split())}
        self._secrets = sorted((word for word in words if len(word) >= _SECRET_LENGTH), key=len, reverse=True)
        self.headers = {"Accept-Encoding": "gzip"} | sent

    def hide(self, message: str) -> str:
        """Return a message in which keys and header values are masked."""
        for secret in self._secrets:
            message = message.replace(secret, "***")
        return message

    def body_of(self, response: httpx.Response, limit: int = MIB) -> "BoundedBody":
        """Return an empty body for a streamed response; feed it the raw chunks."""
        return BoundedBody(self, response.headers.get("content-encoding", "identity").strip().lower(), limit)

    def unreachable(self, error: httpx.HTTPError | httpx.InvalidURL) -> EndpointError:
        """Return the error for a request without an answer; TLS failures say what is wrong with the certificate."""
        if isinstance(error, httpx.TimeoutException):
            return self.error(f"{self.name} gave no answer in time ({type(error).__name__})", reason="timeout")
        problem = tls_problem(error) or self.hide(str(error) or type(error).__name__)
        return self.error(f"{self.name} cannot be reached: {problem}", reason="unavailable")

    def refusal(self, status: int, headers: httpx.Headers, body: str) -> EndpointError:
        """Return the error for a status other than 200."""
        error = self._refusal(status, headers, body)
        error.status = status
        return error

    def _refusal(self, status: int, headers: httpx.Headers, body: str) -> EndpointError:
        problem, code = _problem(body)
        said = f"{self.name} answered {status}: {self.hide(problem)[:_EXCERPT]}"
        if status == httpx.codes.TOO_MANY_REQUESTS and code != "insufficient_quota":
            return self.error(said, reason="rate_limited", retry_after_s=retry_after(headers))
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status in (408, 409, 425):
            return self.error(said, reason="unavailable", retry_after_s=retry_after(headers))
        return self.error(said + _HINTS.get(status, ""), reason="rejected")


class BoundedBody:
    """Collect a response body chunk by chunk, decompressed, and stop at a limit.

    The limit counts decompressed bytes, and decompression itself stops there: a small compressed body cannot expand to
    gigabytes.
    """

    def __init__(self, endpoint: HttpEndpoint, encoding: str, limit: int) -> None:
        self._endpoint, self._limit, self._content = endpoint, limit, bytearray()
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in _INFLATED else None  # 32: either header
        if self._inflate is None and encoding not in ("", "identity"):
            raise self._unusable(f"in the content encoding {encoding!r}, which was not asked for")

    def add(self, chunk: bytes) -> None:
        """Append a raw chunk.

        Raises
        ------
        EndpointError
            ``unavailable`` if the body is over the limit or is not compressed as it says.
        """
        if self._inflate is not None:
            try:
                chunk = self._inflate.decompress(chunk, self._limit + 1 - len(self._content))
            except zlib.error as error:
                raise self._unusable(f"with a broken gzip body ({error})") from None
        self._content += chunk
        if len(self._content) > self._limit:
            raise self._unusable(f"with more than {self._limit / MIB:g} MiB, so the rest was not read")

    def text(self) -> str:
        """Return the body as text; keys in it are masked."""
        return self.masked().decode(errors="replace")

    def masked(self) -> bytes:
        """Return the body; keys in it are masked, and every other byte is as it came."""
        return self._endpoint.hide(self._content.decode("latin-1")).encode("latin-1")  # keys are ASCII

    def _unusable(self, how: str) -> EndpointError:
        return self._endpoint.error(f"{self._endpoint.name} answered {how}; check base_url", reason="unavailable")


def _checked(base_url: str) -> httpx.URL:
    try:
        urlsplit(base_url)  # refuses half an IPv6 address, which httpx accepts until the first request
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, ValueError) as error:
        raise PluginError(f"parameter 'base_url': {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise PluginError(f"parameter 'base_url': {base_url!r} is no http(s) URL such as https://api.openai.com/v1")
    if url.userinfo or url.query:
        raise PluginError("parameter 'base_url': keys belong in api_key or headers, not in the URL, which is logged")
    return url


def tls_problem(error: BaseException, setting: str = "base_url", bundle: str = "SSL_CERT_FILE") -> str:
    """Return what the TLS layer found wrong and what to check, an empty string if the failure lies elsewhere.

    Parameters
    ----------
    error : of the HTTP client, httpx or aiohttp, with its causes
    setting : what the operator calls the URL
    bundle : variable that names the file of trusted authorities
    """
    found: ssl.SSLError | None = None
    cause: BaseException | None = error
    while cause is not None:
        found = cause if isinstance(cause, ssl.SSLError) else found  # the innermost: aiohttp's own have no message
        cause = cause.__cause__ or cause.__context__
    if isinstance(found, ssl.SSLCertVerificationError):
        return (
            f"its certificate is refused ({found.verify_message}); check the host in {setting} and this machine's"
            f" clock, and for a private authority set {bundle} to its bundle"
        )
    if found is not None:
        return f"TLS failed ({found.reason or found}); if the server speaks plain HTTP, write http:// in {setting}"
    return ""


def _problem(body: str) -> tuple[str, str]:
    """Return message and code of an OpenAI error object, or the beginning of the body."""
    try:
        error = json.loads(body)["error"]
        return " ".join(str(error["message"]).split()), str(error.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return " ".join(body[: 4 * _EXCERPT].split()) or "an empty body", ""
