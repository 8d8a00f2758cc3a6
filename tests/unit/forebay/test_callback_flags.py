"""What `forebay up` tells autoscalers of callbacks."""

from pathlib import Path

import pytest

from forebay.cli.failure import CliError
from forebay.cli.up import autoscaler_flags
from services.autoscaler.settings import AutoscalerSettings


def test_nothing_is_said_by_default() -> None:
    assert autoscaler_flags(None, None, []) == {}


def test_what_is_said_is_what_an_autoscaler_takes(tmp_path: Path) -> None:
    flags = autoscaler_flags(tmp_path, tmp_path / "secret", ["127.0.0.0/8", "fd00::/8"])
    settings = AutoscalerSettings.load([word for flag in flags.items() for word in flag])
    assert settings.policies_dir == tmp_path
    assert settings.callback_secret_file == tmp_path / "secret"
    assert settings.callback_allowed_networks == "127.0.0.0/8,fd00::/8"


@pytest.mark.parametrize("network", ["10.0.0.1/8", "localhost", ""])
def test_a_network_that_is_none_is_refused(network: str) -> None:
    with pytest.raises(CliError, match="--callback-network"):
        autoscaler_flags(None, None, ["127.0.0.0/8", network])
