"""Processes that share a study: each may be killed or frozen at any moment."""

import random
from collections import Counter

import pytest

from search.executors.base import Task, WorkerLost, WorkerStarted
from search.joining.leading import StoppedByCommand, lead
from search.joining.lease import Lease, LeaseLost, is_shared
from search.joining.mailbox import list_members
from search.joining.member import LeftStudy, Member
from search.joining.published import PUBLISHED
from search.study.folders import create_study_folder
from search.study.journal import JOURNAL, read_events
from search.study.study import Study, read
from tests.support.joined_world import PATIENCE, Workers, World, slow_down
from tests.support.search_worker import WORKER
from tests.support.without_times import without_times
from tests.test_search_killed import parts_of
from tests.test_search_study import CONFIG
from utils.errors import Interrupted, SearchError


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """The study of one process, left in peace."""
    folder = create_study_folder(str(tmp_path_factory.mktemp("quiet")), "sample", CONFIG)
    return Study(folder, parts_of("halving"), worker=WORKER).run()


class Shared:
    """A study in a folder, and processes that join it."""

    def __init__(self, folder, world, quiet):
        self.folder, self.world, self.quiet, self.tokens, self.names = folder, world, quiet, {}, Counter()
        self.leaders, self.members, self.pause = {}, {}, lambda: None

    def study(self, executor, journal):
        """Run the study, in the process that leads."""
        Study(self.folder, parts_of("halving"), worker="").run(executor=executor, journal=journal)

    def lead(self, group, generation):
        timing = self.world.timing(group)

        def run():
            lease = Lease.claim(self.folder, generation, timing, group)
            if lease is None:
                return
            self.leaders[generation] = group

            lead(self.folder, lease, timing, self.study)

        return self.world.start(group, run)

    def join(self, group, workers=1):
        """A process with workers. The process that it starts to lead, if nobody does, ends with it, but not before."""
        timing, leaders = self.world.timing(group), []

        def supervise(view):
            if view.is_free and (not leaders or leaders[-1].is_over):
                leaders.append(self.lead(f"{group} leads {view.generation + 1}", view.generation + 1))

        def name():
            self.names[group] += 1
            return f"{group}-{self.names[group]}"

        member = Member(
            self.folder, "", lambda: Workers(self.world, group, workers, self.tokens), name, supervise, timing
        )
        self.members[group] = self.world.start(group, member.run)
        return member

    def leader(self):
        """The group that leads."""
        return self.leaders[max(self.leaders)]

    def events(self, name, path=JOURNAL):
        return [event for event in read_events(self.folder / path) if event.name == name]

    def run(self, *events):
        living = [thread for group, thread in self.members.items()]
        self.world.run(lambda: all(thread.is_over or self.world.is_killed(thread.group) for thread in living), *events)

    def check(self):
        """It is as one that was left in peace: every epoch is in the journal once, with the same decisions."""
        for thread in self.world.all_threads:
            assert thread.error is None or isinstance(thread.error, LeaseLost), thread.error
        record = read(self.folder, parts_of("halving"))
        assert record.is_done
        assert list(map(without_times, record.candidates)) == list(map(without_times, self.quiet.candidates))
        assert record.rungs == self.quiet.rungs
        assert list(map(without_times, record.retrained)) == list(map(without_times, self.quiet.retrained))
        reports = [(event.candidate, event.data["epoch"]) for event in self.events("search.report")]
        assert len(reports) == len(set(reports))
        assert not is_shared(self.folder)


@pytest.fixture
def shared(tmp_path, monkeypatch, quiet):
    folder = create_study_folder(str(tmp_path), "sample", CONFIG)
    made = Shared(folder, World(), quiet)
    slow_down(monkeypatch, made)
    yield made
    made.world.close()


def test_one_process_alone_does_all(shared):
    shared.join("a")
    shared.run()
    shared.check()
    assert len(shared.leaders) == 1
    assert not shared.events("search.lost")
    published = read_events(shared.folder / "joined" / PUBLISHED)
    assert list(published) == list(read_events(shared.folder / JOURNAL))


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_the_candidates_and_the_time(shared, count):
    for name in "abc"[:count]:
        shared.join(name)
    shared.run()
    shared.check()
    assert len(shared.leaders) == 1
    assert shared.world.now < 7.0 * (9 + 6 + 6 + 9)  # seconds of all epochs one after the other
    assert len(list((shared.folder / "workers").iterdir())) == count


