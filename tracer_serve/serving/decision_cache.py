"""Cache of the policy's verdicts on exact texts, per version."""

from collections.abc import Sequence
from dataclasses import replace

from tracer_serve.errors import BadInputError
from tracer_serve.infra.cooperative import in_turns
from tracer_serve.serving.active_version import ActiveVersion
from tracer_serve.serving.batcher import Batcher, Judged
from tracer_serve.serving.metrics import Metrics
from tracer_serve.types import Text, Verdict, length_of

_REMEMBERED_CHARS = 2_000  # longer texts are rarely asked twice, and their memory would have no bound


async def judge(loaded: ActiveVersion | None, texts: Sequence[Text], batcher: Batcher, metrics: Metrics) -> Judged:
    """Return the verdicts on texts in their order, cached or new; without a version there are none.

    Parameters
    ----------
    loaded : the version, which caches its verdicts on short texts
    batcher : runs its policy
    """
    if loaded is None:
        return Judged([None] * len(texts))
    if not loaded.decided.size:
        return await _ask(loaded, texts, batcher, metrics)
    verdicts: list[Verdict | BadInputError | None] = [loaded.decided.get(text) async for text in in_turns(texts)]
    new = [i for i, verdict in enumerate(verdicts) if verdict is None]
    if len(new) < len(texts):
        metrics.remembered["hit"].inc(len(texts) - len(new))
    if not new:
        return Judged(verdicts)
    metrics.remembered["miss"].inc(len(new))
    judged = await _ask(loaded, [texts[i] for i in new], batcher, metrics)
    async for i, said in in_turns(zip(new, judged.verdicts, strict=True)):
        verdicts[i] = said
        if isinstance(said, Verdict) and length_of(texts[i]) <= _REMEMBERED_CHARS:
            # its probabilities as a copy, which does not keep those of the whole batch
            loaded.decided.put(texts[i], replace(said, proba=said.proba.copy()))
    return Judged(verdicts, judged.embed_s, judged.predict_s)


async def _ask(loaded: ActiveVersion, texts: Sequence[Text], batcher: Batcher, metrics: Metrics) -> Judged:
    judged = await batcher.judge(loaded.policy, texts)
    metrics.seconds["embed"].observe(judged.embed_s)
    metrics.seconds["predict"].observe(judged.predict_s)
    if failed := judged.verdicts.count(None):
        metrics.policy_failures.inc(failed)
    return judged
