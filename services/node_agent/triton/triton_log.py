"""Pure: what Triton's log says about why it stopped."""

import re

_ERROR_LINE = re.compile(r"^[EF]\d{4} [\d:.]+ \d+ \S+\] (.*)")
_REASON = re.compile(r"\| *(?:UNAVAILABLE|INVALID_ARGUMENT|INTERNAL): *(.*?) *\|?$")
MAX_LINES = 6
MAX_CHARACTERS = 1500


_WRAPPING = re.compile(
    r"^(?:ERROR: |Failed to create instance: |failed to load '[^']*' version \d+: |Internal: "
    r"|TritonModelException: )+"
)
"""What Triton puts before a model's own words, once for each layer it passes."""


def last_words(log: str) -> str:
    """The lines that say why Triton, or a model in it, failed.

    Triton writes errors as `E1122 00:40:00.6 123 file.cc:1] "message"` and the reason for a model
    that did not load in a table; without either, the last lines stand for themselves. What a model
    raised comes several times, in other words each time: it is given once, without them.
    """
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    found = [match.group(1).strip('"') for line in lines if (match := _ERROR_LINE.match(line))]
    found += [match.group(1) for line in lines if (match := _REASON.search(line))]
    found = [_own_words(line) for line in found if "CudaDriverHelper" not in line]
    found = list(dict.fromkeys(found))
    said = [one for one in found if not any(one != other and one in other for other in found)]
    chosen = said[-MAX_LINES:] or [_own_words(line) for line in lines[-MAX_LINES:]]
    text = "\n".join(chosen)
    return text[-MAX_CHARACTERS:]


def _own_words(line: str) -> str:
    """A message as it was before Triton quoted it, wrapped it and said where it was raised."""
    text = line.replace("\\n", "\n").replace('\\"', '"').partition("\n\nAt:")[0]
    return _WRAPPING.sub("", text).rstrip()
