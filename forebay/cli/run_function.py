"""`forebay run`: a script whose functions are deployed when it comes to use them."""

import ast
import json
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from forebay.cli.options import AutoscalerOption, MetricsOption, RouterOption, StateDirOption
from forebay.cli.running import failures, where_of


def register(app: typer.Typer) -> None:
    """Adds the command."""
    # What follows the file is the script's, options included.
    settings = {"allow_interspersed_args": False, "ignore_unknown_options": True}
    app.command("run", context_settings=settings)(run)


def run(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:NAME]",
            help="A Python file; with a name, the function of it that is called.",
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ARGUMENTS]...",
            help="The script's arguments. For a function in the mesh: its items, each JSON, text, "
            "or the bytes of a file as @path.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave deployed what was not deployed before.")
    ] = False,
    router: RouterOption = None,
    autoscaler: AutoscalerOption = None,
    metrics: MetricsOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Run a Python file against the mesh; deploy the functions it uses.

    Runs its `if __name__ == "__main__":` part, or else its `main()`, and prints what that returns.
    A function is deployed, if it has changed, when it is first used. What was not there before is
    deleted at the end.
    """
    from forebay import addresses

    where = where_of(router=router, autoscaler=autoscaler, metrics=metrics, state_dir=state_dir)
    with failures():
        for service in (addresses.ROUTER, addresses.AUTOSCALER, addresses.METRICS):
            os.environ[addresses.variable(service)] = where.address(service)
        code = _Run(keep).script(file, arguments or [])
    sys.exit(code)


class _Run:
    """One run of a script."""

    def __init__(self, keep: bool) -> None:
        from forebay.cli.run_watch import StartWatch

        self._keep = keep
        self._created: list[str] = []
        self._watch = StartWatch()

    def script(self, file: str, arguments: list[str]) -> int:
        """Runs it; returns the exit code of this process."""
        from forebay.cli.failure import FAILED, USAGE, CliError
        from forebay.functions import connections, first_use, loading
        from forebay.functions.errors import FunctionDefinitionError

        path, name = loading.split(file)
        first_use.set_preparation(self._deploy)
        try:
            work = self._work(path, name, arguments)
        except FunctionDefinitionError as error:
            raise CliError(error.message, USAGE) from None
        try:
            _print(work())
        except SystemExit as ended:
            return _exit_code(ended)
        except FunctionDefinitionError as error:
            raise CliError(error.message, USAGE) from None
        except CliError:
            raise
        except KeyboardInterrupt:
            if self._watch.failure:
                raise CliError(self._watch.failure, FAILED) from None
            raise
        except Exception as error:  # noqa: BLE001 - the script's own, shown as Python shows it
            traceback.print_exception(type(error), error, _of_script(error))
            return FAILED
        finally:
            self._watch.stop()
            first_use.set_preparation(None)
            self._clean_up()
            connections.close()
        return 0

    def _work(self, path: Path, name: str, arguments: list[str]) -> Callable[[], Any]:
        from forebay.cli.function_inputs import item
        from forebay.functions import loading
        from forebay.functions.errors import FunctionDefinitionError
        from forebay.functions.function import Function

        if not name and path.is_file() and _has_main_part(path):
            return lambda: _run_main_part(path, arguments)
        module = loading.load(path)
        found = getattr(module, name or "main", None)
        if isinstance(found, Function):
            return lambda: found.map([item(argument) for argument in arguments])
        if not callable(found):
            raise FunctionDefinitionError(
                f"{path} has no function {name}"
                if name
                else f'{path} has neither an `if __name__ == "__main__":` part nor main(): there '
                f"is nothing to run. `forebay deploy {path}` deploys its function"
            )
        return lambda: found(*arguments)

    def _deploy(self, function: Any) -> None:
        """Deploys a function; in a thread, as the script may be on an event loop."""
        from forebay.cli.output import say
        from forebay.errors import ForebayError

        raised: list[ForebayError] = []

        def work() -> None:
            try:
                deployed = function.deploy()
            except ForebayError as error:
                raised.append(error)
                return
            if deployed.changed[0] == "created":
                self._created.append(deployed.name)
            if deployed.changed[0] != "unchanged":
                say(f"{deployed.name} {deployed.changed[0]}: generation {deployed.generation}")

        thread = threading.Thread(target=work, name="forebay-deploy")
        thread.start()
        thread.join()
        if raised:
            raise raised[0]
        self._watch.add(function.name)

    def _clean_up(self) -> None:
        if self._keep or not self._created:
            return
        from forebay.functions.connections import portal

        portal().call(_delete(self._created))


async def _delete(names: list[str]) -> None:
    from forebay import addresses
    from forebay.cli.link import Where, link_to
    from forebay.cli.output import say
    from forebay.stubs import deployment_service
    from forebay.v1.deployment_pb2 import DeleteDeploymentRequest
    from services.wire.names import deployment_name

    async with link_to(addresses.AUTOSCALER, Where()) as autoscaler:
        service = deployment_service(autoscaler.channel)
        for name in names:
            request = DeleteDeploymentRequest(name=deployment_name(name))
            await autoscaler.call(service.DeleteDeployment, request)
            say(f"{name} deleted; --keep leaves it")


def _has_main_part(path: Path) -> bool:
    from forebay.functions.sources import parse

    return any(
        isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        for node in parse(path).body
    )


def _run_main_part(path: Path, arguments: list[str]) -> None:
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    runpy.run_path(str(path), run_name="__main__")


def _print(result: Any) -> None:
    """Prints what a run returned: of an iterable one line for each, as JSON."""
    if result is None:
        return
    many = isinstance(result, Iterable) and not isinstance(result, str | bytes | Mapping)
    for value in result if many else [result]:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")
        sys.stdout.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _of_script(error: BaseException) -> TracebackType | None:
    """The part of an exception's traceback that is the script's."""
    part = error.__traceback__
    while part is not None and part.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        part = part.tb_next
    return part


def _exit_code(ended: SystemExit) -> int:
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    sys.stderr.write(f"{ended.code}\n")
    return 1
