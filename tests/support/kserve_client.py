"""Infers with KServe's client, as it is; run in an environment that has it.

Usage: kserve_client.py ADDRESS MODEL
"""

import asyncio
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main(address: str, model: str) -> None:
    client = InferenceGRPCClient(address)
    if await client.is_server_live():
        print("live")
    if await client.is_model_ready(model):
        print("ready")
    tensor = InferInput("DO", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"through kserve"], dtype=np.object_), binary_data=True)
    response = await client.infer(InferRequest(model_name=model, infer_inputs=[tensor]))
    print(response.outputs[0].as_numpy().reshape(-1)[0])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