def test_the_death_of_the_leader_loses_nothing(shared):
    shared.join("a")
    shared.join("b")
    shared.join("c")
    died = []

    def kill_leader():
        died.append(shared.leader())
        shared.world.killed.add(died[0])  # only the process that leads; that with the workers goes on

    shared.run((25.0, kill_leader))
    shared.check()
    assert len(shared.leaders) == 2
    assert len(shared.events("study.begin")) == 2
    assert not shared.events("search.lost")  # what the members had was given back and continued


def test_the_death_of_a_member_has_its_task_done_elsewhere(shared):
    for name in "abc":
        shared.join(name)

    def kill_member():
        shared.world.killed.add(next(name for name in "abc" if not shared.leader().startswith(name)))

    shared.run((25.0, kill_member))
    shared.check()
    assert len(shared.leaders) == 1
    assert len(shared.events("search.lost")) == 1


def test_the_death_of_the_machine_that_leads_loses_nothing(shared):
    for name in "ab":
        shared.join(name)
    shared.run((25.0, lambda: shared.world.killed.add(shared.leader().split()[0])))
    shared.check()
    assert len(shared.leaders) == 2


def test_a_study_whose_processes_are_all_dead_is_continued_by_new_ones(shared):
    for name in "ab":
        shared.join(name)
    shared.run((25.0, lambda: shared.world.killed.update("ab")))
    assert shared.events("search.report")
    assert is_shared(shared.folder)
    shared.members.clear()
    shared.join("c")
    shared.run()
    shared.check()


@pytest.mark.parametrize("seed", range(6))
def test_any_process_may_die_at_any_moment(shared, seed):
    world, chance, number = shared.world, random.Random(seed), 3
    world.chance = random.Random(seed)
    for name in ("0", "1", "2"):
        shared.join(name)

    def strike():
        nonlocal number
        living = [group for group in shared.members if group not in world.killed]
        who = chance.choice(["member", "leader", "all", "most"])
        if who == "leader":
            world.killed.add(shared.leader())
        else:
            count = {"member": 1, "all": len(living), "most": max(1, len(living) - 1)}[who]
            world.killed.update(chance.sample(living, count))
            for _ in range(count):
                shared.join(str(number), workers=chance.choice([1, 2]))
                number += 1

    strikes = [(sum(chance.uniform(1, 60) for _ in range(index + 1)), strike) for index in range(6)]
    done = [False]
    world.run(lambda: done[0], *strikes, (max(when for when, _ in strikes) + 0.1, lambda: done.__setitem__(0, True)))
    shared.run()
    shared.check()


def test_a_frozen_leader_that_wakes_up_writes_nothing(shared):
    for name in "ab":
        shared.join(name)
    frozen = []

    def freeze():
        frozen.append(shared.leader())
        shared.world.frozen[frozen[0]] = shared.world.now + 3 * PATIENCE

    shared.run((25.0, freeze))
    shared.check()
    assert len(shared.leaders) == 2
    woken = [thread for thread in shared.world.all_threads if thread.group == frozen[0] and thread.error is not None]
    assert [type(thread.error) for thread in woken] == [LeaseLost]
    assert "this process leads the study no more (generation 1)" in str(woken[0].error)


def test_a_leader_that_is_frozen_while_it_writes_is_waited_for(shared):
    for name in "ab":
        shared.join(name)
    frozen = []

    def pause():
        if shared.world.now > 25 and not frozen:
            frozen.append(shared.leader())
            shared.world.frozen[frozen[0]] = shared.world.now + 3 * PATIENCE
            shared.world.sleep(0)

    shared.pause = pause
    shared.run()
    shared.check()
    assert frozen == [shared.leaders[1]]
    assert len(shared.leaders) == 2


def test_a_frozen_member_that_wakes_up_begins_anew(shared):
    for name in "ab":
        shared.join(name)

    def freeze():
        member = next(name for name in "ab" if not shared.leader().startswith(name))
        shared.world.frozen[member] = shared.world.now + 1.5 * PATIENCE

    shared.run((25.0, freeze))
    shared.check()
    assert len(shared.events("search.lost")) == 1
    assert sorted(shared.names.values()) == [1, 2]  # under another name


