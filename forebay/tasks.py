"""Tasks: work that is stored durably and that nobody needs to wait for.

    with forebay.Client() as client:
        task = client.submit("resnet", {"INPUT": batch}, priority="low")
        task.result(timeout_s=600)["LABEL"]

        for result in client.map("resnet", inputs, max_in_flight=500):
            ...

Once `submit` has returned, the task ends exactly once, whatever crashes. `docs/tasks.md` teaches
them.
"""

from forebay.task_client.handle import AsyncTaskHandle
from forebay.task_client.mapped import AsyncTaskMap, TaskMap
from forebay.task_client.options import TaskOptions
from forebay.task_client.plan import MapOptions
from forebay.task_client.status import Attempt, TaskStatus
from forebay.task_client.sync_handle import TaskHandle

__all__ = [
    "AsyncTaskHandle",
    "AsyncTaskMap",
    "Attempt",
    "MapOptions",
    "TaskHandle",
    "TaskMap",
    "TaskOptions",
    "TaskStatus",
]
