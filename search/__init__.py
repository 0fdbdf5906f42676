"""A search over the values that a configuration marks. Only `search/worker/` and `search/__main__.py` import torch.

In a notebook: `search.run("config/search/minimal.json", "search.num_samples=4")`, and `search.load(FOLDER)` afterwards.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.results.result import StudyResult


def run(
    config: str | Path | Mapping[str, Any],
    *overrides: str,
    resume: str | None = None,
    plugins: Sequence[str] = (),
) -> "StudyResult":
    """Run a search to its end.

    Args:
        config: A JSON file, or the loaded content of one.
        overrides: `a.b.c=VALUE`, as on the command line.
        resume: "auto": continue the newest study of the same space, if there is one; or the folder of a study.
        plugins: Files with your own classes.

    Returns:
        Its results.

    Raises:
        ConfigError: The config is faulty.
        SearchError: The study cannot be continued, or no candidate could be trained.
        Interrupted: A signal asked to stop; all is saved.
    """
    # Heavy packages load only if a search runs.
    from config import apply_override, load_config, load_plugins
    from search.results.result import StudyResult
    from search.worker.launch import open_study

    load_plugins(plugins)
    if isinstance(config, Mapping):
        content = copy.deepcopy(dict(config))
        for override in overrides:
            apply_override(content, override)
    else:
        content = load_config(config, overrides)
    study = open_study(content, resume, plugins=plugins)
    study.run()
    return StudyResult(study.record(with_beliefs=True))


def load(folder: str | Path, *, plugins: Sequence[str] = ()) -> "StudyResult":
    """Read a study, also one that runs.

    Args:
        folder: Folder of the study.
        plugins: Files with your own classes.

    Raises:
        SearchError: There is no study in the folder, or a damaged one.
    """
    from config import load_plugins
    from search.cli.study_commands import read_study
    from search.results.result import StudyResult

    load_plugins(plugins)
    return StudyResult(read_study(Path(folder), with_beliefs=True))
