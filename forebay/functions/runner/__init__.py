"""What runs a function inside a replica: copied into its model directory as `forebay_runner`.

Nothing here imports the rest of forebay, which a replica does not have: the modules import each
other by `from .`, the standard library, numpy and msgpack. `model.py` is what Triton loads, `shim.py`
becomes the module `forebay` that the user's file imports. The client uses `codec` too, so that both
sides agree.
"""  # noqa: E501
