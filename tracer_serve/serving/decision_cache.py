"""Cache of the policy's verdicts on exact texts, per version."""

from collections.abc import Sequence
from dataclasses import replace

from tracer_serve.infra.cooperative import in_turns
from tracer_serve.serving.active_version import ActiveVersion
from tracer_serve.serving.batcher import Batcher, BatchTimes, MaybeVerdict
from tracer_serve.serving.metrics import Metrics
from tracer_serve.types import Text, Verdict, length_of

_REMEMBERED_CHARS = 2_000  # longer texts rarely repeat, and would take unbounded memory


async def judge(
    loaded: ActiveVersion | None, texts: Sequence[Text], batcher: Batcher, metrics: Metrics
) -> tuple[list[MaybeVerdict], BatchTimes]:
    """Return the verdicts on texts in their order, cached or new; without a version there are none.

    Parameters
    ----------
    loaded : the version, which caches its verdicts on short texts
    batcher : runs its policy
    """
    if loaded is None:
        return [None] * len(texts), BatchTimes()
    if not loaded.decided.size:
        return await _ask(loaded, texts, batcher, metrics)
    verdicts: list[MaybeVerdict] = [loaded.decided.get(text) async for text in in_turns(texts)]
    new = [i for i, verdict in enumerate(verdicts) if verdict is None]
    if len(new) < len(texts):
        metrics.remembered["hit"].inc(len(texts) - len(new))
    if not new:
        return verdicts, BatchTimes()
    metrics.remembered["miss"].inc(len(new))
    found, times = await _ask(loaded, [texts[i] for i in new], batcher, metrics)
    async for i, verdict in in_turns(zip(new, found, strict=True)):
        verdicts[i] = verdict
        if isinstance(verdict, Verdict) and length_of(texts[i]) <= _REMEMBERED_CHARS:
            # copy the probabilities: a view would keep those of the whole batch in memory
            loaded.decided.put(texts[i], replace(verdict, proba=verdict.proba.copy()))
    return verdicts, times


async def _ask(
    loaded: ActiveVersion, texts: Sequence[Text], batcher: Batcher, metrics: Metrics
) -> tuple[list[MaybeVerdict], BatchTimes]:
    verdicts, times = await batcher.judge(loaded.policy, texts)
    metrics.seconds["embed"].observe(times.embed_s)
    metrics.seconds["predict"].observe(times.predict_s)
    if failed := verdicts.count(None):
        metrics.policy_failures.inc(failed)
    return verdicts, times
