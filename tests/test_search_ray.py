"""Workers of a Ray cluster: two machines are played by two of its nodes on this one."""

import os
import signal
from collections import Counter
from dataclasses import replace

import pytest

from search.executors.base import Task, TaskFinished
from search.executors.ownership import owner_of
from search.executors.processes import Processes
from search.executors.ray_cluster import Host, RayCluster
from search.study.folders import create_study_folder
from search.study.journal import JOURNAL, read_events
from search.study.study import Study
from tests.support.search_worker import WORKER
from tests.support.without_times import without_times
from tests.test_search_study import CONFIG, QUALITIES, Space, halving, parts_of, studied
from utils.errors import SearchError

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.xdist_group("ray")  # two clusters at a time are one too many for a small machine


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def nodes(cluster):
    added = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    yield added
    for node in added:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


class NodeKiller:
    """Kills a machine in the midst of a candidate: that which sent a certain report."""

    def __init__(self, cluster, executor, reports):
        self.cluster, self.executor, self.reports = cluster, executor, reports

    def __call__(self, event, _state):
        self.reports -= event.kind == "report"
        if event.kind == "report" and self.reports == 0:
            place = next(place for place in self.executor._places if place.task is not None)
            name, pid = ray.get(
                place.host.__ray_call__.remote(lambda _host: (ray.get_runtime_context().get_node_id(), os.getpid()))
            )
            node = next(node for node in self.cluster.worker_nodes if node.node_id == name)
            self.cluster.remove_node(node, allow_graceful=False)
            os.kill(pid, signal.SIGKILL)  # as Ray does when it notices, and too late for a training so short


@pytest.mark.slow
@pytest.mark.usefixtures("nodes")
def test_a_lost_node_costs_nothing(tmp_path, cluster):
    _, expected = studied(tmp_path / "processes", parts_of(halving()), Processes(2))
    executor = RayCluster(2)
    killer = NodeKiller(cluster, executor, reports=11)
    study, record = studied(tmp_path / "ray", parts_of(halving()), executor, watchers=[killer])
    assert len(cluster.worker_nodes) == 1
    assert list(map(without_times, record.candidates)) == list(map(without_times, expected.candidates))
    assert record.rungs == expected.rungs
    lost = [event for event in read_events(study.folder / JOURNAL) if event.kind == "lost"]
    assert len(lost) == 1
    tasks = [event.candidate for event in read_events(study.folder / JOURNAL) if event.kind in ("job", "lost")]
    # Each task of a candidate has a higher number, so that the worker of the lost node writes nothing more.
    owners = {each.index: owner_of(study.folder / str(each.folder)) for each in record.candidates}
    assert owners == dict(Counter(tasks))


@pytest.mark.usefixtures("nodes")
def test_whatever_a_candidate_does_costs_it_alone(tmp_path):
    fates = ["good", "dies", "good", "diverges", "out_of_memory", "good"]
    _, record = studied(tmp_path, parts_of(halving(6), Space(QUALITIES, fates)), RayCluster(2))
    assert [each.index for each in record.candidates if each.status == "failed"] == [1, 3]
    assert [each.index for each in record.candidates if each.status == "out_of_memory"] == [4]


def answers_of(executor, count=1):
    received = []
    while len([each for each in received if isinstance(each, TaskFinished)]) < count:
        executor.wait(lambda message: received.append(message) or "", 1.0)
    return [each.outcome for each in received if isinstance(each, TaskFinished)]


@pytest.mark.slow
def test_a_candidate_of_two_gpus_gets_both(tmp_path, cluster):
    node = cluster.add_node(num_cpus=1, num_gpus=2)
    executor = RayCluster(1, gpus=2)
    executor.open("tests.test_search_executors:worker", tmp_path)
    executor.start(Task("1", "devices", {"text": ""}))
    (answer,) = answers_of(executor)
    executor.close()
    cluster.remove_node(node)
    assert answer == {"devices": ["0", "1"], "gpus": 2, "shown": "0,1"}


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"gpus": 7}, r"needs CPU 1, GPU 7, and for 0.01 minutes no machine of the cluster has had as much"),
        ({"resources": {"big": 2}}, r"needs CPU 1, big 2, .* \(the machines: CPU 0, GPU 0, big 0.*\). Ask for less"),
    ],
)
def test_a_request_that_no_machine_can_meet_ends_the_search(tmp_path, needs, message):
    with pytest.raises(SearchError, match=message):
        studied(tmp_path, parts_of(halving()), RayCluster(1, wait_minutes=0.01, **needs))


