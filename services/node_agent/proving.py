"""What a Triton must show before it gets requests: its model is loaded, and infers."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from services.node_agent import losing
from services.node_agent.runtime import Triton, TritonExitedError
from services.node_agent.triton import canary
from services.node_agent.triton.triton_client import TritonClient, TritonError
from services.wire.triton_stubs import service_pb2 as triton

CANARY_TIMEOUT_S = 60.0


class NotProvenError(Exception):
    """A Triton that was started cannot serve; the text says why, for a person."""


class NotLoadedError(NotProvenError):
    """Its model is not there; its log says why."""


async def wait_listening(triton: Triton, timeout_s: float, directory: Path) -> None:
    """Waits until a Triton listens, which it does once its model is loaded.

    Args:
        triton: started or adopted.
        timeout_s: how long it may take.
        directory: of its replica.

    Raises:
        NotProvenError: if it ends, or takes longer.
    """
    try:
        await triton.wait_listening(timeout_s)
    except TritonExitedError:
        said = await losing.told("Triton did not start", triton, directory)
        raise NotProvenError(said) from None
    except TimeoutError:
        raise NotProvenError(
            f"Triton did not load the model within {timeout_s:g} s (startup_timeout_s): "
            f"{await losing.log_words(directory)}"
        ) from None


async def prove(
    client: TritonClient, model: str, infers: bool, say: Callable[[str], None]
) -> dict[str, bytes]:
    """Asks a Triton for its model, and for an inference.

    Args:
        client: of the Triton.
        model: its model.
        infers: whether it must pass the canary inference.
        say: told of the inference.

    Returns:
        `config` and `metadata` of the model, as Triton gave them.

    Raises:
        NotProvenError: if it fails.
    """
    try:
        async with asyncio.timeout(CANARY_TIMEOUT_S):
            if not await client.is_ready():
                raise NotLoadedError("Triton did not load the model")
            config, metadata = await client.config(), await client.metadata()
            if infers:
                say("canary inference")
                parsed = triton.ModelConfigResponse.FromString(config).config
                await client.infer(canary.zeros_request(model, parsed))
    except (TritonError, TimeoutError, canary.UnknownTypeError) as error:
        said = error.message if isinstance(error, TritonError) else str(error)
        raise NotProvenError(
            f"the canary inference failed: {said or 'no answer in 60 s'}. If the model does "
            "not take zeros, write `canary: off` in the deployment's file"
        ) from error
    return {"config": config, "metadata": metadata}
