"""What `@forebay.function` takes, what it makes of it, and what it refuses."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

import forebay
from forebay.functions import loading
from forebay.functions.decorator import Options
from forebay.functions.errors import FunctionDefinitionError
from forebay.functions.function import Function
from forebay.functions.settings import check_calls, name_for
from forebay.functions.sources import Source
from forebay.scaling_file import ScalingSpec

_SOURCE = Source(Path("batch.py"), Path(), "batch", "f", 7)
_ROOT = Path(__file__).resolve().parents[3]


def echo(item: object, *, loud: bool = False) -> object:
    """Returns what it gets."""
    return item, loud


class Counter:
    """Counts from its start."""

    def __init__(self) -> None:
        self.count = -1

    def on_start(self) -> None:
        self.count = 0

    def __call__(self, step: int) -> int:
        self.count += step
        return self.count


def made(target: Any = echo, **options: Any) -> Function:
    decorated: Function = forebay.function(**options)(target)
    return decorated


def test_every_parameter_is_in_the_document() -> None:
    text = (_ROOT / "docs" / "functions.md").read_text()
    assert [name for name in Options.__annotations__ if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("FileType", "file-type"),
        ("file_type", "file-type"),
        ("Resize2Images", "resize2-images"),
        ("_hidden", "hidden"),
        ("OCR", "ocr"),
    ],
)
def test_names_are_made_of_names(name: str, wanted: str) -> None:
    assert name_for(type(name, (), {})) == wanted


def test_the_default_is_one_replica_with_work_and_none_without() -> None:
    spec = made().settings.spec(_SOURCE)
    assert spec.scaling
    assert spec.scaling.chosen == "queue_depth"
    assert (spec.scaling.min_replicas, spec.scaling.most) == (0, 1)
    assert (spec.resources.workers, spec.max_ongoing_requests) == (1, 2)


@pytest.mark.parametrize(
    ("options", "slots"),
    [
        ({"workers": 3}, 4),
        ({"batch": True}, 64),
        ({"batch": True, "max_batch_size": 8, "workers": 2}, 24),
        ({"batch": True, "max_batch_size": 1024, "workers": 64}, 1024),
        ({"batch": True, "max_ongoing_requests": 5}, 5),
    ],
)
def test_slots_follow_workers_and_lists(options: dict[str, Any], slots: int) -> None:
    assert made(**options).settings.spec(_SOURCE).max_ongoing_requests == slots


@pytest.mark.parametrize(
    "scaling",
    [
        forebay.QueueDepth(),
        forebay.OngoingRequests(),
        forebay.RequestLatency(desired_latency_s=2.0),
        forebay.QueueSize(),
    ],
)
def test_scaling_objects_have_the_keys_of_a_file(scaling: Any) -> None:
    keys = {field.name for field in dataclasses.fields(scaling)}
    assert keys <= ScalingSpec.model_fields.keys()
    shared = ScalingSpec.model_fields.keys() - {"policy", "policies", "function"}
    own = {"max_tasks_per_replica", "target_ongoing_requests", "look_back_period_s",
           "desired_latency_s", "assumed_service_time_s", "queue_size"}  # fmt: skip
    assert shared - own <= keys
    spec = made(scaling=scaling).settings.spec(_SOURCE)
    assert spec.scaling
    assert spec.scaling.chosen == scaling.policy


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gpus": 1.5}, r"batch\.py:7: gpus = 1\.5; legal is 0, a fraction"),
        ({"name": "Not A Name"}, r"batch\.py:7: name = 'Not A Name'; legal is 1 to 63"),
        ({"scaling": forebay.QueueDepth(min_replicas=5, max_replicas=2)},
         r"min_replicas = 5 is above max_replicas = 2"),
        ({"scaling": {"policy": "queue_dept"}}, "did you mean queue_depth"),
        ({"workers": 0}, "workers = 0; legal is a whole number from 1 to 64"),
        ({"batch": True, "max_batch_size": 0}, "max_batch_size = 0; legal is"),
        ({"batch_delay_s": -1}, "batch_delay_s = -1; legal is"),
        ({"requirements": "numpy"}, "legal is a list of lines"),
        ({"environment": {"PATH": "x"}}, "is set by the node agent"),
        ({"environment": ["DEBUG"]}, "environment"),
        ({"volumes": ["No Volume"]}, "volumes"),
        ({"volumes": "data"}, r"volumes = 'data'; legal is a list of names"),
        ({"volumes": {"data": {"readonly": True}}}, "did you mean read_only"),
        ({"include": "labels.txt"}, r"include = 'labels.txt'; legal is a list"),
        ({"batch": "yes"}, "batch = 'yes'; legal is True or False"),
        ({"max_batch_size": "8"}, "max_batch_size = '8'; legal is a whole number"),
        ({"batch_delay_s": "0.1"}, "batch_delay_s = '0.1'; legal is seconds"),
        ({"workers": True}, "workers = True; legal is a whole number"),
        ({"requirements": [1]}, "legal is a list of lines"),
    ],
)  # fmt: skip
def test_wrong_values_are_told_with_file_and_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(FunctionDefinitionError, match=said):
        made(**options).settings.spec(_SOURCE)


@pytest.mark.parametrize(
    "volumes",
    [{"data": {"read_only": True}, "results": {}}, [{"data": {"read_only": True}}, "results"]],
)
def test_volumes_are_a_list_or_a_mapping(volumes: Any) -> None:
    mounts = made(volumes=volumes).settings.spec(_SOURCE).to_proto("sha256:" + 64 * "0").volumes
    assert [(mount.name, mount.read_only) for mount in mounts] == [
        ("data", True),
        ("results", False),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_retries": 99}, r"batch\.py:7: max_retries is 99; legal is 0 to 20"),
        ({"max_retries": "x"}, r"batch\.py:7: max_retries = 'x': legal is a whole"),
        ({"ttl_s": -1}, r"batch\.py:7: ttl_s = -1"),
        ({"attempt_timeout_s": 0}, r"batch\.py:7: attempt_timeout is 0 s; legal is 0\.001 s to"),
        ({"min_backoff_s": 100, "max_backoff_s": 1}, "max_backoff is 1 s, less than min_backoff"),
    ],
)
def test_options_of_tasks_are_checked_when_it_is_deployed(
    options: dict[str, Any], said: str
) -> None:
    function = made(**options)
    with pytest.raises(FunctionDefinitionError, match=said):
        check_calls(function.name, function.call_options, _SOURCE)


def test_on_start_is_something_to_call() -> None:
    with pytest.raises(FunctionDefinitionError, match="on_start = 3 of echo; legal is a function"):
        made(on_start=3)


def test_an_unknown_parameter_is_refused_with_those_there_are() -> None:
    with pytest.raises(TypeError, match=r"no parameter 'gpu'; legal are name, on_start, gpus"):
        forebay.function(gpu=1)  # type: ignore[call-overload]


async def _asynchronous(_: object) -> None: ...


def _generator(_: object) -> Any:
    yield 1


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (_asynchronous, "asynchronous or a generator"),
        (_generator, "asynchronous or a generator"),
        (type("Uncallable", (), {}), "has no method __call__"),
        (len, "neither a function nor a class"),
        (3, "neither a function nor a class"),
    ],
)
def test_what_cannot_be_called_as_a_function_is_refused(target: Any, said: str) -> None:
    with pytest.raises(FunctionDefinitionError, match=said):
        forebay.function(target)


def test_on_start_of_a_class_is_a_method() -> None:
    with pytest.raises(FunctionDefinitionError, match="make it a method"):
        made(Counter, on_start=lambda: None)


def test_calling_it_runs_the_code_here() -> None:
    assert made()(3, loud=True) == (3, True)
    counter = made(Counter)
    assert [counter(2), counter.local(3)] == [2, 5]
    assert made(lambda: 0).__doc__ is None
    assert made().__doc__ == "Returns what it gets."


def test_options_are_of_the_copy() -> None:
    function = made(max_retries=1)
    other = function.options(priority="high", timeout_s=5)
    assert other.call_options.of_tasks() == {"max_retries": 1, "priority": "high"}
    assert function.call_options.of_tasks() == {"max_retries": 1}
    with pytest.raises(TypeError, match="prio"):
        function.options(prio="high")


def test_the_functions_of_a_file_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "found_xyz.py"
    file.write_text("import forebay\n@forebay.function\ndef a(x): ...\nb = a\ndef c(x): ...\n")
    assert loading.function_of(str(file)).name == "a"
    assert loading.function_of(f"{file}:a").name == "a"
    with pytest.raises(FunctionDefinitionError, match=r"has no function c; decorated with .* a"):
        loading.function_of(f"{file}:c")
    file.write_text("x = 1\n")
    with pytest.raises(FunctionDefinitionError, match="has 0 functions"):
        loading.function_of(str(file))


def test_what_forebay_refuses_is_told_with_the_line_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    file = tmp_path / "refused_xyz.py"
    file.write_text("import forebay\n\n@forebay.schedule('0 0 30 2 *')\ndef f(x): ...\n")
    with pytest.raises(FunctionDefinitionError, match=r"never comes.*refused_xyz\.py:3\)$"):
        loading.load(file)
