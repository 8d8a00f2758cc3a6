"""The example files are the defaults, and the reference lists every setting."""

import os
from pathlib import Path

import pytest
import yaml

from scripts import configuration
from services.runtime.config import ConfigError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FOREBAY_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("service", configuration.SERVICES)
def test_example_file_is_fresh(service: str) -> None:
    written = configuration.config_file(service).read_text()
    assert written == configuration.example(service), "run `make docs`"


@pytest.mark.parametrize("service", configuration.SERVICES)
def test_example_file_equals_the_defaults(service: str) -> None:
    settings = configuration.settings_class(service)
    file = configuration.config_file(service)
    loaded = settings.load(["--config", str(file)])
    assert loaded.model_dump() == settings.load([]).model_dump()
    fixed = {n for n, f in settings.model_fields.items() if f.default_factory is None}
    assert set(yaml.safe_load(file.read_text())) == fixed


@pytest.mark.parametrize("service", configuration.SERVICES)
def test_every_setting_says_what_it_means(service: str) -> None:
    terse = [s.name for s in configuration.settings_of(service) if len(s.description) < 10]
    assert not terse


@pytest.mark.parametrize("service", configuration.SERVICES)
def test_settings_with_a_unit_say_so_in_their_name(service: str) -> None:
    """A number of seconds ends in _s, of bytes in _bytes."""
    for setting in configuration.settings_of(service):
        text = setting.description.lower()
        if setting.type == "number" and "second" in text:
            assert setting.name.endswith("_s")
        if setting.type == "integer" and "in bytes" in text:
            assert setting.name.endswith("_bytes")


@pytest.mark.parametrize("service", configuration.SERVICES)
def test_unknown_keys_are_refused_by_name(service: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("no_such_setting: 1\n")
    with pytest.raises(ConfigError, match="no_such_setting"):
        configuration.settings_class(service).load(["--config", str(file)])


@pytest.mark.parametrize("file", configuration.DOCUMENTS, ids=lambda file: file.name)
def test_reference_is_fresh(file: Path) -> None:
    assert file.read_text() == configuration.document(file), "run `make docs`"