@pytest.mark.parametrize("seed", range(3))
def test_any_process_may_freeze_at_any_moment(shared, seed):
    world, chance = shared.world, random.Random(seed)
    world.chance = random.Random(seed)
    for name in "abc":
        shared.join(name)

    def freeze():
        who = chance.choice([*"abc", shared.leader()])
        for group in {thread.group for thread in world.all_threads}:
            if group == who or group.split()[0] == who:
                world.frozen[group] = world.now + chance.uniform(0.2, 2.5) * PATIENCE

    shared.run(*((chance.uniform(5, 200), freeze) for _ in range(8)))
    shared.check()


def test_a_signal_saves_what_a_member_has_and_the_others_go_on(shared):
    members = {name: shared.join(name) for name in "abc"}
    left = []

    def signal_member():
        left.append(next(name for name in "abc" if not shared.leader().startswith(name)))
        members[left[0]]._signals.append(15)

    shared.run((25.0, signal_member))
    error, shared.members[left[0]].error = shared.members[left[0]].error, None
    assert isinstance(error, LeftStudy)
    assert (error.exit_code, str(error)[:48]) == (143, "Interrupted by SIGTERM; what this process had is")
    shared.check()
    assert not any(event.data["had_begun"] for event in shared.events("search.lost"))
    assert not any(name.startswith(left[0]) for name in list_members(shared.folder))


def test_a_leader_that_leaves_is_followed_at_once(shared):
    def leave(executor, journal):
        if len(shared.leaders) == 1:
            journal.close()
            raise Interrupted(15)
        Shared.study(shared, executor, journal)

    shared.study = leave
    for name in "ab":
        shared.join(name)
    shared.world.run(lambda: len(shared.leaders) == 2)
    assert shared.world.now < PATIENCE / 2
    shared.run()
    for thread in shared.world.all_threads:
        thread.error = None if isinstance(thread.error, Interrupted) else thread.error
    shared.check()


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (SearchError("no candidate could be trained"), SearchError("no candidate could be trained")),
        (ZeroDivisionError("division"), SearchError("ZeroDivisionError: division")),
        (StoppedByCommand(15), None),
    ],
)
def test_a_study_that_ends_ends_for_all(shared, error, seen):
    def end(_executor, journal):
        journal.close()
        raise error

    shared.study = end
    for name in "abc":
        shared.join(name)
    shared.run()
    errors = [shared.members[name].error for name in "abc"]
    assert [(type(each), str(each)) for each in errors] == [(type(seen), str(seen))] * 3
    assert list(shared.leaders) == [1]


def drive(shared, use):
    """Let a member have one task, and pass on what `use` does with the executor of the leader."""
    received = []

    def study(executor, journal):
        executor.open("", shared.folder)
        config = {"quality": 0.5, "trainer": {"epochs": 100}}
        folder = str(shared.folder / "run")
        executor.start(Task("7", "train", {"config": config, "folder": folder, "reported": 0}))
        use(executor, lambda message: received.append(message) or "continue")
        journal.close()

    shared.study = study
    shared.join("a")
    shared.run()
    return received


def test_a_worker_that_hangs_is_ended_by_its_member(shared):
    def use(executor, handle):
        executor.wait(handle, 60)
        executor.abandon("7", 5.0)
        shared.world.sleep(5)
        while not executor.idle:
            executor.wait(handle, 5)

    received = drive(shared, use)
    assert received[0] == WorkerStarted("7")
    assert received[-1] == WorkerLost("7", "ended", "hung")


def test_a_member_that_cannot_end_its_worker_is_taken_for_dead(shared):
    def use(executor, handle):
        executor.wait(handle, 60)
        shared.world.frozen["a"] = shared.world.now + 2 * PATIENCE
        executor.abandon("7")
        executor.wait(lambda message: handle(message) if isinstance(message, WorkerLost) else "", 3 * PATIENCE)

    lost = drive(shared, use)[-1]
    assert (lost.cause, lost.had_started) == ("hung", True)
    assert "gave no sign of life for 30 s" in lost.reason or "cannot end its worker" in lost.reason
