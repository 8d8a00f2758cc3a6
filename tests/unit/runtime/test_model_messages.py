"""What a model says stays out of logs and traces unless the operator wants it there."""

import pytest

from services.runtime.model_messages import VARIABLE, WITHHELD, for_record


def test_a_models_message_is_withheld_and_says_how_to_record_it() -> None:
    assert for_record("cannot read 4111 1111 1111 1111") == WITHHELD
    assert VARIABLE in WITHHELD
    assert for_record("") == ""


@pytest.mark.parametrize("value", ["true", "1", "TRUE"])
def test_an_operator_can_have_it_recorded(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert for_record("no such key") == "no such key"
