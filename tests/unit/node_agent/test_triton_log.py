"""What Triton's log says about why it stopped."""

from services.node_agent.triton.triton_log import last_words

LOG = """I1122 00:40:00.1 2641 model_lifecycle.cc:472] "loading: bad:1"
E1122 00:39:59.2 2641 server.cc:241] "CudaDriverHelper has not been initialized."
E1122 00:40:01.2 2641 model_lifecycle.cc:654] "failed to load bad version 1: ImportError"
+-------+---------+
| Model | Version | Status                                          |
| bad   | 1       | UNAVAILABLE: Internal: ImportError: no module x |
I1122 00:40:02.1 2641 server.cc:305] "Waiting for in-flight requests to complete."
"""


def test_the_reason_is_found_among_the_noise() -> None:
    words = last_words(LOG)
    assert "ImportError: no module x" in words
    assert "CudaDriverHelper" not in words
    assert "Waiting for" not in words


def test_without_an_error_line_the_last_lines_stand_for_themselves() -> None:
    assert last_words("one\n\ntwo\n") == "one\ntwo"


def test_a_flood_of_words_is_cut() -> None:
    assert len(last_words("x" * 100_000)) <= 1500


RAISED = r"""E1122 08:22:01.1 1 model.cc:1] "ERROR: Failed to create instance: TritonModelException: ValueError: no \"weights\"\nTraceback (most recent call last):\n  File \"bad.py\", line 6\n\nAt:\n  /x/model.py(37): initialize\n"
E1122 08:22:01.2 1 model.cc:2] "failed to load 'bad' version 1: Internal: TritonModelException: ValueError: no \"weights\"\nTraceback (most recent call last):\n  File \"bad.py\", line 6\n\nAt:\n  /x/model.py(37): initialize\n"
| bad   | 1       | UNAVAILABLE: Internal: TritonModelException: ValueError: no "weights" |
"""  # noqa: E501


def test_what_a_model_raised_is_told_once_and_in_its_own_words() -> None:
    assert last_words(RAISED) == (
        'ValueError: no "weights"\nTraceback (most recent call last):\n  File "bad.py", line 6'
    )
