# The serving image: core packages and onnxruntime, without torch. Sentence-transformers tasks serve `backend: onnx`.
#
#   docker build -t tracer-serve .
#   docker run -p 127.0.0.1:3000:3000 -v tracer-state:/state tracer-serve configs/banking.yaml --insecure
#   docker run -p 3000:3000 -e API_KEY -v tracer-state:/state -v "$PWD/my:/app/my:ro" tracer-serve my/task.yaml
#
# The first command publishes the port on the host's loopback only and needs no key; without --insecure (or
# TRACER_SERVE_INSECURE=1) a task without keys is not served beyond loopback. For the second, the YAML has
# `server: {api_keys: ["${API_KEY}"]}`.

FROM python:3.11.14-slim-bookworm AS build

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY tracer_serve ./tracer_serve
RUN /venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[onnx-serving,otel,postgres,s3]"
# A third of the size is never imported: the packages' own tests, debug symbols, tools for exporting graphs, descriptions
# of other cloud services than object stores, pip. Libraries in *.libs stay as they are: strip would damage them.
WORKDIR /venv/lib/python3.11/site-packages
RUN find . -type d -name tests -prune -exec rm -r {} + \
    && find . -name '*.so' -not -path '*.libs/*' -exec strip --strip-debug {} + \
    && find botocore/data -mindepth 1 -maxdepth 1 -type d -not -name 's3' -not -name 's[st][os]*' -exec rm -r {} + \
    && rm -r onnxruntime/quantization onnxruntime/tools onnxruntime/transformers \
    && /venv/bin/pip uninstall --yes --quiet hf-xet setuptools pip


FROM python:3.11.14-slim-bookworm

RUN useradd --uid 10001 --create-home tracer \
    && install --directory --owner=10001 --group=10001 /state
COPY --from=build /venv /venv
WORKDIR /app
COPY plugins ./plugins
COPY configs ./configs

# A container's loopback is not reachable from outside; publish the port on the host's loopback instead, as above.
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TRACER_SERVE_HOST=0.0.0.0 \
    TRACER_SERVE_STATE=/state

USER 10001
VOLUME ["/state"]
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/readyz', timeout=2)"]

ENTRYPOINT ["tracer-serve"]
CMD ["configs/banking.yaml"]
