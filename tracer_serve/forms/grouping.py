"""Group LLM calls by their prompt, in one pass and in bounded memory, without knowing where the text is."""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tracer_serve.forms.prompt_group import Example, Observed, PromptGroup, Totals, instructs, move_share
from tracer_serve.forms.slot import CHAIN, FEWEST, Slot, split_prompts

_WAITING = 160  # calls of one form whose prompt is not known yet
_WAITING_BYTES = 64_000_000  # characters of the waiting calls of all forms
_LOOKS = frozenset(100 * 4**n for n in range(12))  # numbers of calls at which a group is looked at again


@dataclass(slots=True)
class _Head:
    """The calls that are equal but for the last message."""

    totals: Totals = field(default_factory=Totals)
    groups: list[PromptGroup] = field(default_factory=list)
    waiting: list[tuple[str, str, Observed]] = field(default_factory=list)


class CallGroups:
    r"""Groups of calls with the same prompt.

    Calls that differ in anything but the last message are of different forms. Within a form the prompt is found once
    `FEWEST` calls have come; from then on a call is matched by string comparison. Of a call whose answer cannot be a
    label only the count is kept.

    Parameters
    ----------
    keep : applied to a text before it is stored; returns None for a text that must not be stored
    most_forms : forms that are kept; of more, the least recently used is dropped

    Examples
    --------
    >>> from tracer_serve.forms.calls import parse
    >>> from tracer_serve.forms.prompt_group import Observed
    >>> groups = CallGroups()
    >>> for n in range(40):
    ...     said = f"Is this number even? Answer yes or no.\nNumber: {n}"
    ...     call = parse({"model": "gpt", "messages": [{"role": "user", "content": said}]})
    ...     _ = groups.add(Observed(call, "no" if n % 2 else "yes", at=float(n)))
    >>> [(group.slot.prefix[-8:], group.totals.calls, group.label_set) for group in groups.tasks()]
    [('Number: ', 40, ('no', 'yes'))]
    """

    def __init__(
        self, keep: Callable[[str], str | None] = lambda text: text, *, seed: int = 0, most_forms: int = 2_000
    ) -> None:
        self._keep, self._chance, self._most_forms = keep, random.Random(seed), most_forms
        self._heads: OrderedDict[str, _Head] = OrderedDict()
        self._waiting = 0
        self.totals = Totals()

    def add(self, seen: Observed) -> PromptGroup | None:
        """Add a call; return the group that it belongs to; None if that is not known (yet)."""
        self.totals.add(seen)
        head = self._head(seen.call.form.fingerprint)
        head.totals.add(seen)
        message, label = seen.call.message, seen.label
        if message is None or label is None or seen.call.form.media:
            return None
        group = self._match(head, message)
        if group is not None:
            self._into(group, message, label, seen)
            if group.totals.calls in _LOOKS:
                self._look_again(head, group)
            return group
        head.waiting.append((message, label, seen))
        self._waiting += len(message)
        if len(head.waiting) % FEWEST == 0:
            self._settle(head)
        self._bound(head)
        return None

    def groups(self) -> Iterator[PromptGroup]:
        """Yield every group, the largest first."""
        found = [group for head in self._heads.values() for group in head.groups]
        yield from sorted(found, key=lambda group: -group.totals.calls)

    def tasks(self) -> list[PromptGroup]:
        """Return the groups that are classifications, the largest first."""
        return [group for group in self.groups() if group.is_task]

    def forms(self) -> list[tuple[str, Totals]]:
        """Return fingerprint and counts of every form: all calls that differ in the last message only."""
        return [(fingerprint, head.totals) for fingerprint, head in self._heads.items()]

    def settle(self) -> None:
        """Look for prompts among the calls that still wait, as at the end of a log."""
        for head in self._heads.values():
            self._settle(head)

    def restore(self, group: PromptGroup) -> None:
        """Add a group that was stored."""
        self._head(group.form.wrapped("", "").fingerprint).groups.append(group)

    def restore_totals(self, fingerprint: str, totals: Totals) -> None:
        """Add the counts of a form that were stored."""
        self._head(fingerprint).totals = totals
        self.totals = self.totals + totals

    def forget(self, before: float) -> None:
        """Drop the texts that are older than a time, in seconds since 1970, and forms that were not called since."""
        for head in self._heads.values():
            head.groups = [group for group in head.groups if group.totals.last >= before]
            for group in head.groups:
                group.examples = [example for example in group.examples if example.at >= before]
        for fingerprint in [key for key, head in self._heads.items() if head.totals.last < before]:
            self._waiting -= sum(len(message) for message, *_ in self._heads.pop(fingerprint).waiting)

    def _head(self, fingerprint: str) -> _Head:
        head = self._heads.get(fingerprint)
        if head is None:
            head = self._heads[fingerprint] = _Head()
            if len(self._heads) > self._most_forms:
                quiet = next((key for key, one in self._heads.items() if not one.groups), next(iter(self._heads)))
                self._waiting -= sum(len(message) for message, *_ in self._heads.pop(quiet).waiting)
        self._heads.move_to_end(fingerprint)
        return head

    def _match(self, head: _Head, message: str) -> PromptGroup | None:
        fitting = (group for group in head.groups if group.slot.read(message) is not None)
        return max(fitting, key=lambda group: len(group.slot), default=None)

    def _into(self, group: PromptGroup, message: str, label: str, seen: Observed) -> None:
        kept = self._keep(group.slot.read(message) or "")
        if kept is not None and kept.strip():
            group.add(kept, label, seen, self._chance)

    def _settle(self, head: _Head) -> None:
        """Look for prompts among the waiting calls, and move those that are found to their groups."""
        for slot, _ in split_prompts([message for message, *_ in head.waiting]):
            form = head.waiting[0][2].call.form.wrapped(slot.prefix, slot.suffix)
            if instructs(form) and not self._widened(head, slot):
                head.groups.append(PromptGroup(form))
        waiting, head.waiting = head.waiting, []
        for message, label, seen in waiting:
            group = self._match(head, message)
            if group is None:
                head.waiting.append((message, label, seen))
            else:
                self._waiting -= len(message)
                self._into(group, message, label, seen)

    def _widened(self, head: _Head, slot: Slot) -> bool:
        """Widen the slot of a group that took a piece of its first texts for the wrapper; return whether one did."""
        for group in head.groups:
            inner = slot.read(group.slot.prefix + group.slot.suffix)
            if inner is not None and 0 < len(inner) < CHAIN:
                before, after = group.slot.prefix[len(slot.prefix) :], group.slot.suffix[: -len(slot.suffix) or None]
                group.form = group.form.wrapped(slot.prefix, slot.suffix)
                group.examples = [Example(f"{before}{e.text}{after}", e.label, e.at) for e in group.examples]
                return True
        return False

    def _look_again(self, head: _Head, group: PromptGroup) -> None:
        """Separate prompts that a group with a short wrapper has taken for texts."""
        parts = [slot for slot, _ in split_prompts([example.text for example in group.examples]) if len(slot) >= CHAIN]
        for slot in parts:
            outer = group.slot
            inner = PromptGroup(group.form.wrapped(outer.prefix + slot.prefix, slot.suffix + outer.suffix))
            for example in group.examples:
                if (text := slot.read(example.text)) is not None:
                    inner.examples.append(Example(text, example.label, example.at))
            group.examples = [example for example in group.examples if slot.read(example.text) is None]
            move_share(group, inner)
            head.groups.append(inner)

    def _bound(self, head: _Head) -> None:
        """Drop the oldest half of the waiting calls where there are too many."""
        if len(head.waiting) >= _WAITING:
            self._drop(head)
        while self._waiting > _WAITING_BYTES:
            self._drop(max(self._heads.values(), key=lambda one: sum(len(message) for message, *_ in one.waiting)))

    def _drop(self, head: _Head) -> None:
        half = (len(head.waiting) + 1) // 2
        self._waiting -= sum(len(message) for message, *_ in head.waiting[:half])
        del head.waiting[:half]
