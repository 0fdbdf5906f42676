"""The comparison of labellings in a grid study: which conditions are equal, and what is said of them."""

import pytest

from search.report.sections import section_figures
from search.results.labelling import labelling_sections
from search.results.record import CandidateRecord, Objective

MIOU, LOSS = Objective("val_miou", 1), Objective("val_loss", -1)
TABLE = {  # condition: images, density, and the result of three seeds
    "2n, halves": (184, 0.5, (0.40, 0.42, 0.41)),
    "n, whole": (92, 1, (0.37, 0.38, 0.39)),
    "2n, whole": (184, 1, (0.45, 0.46, 0.47)),
    "n, halves": (92, 0.5, (0.30, 0.36, 0.33)),
}


def config_of(images, density, **more):
    sparse = {"density": density, "pattern": "halves", "by": "name"}
    return {
        "train_loader": {"type": "Some", "args": {"subset": images, "sparse": sparse, "resize": 8}},
        "trainer": {"epochs": 100 // images, **more},
    }


def runs_of(table, seeds=3, *, name="miou", tested=True):
    return [
        CandidateRecord(
            index=0,
            seed=seed,
            drawn=[("condition", condition), ("seed", seed)],
            status="completed",
            facts={"labelled_images": images, "labelled_megapixels": images * density * 0.04},
            reports=[{"epoch": 1, f"val_{name}": values[seed] / 2}],
            best_epoch=1,
            test={f"test_{name}": values[seed]} if tested else {},
        )
        for condition, (images, density, values) in table.items()
        for seed in range(seeds)
    ]


def section_of(table=TABLE, goal=MIOU, *, seeds=3, tested=True, configs=None):
    configs = configs or {name: config_of(images, density) for name, (images, density, _) in table.items()}
    name = goal.name.removeprefix("val_")
    (section,) = labelling_sections(runs_of(table, seeds, name=name, tested=tested), configs, goal)
    return section


def test_the_sentence_answers_many_half_labelled_images_or_few_whole_ones():
    text = section_of()["text"]
    assert text.startswith(
        'At 3.68 and 3.68 labelled megapixels, 184 images with half of their labels, in halves ("2n, halves") are '
        'better than 92 images with all labels ("n, whole"): test_miou 0.4100 and 0.3800, difference +0.0300 '
        "(95% from +0.0052 to +0.0548, 3 seeds)."
    )
    assert text.count("labelled megapixels") == 1, "the other conditions have other numbers of labelled pixels"


@pytest.mark.parametrize(
    ("half", "goal", "verdict"),
    [
        ((0.40, 0.36, 0.41), MIOU, "or"),
        ((0.39, 0.40, 0.41), MIOU, "or"),
        ((0.27, 0.28, 0.28), MIOU, "are worse than"),
        ((0.27, 0.28, 0.28), LOSS, "are better than"),
        ((0.47, 0.48, 0.48), LOSS, "are worse than"),
    ],
)
def test_the_verdict_follows_the_interval_and_the_direction_of_the_objective(half, goal, verdict):
    text = section_of({**TABLE, "2n, halves": (184, 0.5, half)}, goal)["text"]
    assert f'in halves ("2n, halves") {verdict} 92 images' in text
    assert ("it is open whether" in text) == (verdict == "or")


def test_one_seed_has_no_interval_and_validation_stands_in_for_a_missing_test():
    section = section_of(seeds=1, tested=False)
    assert "it is open whether 184 images" in section["text"]
    assert "val_miou 0.2000 and 0.1850, difference +0.0150 (one seed has no interval)" in section["text"]


def test_seeds_of_equal_differences_have_no_interval():
    text = section_of({**TABLE, "2n, halves": (184, 0.5, (0.39, 0.40, 0.41))})["text"]
    assert "difference +0.0200 (equal with 3 seeds, which has no interval)" in text


def test_conditions_that_differ_in_more_than_labels_are_not_compared():
    configs = {name: config_of(images, density) for name, (images, density, _) in TABLE.items()}
    configs["n, whole"] = config_of(92, 1, freeze=["encoder"])
    section = section_of(configs=configs)
    assert section["text"].startswith("No two conditions have the same number of labelled pixels")
    assert len(section["table"]) == 1 + len(TABLE)


def test_without_counted_labels_there_is_no_section():
    runs = [each for each in runs_of(TABLE) if each.facts.pop("labelled_megapixels")]
    configs = {name: config_of(images, density) for name, (images, density, _) in TABLE.items()}
    assert labelling_sections(runs, configs, MIOU) == []
    assert labelling_sections(runs_of(dict([*TABLE.items()][:1])), configs, MIOU) == []


def test_the_plot_joins_the_conditions_of_a_density_with_an_interval_at_each():
    (figure,) = section_figures([section_of()]).values()
    points = {layer["name"]: layer["x"] for layer in figure["layers"] if layer["kind"] == "points"}
    assert points == {"density 0.5, halves": [1.84, 3.68], "all labels": [3.68, 7.36]}
    bars = [item for layer in figure["layers"] for item in layer.get("items", ()) if item[1][0] == item[1][-1]]
    assert len(bars) == len(TABLE)
    assert figure["x"]["title"] == "labelled megapixels"
    low, high = figure["y"]["low"], figure["y"]["high"]
    assert all(low < y < high for _, _, ys in bars for y in ys)
