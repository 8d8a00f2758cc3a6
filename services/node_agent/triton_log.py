"""Pure: what Triton's log says about why it stopped."""

import re

_ERROR_LINE = re.compile(r"^[EF]\d{4} [\d:.]+ \d+ \S+\] (.*)")
_REASON = re.compile(r"\| *(?:UNAVAILABLE|INVALID_ARGUMENT|INTERNAL): *(.*?) *\|?$")
MAX_LINES = 6
MAX_CHARACTERS = 1500


def last_words(log: str) -> str:
    """The lines that say why Triton, or a model in it, failed.

    Triton writes errors as `E1122 00:40:00.6 123 file.cc:1] "message"` and the reason for a model
    that did not load in a table; without either, the last lines stand for themselves.
    """
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    found = [match.group(1).strip('"') for line in lines if (match := _ERROR_LINE.match(line))]
    found += [match.group(1) for line in lines if (match := _REASON.search(line))]
    found = [line for line in found if "CudaDriverHelper" not in line]
    chosen = list(dict.fromkeys(found))[-MAX_LINES:] or lines[-MAX_LINES:]
    text = "\n".join(chosen).replace("\\n", "\n")
    return text[-MAX_CHARACTERS:]
