"""Find the runtime behind a request."""

from starlette.requests import Request

from tracer_serve.serving.runtime import Runtime


def runtime_of(request: Request) -> Runtime:
    """Return the runtime behind a request."""
    runtime: Runtime = request.app.state.runtime
    return runtime
