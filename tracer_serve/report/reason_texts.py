"""What reports, dashboard and terminal call things: reasons for which a text is handled or not, shares, bounds."""

SHORT = {
    "too_long": "longer than what was calibrated",
    "out_of_scope": "outside the scope guard",
    "class_not_certified": "its label has no certificate",
    "segment_not_certified": "its segment has no certificate",
    "protected_label": "may carry a protected label",
    "no_score": "no finite score",
}
"""Reasons of `REASONS` in a few words, those that need no further cause."""
REASONS = {
    "certified": "answered under the certificate",
    "too_long": "longer than what was calibrated, or than what the model reads: the teacher reads it whole",
    "out_of_scope": "unlike anything seen: the scope guard keeps it for the teacher",
    "class_not_certified": "the label it would get has no certificate of its own",
    "segment_not_certified": "texts of its segment have no certificate of their own",
    "protected_label": "it may carry a protected label, and would get another one",
    "below_threshold": "its score is under the certified threshold",
    "no_score": "the acceptor gave it no finite score",
    "no_certificate": "nothing is certified in this version, so everything goes to the teacher",
}
"""Reasons as in `Verdict`, in words."""
BRIEF = SHORT | {
    "certified": "answered under the certificate",
    "below_threshold": "score under the threshold",
    "no_certificate": "nothing is certified yet",
    "no_version": "no version yet",
    "gate_closed": "the gate is closed",
    "observe": "mode observe",
    "canary": "outside the canary share",
    "form_not_certified": "calls of this form are not certified yet",
    "form_disagrees": "audits of this form disagree",
    "unfillable_schema": "the call's schema wants more than a label",
    "burst_disagreed": "the teacher disagreed about a text like it",
    "policy_failed": "the model failed on the text",
    "teacher_down": "the teacher is down",
    "budget_reached": "the teacher's budget for the day is spent",
}
"""Reasons as in `Decision` in a few words."""
