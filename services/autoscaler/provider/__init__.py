"""Who adds machines that are missing and releases idle ones."""

from services.autoscaler.provider.feed import Feed
from services.autoscaler.provider.local import LocalProvider
from services.autoscaler.provider.nothing import NoProvider
from services.autoscaler.provider.protocol import NodeProvider, ProviderError
from services.autoscaler.provider.webhook import WebhookProvider
from services.autoscaler.settings import AutoscalerSettings
from services.runtime.clock import Clock

__all__ = ["Feed", "NodeProvider", "ProviderError", "make"]


def make(settings: AutoscalerSettings, address: str, clock: Clock) -> Feed:
    """The provider that is configured, with the task that feeds it.

    Args:
        settings: of the autoscaler.
        address: where this autoscaler listens.
        clock: tells how old an offer is.
    """
    return Feed(_provider(settings, address, clock), clock)


def _provider(settings: AutoscalerSettings, address: str, clock: Clock) -> NodeProvider:
    if settings.node_provider == "webhook":
        assert settings.webhook_url is not None, "checked with the settings"
        assert settings.webhook_secret_file is not None, "checked with the settings"
        return WebhookProvider(
            settings.webhook_url, settings.webhook_secret_file, settings.mesh, clock
        )
    if settings.node_provider == "local":
        return LocalProvider(settings, address, clock)
    return NoProvider()
