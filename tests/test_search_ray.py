"""Workers of a Ray cluster: two machines are played by two of its nodes on this one."""

import os
import signal

import pytest

from search.executors.processes import Processes
from search.executors.ray_cluster import RayCluster
from search.study.journal import JOURNAL, read_events
from tests.test_search_study import QUALITIES, Space, halving, parts_of, studied
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


@pytest.mark.usefixtures("nodes")
def test_a_lost_node_costs_nothing(tmp_path, cluster):
    _, expected = studied(tmp_path / "processes", parts_of(halving()), Processes(2))
    executor = RayCluster(2)
    killer = NodeKiller(cluster, executor, reports=11)
    study, record = studied(tmp_path / "ray", parts_of(halving()), executor, watchers=[killer])
    assert len(cluster.worker_nodes) == 1
    assert record.candidates == expected.candidates
    assert record.rungs == expected.rungs
    lost = [event for event in read_events(study.folder / JOURNAL) if event.kind == "lost"]
    assert len(lost) == 1


@pytest.mark.usefixtures("nodes")
def test_whatever_a_candidate_does_costs_it_alone(tmp_path):
    fates = ["good", "dies", "good", "diverges", "out_of_memory", "good"]
    _, record = studied(tmp_path, parts_of(halving(6), Space(QUALITIES, fates)), RayCluster(2))
    assert [each.index for each in record.candidates if each.status == "failed"] == [1, 3]
    assert [each.index for each in record.candidates if each.status == "out_of_memory"] == [4]


@pytest.mark.usefixtures("nodes")
def test_a_machine_without_the_folders_is_named(tmp_path):
    executor = RayCluster(1)
    executor.open("tests.support.search_worker:worker", tmp_path / "nowhere" / "logs")
    executor.wait(print, 30)  # it is up
    with pytest.raises(SearchError, match=r"does not see .*nowhere"):
        executor.wait(print, 30)
    executor.close()


def test_no_cluster_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(*_args, **_keywords):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(SearchError, match=r'no cluster at address "auto" \(Could not find'):
        RayCluster(address="auto").open("tests.support.search_worker:worker", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"), [({"cpus": 0}, "cpus 0 must be above 0"), ({"workers": 0}, "workers 0")]
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(SearchError, match=message):
        RayCluster(**arguments)
