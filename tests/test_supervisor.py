"""The main process: contracts with LitServe's private parts, and places that are filled again."""

import inspect
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

import litserve
import pytest
from litserve import LitServer
from litserve.loops.loops import inference_worker
from litserve.utils import WorkerSetupStatus

from litapi.supervisor import LONGEST_PAUSE as LONGEST
from litapi.supervisor import RETRY_AFTER, YOUNG, DispatchServer, Front, Seat, ended
from litapi.transport.dispatcher import LIVE
from litapi.transport.vitals import Vitals


def test_the_version_of_litserve_is_the_one_these_contracts_were_read_from() -> None:
    """Another version fails here first, with this file as the list of what to read again."""
    assert litserve.__version__ == "0.2.19"


# the methods that are overridden, and their parameters behind self
OVERRIDDEN = {
    "_inference_workers_config_for_api": "api_path",
    "_init_manager": "num_api_servers",
    "verify_worker_status": "",
    "launch_inference_worker": "lit_api",
    "launch_single_inference_worker": "lit_api worker_id",
    "_start_worker_monitoring": "manager uvicorn_workers",
    "_perform_graceful_shutdown": "manager uvicorn_workers shutdown_reason",
    "_start_server": ("port num_uvicorn_servers log_level sockets uvicorn_worker_type kwargs"),
}


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_the_methods_that_are_overridden_have_their_signatures(name: str) -> None:
    """An override that is never called again would be a silent loss of everything it does."""
    parameters = ["self", *OVERRIDDEN[name].split()]
    assert list(inspect.signature(getattr(LitServer, name)).parameters) == parameters


def test_run_still_calls_what_is_overridden() -> None:
    """`run` goes through each of the overridden steps."""
    source = inspect.getsource(LitServer.run)
    for call in (
        *("self._init_manager(num_api_servers)", "self.launch_inference_worker(lit_api)"),
        *("self.verify_worker_status()", "self._start_server(", "self._shutdown_event.wait()"),
        "self._start_worker_monitoring(manager, uvicorn_workers)",
        "self._perform_graceful_shutdown(manager, uvicorn_workers, shutdown_reason)",
        "config.bind_socket()",
    ):
        assert call in source


def test_workers_are_started_with_the_arguments_that_the_loop_expects() -> None:
    """The worker function's parameters, and where it says READY and ERROR."""
    assert " ".join(inspect.signature(inference_worker).parameters) == (
        "lit_api device worker_id request_queue transport workers_setup_status callback_runner "
        "restart_workers"
    )
    source = inspect.getsource(inference_worker)
    assert 'os.environ["LITSERVE_WORKER_ID"] = str(worker_id)' in source
    assert 'workers_setup_status[f"{endpoint}_{worker_id}"] = WorkerSetupStatus.READY' in source
    assert "loop._restart_workers = restart_workers" in source
    assert {WorkerSetupStatus.READY, WorkerSetupStatus.ERROR, WorkerSetupStatus.STARTING}


class Places(DispatchServer):
    """Two text workers, of which the first does not load; nothing is started."""

    def __init__(self, other: WorkerSetupStatus, alive: bool = True) -> None:
        api = SimpleNamespace(vitals=Vitals(workers=2))
        self._seats = [Seat(cast("Any", api), "text", number) for number in range(2)]
        for seat, lives in zip(self._seats, (False, alive), strict=True):
            seat.process = SimpleNamespace(is_alive=lambda lives=lives: lives, pid=0)
        self.workers_setup_status = cast(
            "Any", {"text_0": WorkerSetupStatus.ERROR, "text_1": other}
        )
        self.board = {"text_0_failure": "the card is gone"}
        self._stopping = threading.Event()
        self.restarts = 0
        self.failed: list[str] = []
        self.told: list[dict[str, tuple[int, bool]]] = []

    def _fail(self, reason: str) -> None:
        self.failed.append(reason)

    def _tell(self, message: Any) -> None:
        if message[0] == LIVE:
            self.told.append(message[1])

    def launch_single_inference_worker(self, *_: Any) -> Any:
        return self._seats[0].process

    def fail_to_load(self, times: int) -> None:
        for _ in range(times):
            self._seats[0].not_before = 0.0
            self._refill(self._seats[0], WorkerSetupStatus.ERROR)


@pytest.mark.parametrize(("lost", "other", "ends"), [(True, False, False), (False, True, True)])
def test_only_interactive_work_needs_a_worker(lost: bool, other: bool, ends: bool) -> None:
    """A worker for bulk alone is no help to the others, and its loss is not the end of them."""
    places = Places(WorkerSetupStatus.READY)
    places._seats[0].bulk, places._seats[1].bulk = lost, other
    places.fail_to_load(5)
    assert bool(places.failed) == ends


def test_a_tower_is_live_by_its_interactive_workers_and_whole_with_all_of_them() -> None:
    """`/readyz` goes by the first, and what is learnt of the pace by the second. A worker for bulk
    that did not load is not waited for."""
    places = Places(WorkerSetupStatus.READY)
    places._seats[1].bulk = True
    places._tell_live()
    places.workers_setup_status["text_0"] = WorkerSetupStatus.READY
    places._tell_live()
    places.workers_setup_status["text_1"] = WorkerSetupStatus.STARTING
    places._tell_live()
    places._seats[1].failures = 1
    places._tell_live()
    told = [(0, False), (1, True), (1, False), (1, True)]
    assert places.told == [{"text": one} for one in told]


@pytest.mark.parametrize(
    ("other", "alive", "failed"),
    [
        (WorkerSetupStatus.READY, True, []),
        (WorkerSetupStatus.ERROR, True, ["the card is gone"]),
        (WorkerSetupStatus.READY, False, ["the card is gone"]),
    ],
)
def test_a_tower_that_no_worker_of_loads_ends_the_service_with_the_reason(
    other: WorkerSetupStatus, alive: bool, failed: list[str]
) -> None:
    """After the third time: a loop would hide it. A lost card beside a sound one is not the end:
    its place is tried again, now and then."""
    places = Places(other, alive)
    places.fail_to_load(2)
    assert places.failed == []
    places.fail_to_load(1)
    assert places.failed == failed
    assert places.restarts == (2 if failed else 3)
    assert places._seats[0].not_before > time.monotonic() + RETRY_AFTER / 2 or failed


@pytest.mark.parametrize("ending", [False, True])
def test_a_manager_that_is_gone_is_a_failure_unless_the_server_is_ending(ending: bool) -> None:
    """Supervision may be half through its round when the server has drained: no second signal."""
    said: list[str] = []

    def gone() -> None:
        raise EOFError

    stopping = threading.Event()
    server = SimpleNamespace(_start_bulk_workers=gone, _stopping=stopping, _fail=said.append)
    if ending:
        stopping.set()
    DispatchServer._look(cast("DispatchServer", server))
    assert said == ([] if ending else ["the queues of the server were lost"])


def test_an_http_process_that_dies_young_is_started_ever_later() -> None:
    """At once the first time; one that dies four times a second would fill log and CPU."""
    front = Front(0)
    for pause in [0.0, *(min(LONGEST, 2.0**n) for n in range(8))]:
        assert front.died() == pause
        front.born = time.monotonic()
    front.born = time.monotonic() - 2 * YOUNG
    assert front.died() == 0.0


@pytest.mark.parametrize(
    ("code", "said"), [(-7, "SIGBUS"), (-9, "SIGKILL"), (3, "exit code 3"), (-99, "signal 99")]
)
def test_the_end_of_a_process_is_named(code: int, said: str) -> None:
    """A log line says of what it died."""
    assert ended(code) == said
