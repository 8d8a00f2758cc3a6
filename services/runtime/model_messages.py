"""What a model says when it fails, for logs and traces: withheld unless the operator wants it.

A model's message can quote its input, and neither logs nor traces may hold what callers send. The
caller gets the message in any case.
"""

import os

VARIABLE = "FOREBAY_RECORD_MODEL_MESSAGES"

WITHHELD = (
    f"the caller has the message, which may quote its input ({VARIABLE}=true records it here)"
)
"""Says nothing of the model: a replica speaks for itself, too, and nothing tells the two apart."""


def for_record(message: str) -> str:
    """A model's message as logs and traces have it; empty stays empty."""
    if not message or os.environ.get(VARIABLE, "").lower() in {"1", "true"}:
        return message
    return WITHHELD
