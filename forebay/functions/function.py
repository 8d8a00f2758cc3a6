"""A Python function that is also a deployment."""

import dataclasses
import functools
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any

from numpy.typing import NDArray

from forebay.errors import ForebayError
from forebay.functions import first_use, upload
from forebay.functions.call_options import CallOptions
from forebay.functions.calls import inputs_of, value_of
from forebay.functions.connections import async_client_of, client_of
from forebay.functions.errors import typed
from forebay.functions.function_call import AsyncFunctionCall, FunctionCall
from forebay.functions.function_map import AsyncFunctionMap, FunctionMap
from forebay.functions.settings import FunctionSettings
from forebay.functions.upload import Deployed

DEFAULT_IN_FLIGHT = 1000
"""Items of a map between the caller's iterator and the caller, at least two batches."""


class Function:
    """What `@forebay.function` makes of a function or class.

    Calling it runs your code in this process, as if it were not decorated; so does `local`.
    `remote` runs it in the mesh and waits, `submit` stores a task, `map` and `starmap` run many.
    Before those, `deploy` it. `aremote`, `asubmit`, `amap`, `astarmap` and `adeploy` are the same
    to await.

    Attributes:
        name: of the deployment.
        target: the function or class that was decorated.
        settings: how it is deployed.
        call_options: how it is called; `options` changes them.
        schedule: when it runs by itself; set by `@forebay.schedule`.
    """

    def __init__(
        self, target: Callable[..., Any], settings: FunctionSettings, call_options: CallOptions
    ) -> None:
        """Use `forebay.function`."""
        # Not the attributes: a class's would hide those of this one.
        functools.update_wrapper(self, target, updated=())
        self.target = target
        self.settings = settings
        self.call_options = call_options
        self.schedule: Any = getattr(target, "schedule", None)
        self._signature = inspect.signature(_called(target))
        self._started: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        """Name of the deployment."""
        return self.settings.name

    def options(self, **changes: Any) -> "Function":
        """The same function, called otherwise: `f.options(priority="high").submit(x)`.

        Args:
            changes: fields of `CallOptions`: router, timeout_s, priority, labels, max_retries,
                min_backoff_s, max_backoff_s, attempt_timeout_s, ttl_s, result_ttl_s, callback_url.

        Raises:
            TypeError: if there is no such option.
        """
        made = Function(
            self.target, self.settings, dataclasses.replace(self.call_options, **changes)
        )
        made.schedule = self.schedule
        return made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the code in this process; a class is made once, and its `on_start` run."""
        if self._started is None:
            self._started = self._start()
        return self._started(*args, **kwargs)

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """As `remote`, but in this process: with batch=True, one item in and its result out."""
        self._check_arguments(args, kwargs)
        return self([args[0]])[0] if self.settings.batch else self(*args, **kwargs)

    def deploy(
        self, address: str | None = None, *, wait: bool = False, timeout_s: float = 300.0
    ) -> Deployed:
        """Packs the function's source, uploads it and creates or updates its deployment.

        The same source and parameters change nothing. Nothing need run for that: with the default
        policy, replicas start with the first call.

        Args:
            address: of the autoscaler; None means FOREBAY_AUTOSCALER, else the local mesh.
            wait: whether to wait until as many replicas are ready as there should be now.
            timeout_s: how long to wait, in seconds.

        Raises:
            FunctionDefinitionError: if it cannot become a deployment.
            DeploymentFailedError: if a replica fails or is not ready in time.
            ForebayError: if the mesh does not take it.
        """
        made = self.adeploy(address, wait=wait, timeout_s=timeout_s)
        return upload.blocking(made, f"{self.__name__}.adeploy()")

    async def adeploy(
        self, address: str | None = None, *, wait: bool = False, timeout_s: float = 300.0
    ) -> Deployed:
        """As `deploy`."""
        return await upload.deploy(self, address, wait_s=timeout_s if wait else None)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Runs one call in the mesh and waits for its result.

        Raises:
            FunctionError: if the function raised.
            InvalidRequestError: if an argument cannot be sent.
            ForebayError: of `Client.infer`.
        """
        inputs, options = self._inputs(args, kwargs), self.call_options
        try:
            result = client_of(options.router).infer(self.name, inputs, timeout_s=options.timeout_s)
        except ForebayError as error:
            raise typed(error) from None
        return value_of(result)

    async def aremote(self, *args: Any, **kwargs: Any) -> Any:
        """As `remote`."""
        inputs, options = self._inputs(args, kwargs), self.call_options
        try:
            result = await async_client_of(options.router).infer(
                self.name, inputs, timeout_s=options.timeout_s
            )
        except ForebayError as error:
            raise typed(error) from None
        return value_of(result)

    def submit(self, *args: Any, **kwargs: Any) -> FunctionCall:
        """Stores one call as a task; once this has returned, it ends once, whatever crashes.

        Raises:
            InvalidRequestError: if an argument cannot be sent.
            ForebayError: of `Client.submit`.
        """
        options = self.call_options
        client = client_of(options.router)
        inputs = self._inputs(args, kwargs)
        return FunctionCall(client.submit(self.name, inputs, **options.of_tasks()))

    async def asubmit(self, *args: Any, **kwargs: Any) -> AsyncFunctionCall:
        """As `submit`; what it returns is to be awaited too."""
        options = self.call_options
        client = async_client_of(options.router)
        inputs = self._inputs(args, kwargs)
        return AsyncFunctionCall(await client.submit(self.name, inputs, **options.of_tasks()))

    def map(
        self, items: Iterable[Any], *, batch_size: int | None = None, **options: Any
    ) -> FunctionMap:
        """Runs the function on every item, as tasks; yields results as they come.

        Args:
            items: the only argument of each call; read as there is room for them.
            batch_size: items of one task; None: `max_batch_size` with batch=True, else 1. With more
                than one, an item that fails is not tried again: the others of its task have their
                results.
            options: of `Client.map`: ordered, max_in_flight, return_exceptions, batch, progress;
                and those of tasks.

        Raises:
            FunctionError: while iterating, if the function raised for an item; with
                return_exceptions it is yielded in that item's place.
            ForebayError: of `Client.map`.
        """
        return self._map(items, self._one, batch_size, options)

    def starmap(
        self, items: Iterable[Sequence[Any]], *, batch_size: int | None = None, **options: Any
    ) -> FunctionMap:
        """As `map`, of calls with several arguments: each item is a sequence of them."""
        return self._map(items, self._several, batch_size, options)

    def amap(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        batch_size: int | None = None,
        **options: Any,
    ) -> AsyncFunctionMap:
        """As `map`, for `async for`."""
        return self._amap(items, self._one, batch_size, options)

    def astarmap(
        self,
        items: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        batch_size: int | None = None,
        **options: Any,
    ) -> AsyncFunctionMap:
        """As `starmap`, for `async for`."""
        return self._amap(items, self._several, batch_size, options)

    def _map(
        self, items: Iterable[Any], encode: Any, batch_size: int | None, options: dict[str, Any]
    ) -> FunctionMap:
        made = self._map_options(encode, batch_size, options)
        client = client_of(self.call_options.router)
        return FunctionMap(
            client.map(self.name, items, **made), made.get("return_exceptions", False)
        )

    def _amap(
        self, items: Any, encode: Any, batch_size: int | None, options: dict[str, Any]
    ) -> AsyncFunctionMap:
        made = self._map_options(encode, batch_size, options)
        client = async_client_of(self.call_options.router)
        return AsyncFunctionMap(
            client.map(self.name, items, **made), made.get("return_exceptions", False)
        )

    def _map_options(
        self, encode: Any, batch_size: int | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        size = self._batch_size(batch_size)
        first_use.note(self)
        return {
            "max_in_flight": max(DEFAULT_IN_FLIGHT, 2 * size),
            **self.call_options.of_tasks(),
            **options,
            "batch_size": size,
            "encode": encode,
        }

    def _one(self, item: Any) -> Any:
        return self._inputs((item,), {})

    def _several(self, item: Sequence[Any]) -> Any:
        return self._inputs(tuple(item), {})

    def _batch_size(self, wanted: int | None) -> int:
        most = self.settings.max_batch_size if self.settings.batch else None
        if wanted is None:
            return most or 1
        if most is not None and wanted > most:
            raise ValueError(
                f"batch_size = {wanted} is above max_batch_size = {most} of {self.name}; send "
                "smaller batches, or raise max_batch_size and deploy again"
            )
        return wanted

    def inputs(self, *args: Any, **kwargs: Any) -> dict[str, NDArray[Any]]:
        """What a call with these arguments sends to the deployment.

        Raises:
            TypeError: if the function does not take them.
            InvalidRequestError: if one of them cannot be sent.
        """
        self._check_arguments(args, kwargs)
        return inputs_of(args, kwargs)

    def _inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, NDArray[Any]]:
        made = self.inputs(*args, **kwargs)
        first_use.note(self)
        return made

    def _check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raises TypeError for what the function would not take, before it goes anywhere."""
        if not self.settings.batch:
            self._signature.bind(*args, **kwargs)
        elif len(args) != 1 or kwargs:
            raise TypeError(
                f"{self.__name__} has batch=True: a call has one argument, an item of the list "
                f"that the function takes; this one has {len(args)} and {len(kwargs)} by keyword"
            )

    def _start(self) -> Callable[..., Any]:
        if not isinstance(self.target, type):
            if self.settings.on_start is not None:
                self.settings.on_start()
            return self.target
        made: Callable[..., Any] = self.target()
        on_start = getattr(made, "on_start", None)
        if on_start is not None:
            on_start()
        return made

    def __repr__(self) -> str:
        return f"<forebay function {self.__module__}.{self.__name__}, deployment {self.name!r}>"

    __name__: str


def _called(target: Callable[..., Any]) -> Callable[..., Any]:
    """What takes the arguments; a method's signature shall not have `self`."""
    if not isinstance(target, type):
        return target
    made: Callable[..., Any] = functools.partial(target.__call__, None)
    return made