@pytest.mark.slow
def test_the_death_of_the_only_machine_ends_the_search_with_its_state_saved(tmp_path, cluster):
    _, expected = studied(tmp_path / "whole", parts_of(halving()))
    cluster.add_node(num_cpus=1)
    executor = RayCluster(1, wait_minutes=0.05)
    study = Study(
        create_study_folder(str(tmp_path / "killed"), "sample", CONFIG),
        replace(parts_of(halving()), executor=executor),
        worker=WORKER,
        watchers=[NodeKiller(cluster, executor, reports=5)],
    )
    with pytest.raises(SearchError, match=r"no machine of the cluster has had as much .*everything is saved"):
        study.run()
    resumed = Study(study.folder, parts_of(halving()), worker=WORKER).run()
    assert [without_times(each).reports for each in resumed.candidates] == [
        without_times(each).reports for each in expected.candidates
    ]


def test_a_machine_without_code_data_or_runs_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a host goes to its root
    task, runs = Task("1", "train", {}), tmp_path / "runs"
    runs.mkdir()
    (runs / ".seen-by-search").write_text("of the search")

    def refused(root, paths, mark):
        host = Host(str(root), WORKER, str(tmp_path / "logs"), {})
        host.start_checked(task, paths, str(runs), mark)
        message = host.next_message()
        assert isinstance(message, SearchError)
        return str(message).partition(" of the cluster does not see ")[2].partition(". Every machine")[0]

    assert refused(tmp_path / "nowhere", [], "of the search") == f"{tmp_path}/nowhere"
    assert refused(tmp_path, [f"{runs}", "data"], "of the search") == "data"
    assert refused(tmp_path, [], "of another search, whose folder has the same path") == f"{runs}"


@pytest.mark.usefixtures("nodes")
def test_plugins_and_data_are_looked_for_before_the_first_candidate(tmp_path):
    (tmp_path / "data").mkdir()
    executor = RayCluster(1)
    executor.open(WORKER, tmp_path)
    config = {"train_loader": {"args": {"folder": str(tmp_path / "data"), "split": "train"}}}
    payload = {"folder": str(tmp_path / "runs/1"), "config": config, "plugins": [str(tmp_path / "plugin.py")]}
    executor.start(Task("1", "train", payload))
    with pytest.raises(SearchError, match=r"does not see .*plugin.py"):
        answers_of(executor)
    executor.close()


def test_no_cluster_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(*_args, **_keywords):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(SearchError, match=r'no cluster at address "auto" \(Could not find'):
        RayCluster(address="auto").open("tests.support.search_worker:worker", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus": 0}, "cpus 0 must be above 0"),
        ({"workers": 0}, "workers 0"),
        ({"gpus": 1.5}, "gpus 1.5 must be a whole number, or at most 1"),
        ({"wait_minutes": 0}, "wait_minutes 0 must be above 0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(SearchError, match=message):
        RayCluster(**arguments)


def test_a_dead_cluster_of_this_machine_is_not_waited_for(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(address, **_keywords):
        asked.append(address)
        raise ConnectionError("none")

    monkeypatch.setattr(ray, "init", refuse)
    for environment, address in ((None, None), ("10.0.0.1:6379", None), (None, "auto")):
        if environment is None:
            monkeypatch.delenv("RAY_ADDRESS", raising=False)
        else:
            monkeypatch.setenv("RAY_ADDRESS", environment)
        with pytest.raises(SearchError, match="no cluster"):
            RayCluster(address=address).open(WORKER, tmp_path)
    assert asked == ["local", None, "auto"]  # None: Ray reads RAY_ADDRESS
