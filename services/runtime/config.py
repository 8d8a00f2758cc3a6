"""How a service is configured: defaults, then a YAML file, then the environment, then flags.

Every service has one `Settings` class made from `ServiceSettings`, or from `ProcessSettings` if it
has no part in NATS. Unknown keys are refused; an error names the key, its value and what is legal.
"""

import sys
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from services.runtime import ports


def _address(value: str) -> str:
    ports.split(value)
    return value


Address = Annotated[str, AfterValidator(_address)]


class ConfigError(Exception):
    """The configuration is wrong; the text names each key, its value and what is legal."""


class ProcessSettings(BaseSettings):
    """What every process can be told."""

    log_level: str = Field(
        "info",
        pattern="^(debug|info|warning|error)$",
        description="debug, info, warning or error.",
    )
    log_format: str = Field(
        "auto",
        pattern="^(auto|json|console)$",
        description="json, console, or auto: console on a terminal.",
    )
    ready_file: Path | None = Field(
        None,
        description="Written as JSON, with the addresses listened on, once the service listens.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags and arguments win over the environment, which wins over the file."""
        return (init_settings, env_settings, YamlConfigSettingsSource(settings_cls))

    @classmethod
    def load(cls, argv: list[str]) -> Self:
        """Reads the configuration of a process from its command line and what that names.

        Args:
            argv: arguments without the program's name. `--config FILE` names the YAML file.

        Raises:
            ConfigError: if a key is unknown or a value is not legal.
            SystemExit: after `--help`.
        """
        argv, config_file = _take_config_file(argv)
        config = SettingsConfigDict(**{**cls.model_config, "yaml_file": config_file})
        loaded = type(cls.__name__, (cls,), {"model_config": config, "__doc__": cls.__doc__})
        try:
            flags = CliSettingsSource[Any](
                loaded,
                cli_parse_args=argv,
                cli_kebab_case=True,
                cli_hide_none_type=True,
                cli_prog_name=Path(sys.argv[0]).name,
                cli_implicit_flags=True,
            )
            settings: Self = loaded(**flags())
            return settings
        except ValidationError as error:
            raise ConfigError(_explain(error, config_file)) from error


class ServiceSettings(ProcessSettings):
    """What every service can be told."""

    nats_url: str = Field(
        f"nats://{ports.NATS}",
        description="nats-server, as nats://host:port; several separated by commas.",
    )
    nats_credentials_file: Path | None = Field(
        None, description="File with user:password for nats-server."
    )
    stream_replicas: int = Field(
        1,
        ge=1,
        le=5,
        description="On how many nats-servers of a cluster each stream is kept: 3 for a fleet. The "
        "same for every process of a mesh.",
    )
    ack_wait_s: float = Field(
        10.0,
        ge=1,
        le=300,
        description="How long a delivery may go without progress before it is delivered again. "
        "The same for every process of a mesh.",
    )


def service_config(service: str) -> SettingsConfigDict:
    """The pydantic configuration of a service's settings."""
    return SettingsConfigDict(env_prefix=f"FOREBAY_{service.upper()}_", extra="forbid", frozen=True)


def _take_config_file(argv: list[str]) -> tuple[list[str], Path | None]:
    rest: list[str] = []
    config_file: Path | None = None
    words = iter(argv)
    for word in words:
        if word == "--config":
            config_file = Path(next(words, ""))
        elif word.startswith("--config="):
            config_file = Path(word.removeprefix("--config="))
        else:
            rest.append(word)
    if config_file is not None and not config_file.is_file():
        raise ConfigError(f"--config: there is no file {str(config_file)!r}")
    return rest, config_file


def _explain(error: ValidationError, config_file: Path | None) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            where = f" in {config_file}" if config_file else ""
            lines.append(f"{key}{where}: unknown key")
        else:
            lines.append(f"{key} = {problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)
