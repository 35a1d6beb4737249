"""Teacher behind any OpenAI-compatible chat endpoint, Azure OpenAI included."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr

from tracer_serve.components.registry import teachers
from tracer_serve.components.teachers._answer_format import AnswerFormat, schema_of
from tracer_serve.components.teachers._dialect import AZURE, OPENAI
from tracer_serve.components.teachers._endpoint import TeacherEndpoint
from tracer_serve.components.teachers._labels import FieldLabels, LabelSet
from tracer_serve.components.teachers._llm_teacher import CallLimits, Costs, Count, LlmTeacher, Seconds, digest
from tracer_serve.components.teachers._params import BreakerParams, Budget, CacheParams, Fallback, Price
from tracer_serve.components.teachers._prompt import Prompt
from tracer_serve.components.teachers._recorded import RecordedPrompt
from tracer_serve.config.fields import AnswerFields
from tracer_serve.errors import PluginError
from tracer_serve.forms.calls import CHAT
from tracer_serve.types import Text


@teachers.register("openai")
class OpenAI(LlmTeacher):
    """Ask a chat model for the label; cache, coalesce, limit, retry and fall back.

    Parameters
    ----------
    model : the model's name at the endpoint
    base_url : root of the API; of an Azure OpenAI resource with `api_version`, https://NAME.openai.azure.com
    api_key : sent as bearer token; never shown in errors, logs or a repr. ``pass_through``: drop-in calls go upstream
        with their callers' own keys, which are not stored; direct calls and files then have no key
    request : instead of prompt, a JSON file with the body of one call exactly as callers send it, with ``{text}`` in
        place of the text: its messages and all other fields, the temperature included
    prompt : template with ``{labels}``, ``{descriptions}``, ``{text}``; without ``{text}`` it is the system message and
        the text is the user message. Default: a plain classification prompt
    temperature : None leaves it out of the request, for models that reject it
    response : ``label``; ``json_schema``, ``json_object`` (with a schema, as llama.cpp takes it) or ``tool`` for
        structured output, which keeps every answer inside the label set; ``auto``: the strictest that an endpoint takes
    timeout_s : seconds for one try, from connecting to the last byte
    deadline_s : seconds for the whole call: queue, tries and pauses
    retries : further rounds after a 429, a 5xx, a timeout or a broken connection
    max_concurrency : maximum number of calls in flight
    queue : maximum number of calls waiting for a slot; further calls fail at once as ``overloaded``
    price : price of tokens
    budget : most money per day, by all processes together, and what happens when it is spent; needs `price`
    api_version : of Azure OpenAI; `model` is then the deployment, and the key goes into the header ``api-key``
    headers : further request headers, as secret as the key
    extra : further fields of the request, such as ``max_completion_tokens`` or ``seed``
    fallbacks : endpoints that serve the same model, in order of preference
    breaker, cache : when an endpoint counts as down; number and lifetime of cached answers
    labels, descriptions, fields : the task's closed label set, or the fields of its answers; none for an open task
    known : labels in an open task's traces; the prompt offers them, and labels that recur later

    Examples
    --------
    >>> teacher = OpenAI("gpt-4.1-mini", labels=("no", "yes"))
    >>> teacher.health.breakers
    (('api.openai.com', 'closed'),)
    """

    api = CHAT

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: SecretStr | None = None,
        prompt: str | None = None,
        request: Path | None = None,
        temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0,
        response: Literal["label", "json_schema", "json_object", "tool", "auto"] = "label",
        timeout_s: Seconds = 20.0,
        deadline_s: Seconds = 60.0,
        retries: Count = 3,
        max_concurrency: Annotated[int, Field(ge=1)] = 16,
        queue: Count = 256,
        price: Price | None = None,
        budget: Budget | None = None,
        api_version: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")] | None = None,
        headers: dict[str, SecretStr] | None = None,
        extra: dict[str, Any] | None = None,
        fallbacks: tuple[Fallback, ...] = (),
        breaker: BreakerParams = BreakerParams(),  # noqa: B008  # frozen
        cache: CacheParams = CacheParams(),  # noqa: B008  # frozen
        labels: tuple[str, ...] = (),
        descriptions: dict[str, str] | None = None,
        known: tuple[str, ...] = (),
        fields: AnswerFields | None = None,
    ) -> None:
        names, described = sorted(labels), dict(descriptions or {})
        if prompt is not None and request is not None:
            raise PluginError("parameters 'prompt' and 'request': give one of them")
        recorded = None if request is None else RecordedPrompt(request, CHAT)
        asked = recorded or Prompt(prompt, names, described, known, fields)
        label_set = FieldLabels(fields) if fields else LabelSet(names, recorded.label_path if recorded else ())
        self._body: dict[str, Any] = (recorded.options if recorded else {}) | (extra or {})
        if recorded is not None:
            temperature = self._body.get("temperature")
        elif temperature is not None:
            self._body["temperature"] = temperature
        first = Fallback(
            base_url=base_url, model=model, api_key=api_key, headers=headers or {}, api_version=api_version
        )
        endpoints = [
            TeacherEndpoint(
                block,
                OPENAI if block.api_version is None else AZURE,
                AnswerFormat(schema_of(names, fields), response, label_set.names),
                model=model,
                timeout_s=timeout_s,
                breaker=breaker,
                connections=max_concurrency,
            )
            for block in (first, *fallbacks)
        ]
        models = sorted({endpoint.model for endpoint in endpoints[1:]} - {model})
        schema = endpoints[0].format.fields("json_schema") if response == "json_schema" else {}
        found_out = {} if response in ("label", "json_schema") else {"response": response}
        answers = fields.schema() if fields else names
        self.fingerprint = digest(
            [model, models, asked.template, answers, described, {**self._body, **schema, **found_out}]
        )
        limits = CallLimits(deadline_s, retries, max_concurrency, queue)
        super().__init__(
            asked, label_set, endpoints, limits, costs=Costs(price, budget), cache=cache, repeatable=temperature == 0
        )

    def body(self, text: Text) -> dict[str, Any]:
        """Return the body of the call that asks about a text, without the fields of its answer's format."""
        return {**self._body, "messages": self.prompt.messages(text)}
