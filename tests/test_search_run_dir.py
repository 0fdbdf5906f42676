"""`search.run_dir`: the runs of grids and of searches in them lie there, those of two studies never in one folder."""

from pathlib import Path

import pytest

from search.executors.serial import Serial
from search.study.folders import CANDIDATES, RETRAINED, create_study_folder, place_runs
from search.study.journal import JOURNAL
from search.study.settings import build_study_parts
from search.worker import nested
from tests.test_search_grid import config_of, run
from utils.errors import SearchError


class Recording(Serial):
    """Remembers the tasks that it runs."""

    def start(self, task):
        self.tasks = [*getattr(self, "tasks", []), task]
        super().start(task)


def test_the_trainings_of_a_grid_lie_there(tmp_path):
    config = config_of(folds=2, seeds=1, run_dir=str(tmp_path / "share"))
    folder, executor = create_study_folder(str(tmp_path / "disk"), "sample", config), Recording()
    record = run(folder, config, executor=executor)
    share = tmp_path / "share" / "sample" / folder.name / CANDIDATES
    assert sorted(path.parent.name for path in share.glob("*/history.pth")) == ["00000", "00001", "00002", "00003"]
    assert not (share.parent / JOURNAL).exists()
    assert (folder / CANDIDATES).is_symlink()
    assert record.candidates[1].pooled
    pooled = [folder for task in executor.tasks if task.kind == "pool" for folder in task.payload["folders"]]
    assert {Path(each).parent for each in pooled} == {share.resolve()}  # another machine may not have the link
    assert run(folder, config).candidates == record.candidates


def test_a_study_continues_in_its_folder_and_no_other_study_gets_it(tmp_path):
    studies = [tmp_path / name / "sample" / "20260101_000000" for name in ("one", "other")]
    for each in studies:
        each.mkdir(parents=True)
    share = str(tmp_path / "share")
    place_runs(studies[0], share)
    place_runs(studies[0], share)
    with pytest.raises(SearchError, match=r"search.run_dir: .*candidates holds the runs of another study of this name"):
        place_runs(studies[1], share)
    assert not any(studies[1].iterdir())


def test_runs_that_lie_where_they_would_anyway_need_no_link(tmp_path):
    folder = tmp_path / "sample" / "20260101_000000"
    folder.mkdir(parents=True)
    for _ in range(2):
        place_runs(folder, str(tmp_path))
    assert [(folder / name).is_dir() and not (folder / name).is_symlink() for name in (CANDIDATES, RETRAINED)] == [
        True,
        True,
    ]


def test_a_study_that_was_killed_between_link_and_folder_continues(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def dies(self, *arguments, **options):
        if self.name == CANDIDATES:
            raise Killed
        return mkdir(self, *arguments, **options)

    folder, mkdir = tmp_path / "sample" / "20260101_000000", Path.mkdir
    folder.mkdir(parents=True)
    monkeypatch.setattr(Path, "mkdir", dies)
    with pytest.raises(Killed):
        place_runs(folder, str(tmp_path / "share"))
    monkeypatch.undo()
    place_runs(folder, str(tmp_path / "share"))
    assert all((folder / name).is_dir() for name in (CANDIDATES, RETRAINED))


def test_a_study_that_began_without_it_stays_in_its_folder(tmp_path):
    (tmp_path / "sample" / CANDIDATES).mkdir(parents=True)
    place_runs(tmp_path / "sample", str(tmp_path / "share"))
    assert not (tmp_path / "sample" / CANDIDATES).is_symlink()


def grid_of_searches(tmp_path):
    return config_of(
        {"a": {"quality": {"$uniform": [0, 1]}}, "b": {"quality": {"$uniform": [0.1, 1]}}},
        seeds=1, num_samples=2, run_dir=str(tmp_path / "share"),
    )  # fmt: skip


def run_dirs(tmp_path, monkeypatch, config, folders):
    """Return `search.run_dir` of the search in each folder."""
    seen = []

    class Opened(Exception):
        pass

    def opened(space, *_arguments, **_options):
        seen.append(space["search"]["run_dir"])
        raise Opened

    monkeypatch.setattr(nested, "open_study", opened)
    for (_, space), folder in zip(build_study_parts(config).space.searches.items(), folders, strict=True):
        with pytest.raises(Opened):
            nested.run_search_task({"config": space, "folder": str(folder), "reported": 0}, lambda _: "continue")
    return seen


def test_each_search_of_a_grid_has_a_place_of_its_own_there(tmp_path, monkeypatch):
    config = grid_of_searches(tmp_path)
    parts = build_study_parts(config)
    assert parts.run_dir is None, "the journals of the searches remain in the folder of the study"
    folders = [tmp_path / "disk/sample/20260101_000000/candidates" / name for name in ("00000", "00001")]
    assert run_dirs(tmp_path, monkeypatch, config, folders) == [
        str(tmp_path / "share/sample/20260101_000000/candidates" / name) for name in ("00000", "00001")
    ]


def test_a_search_that_an_earlier_version_began_continues_with_its_place(tmp_path, monkeypatch):
    config = grid_of_searches(tmp_path)
    folders = [tmp_path / "disk/sample/20260101_000000/candidates" / name for name in ("00000", "00001")]
    create_study_folder(str(folders[0]), "sample", build_study_parts(config).space.searches["a"])
    found = run_dirs(tmp_path, monkeypatch, config, folders)
    assert (found[0], found[1]) == (config["search"]["run_dir"], str(tmp_path / "share" / Path(*folders[1].parts[-4:])))
