"""Study files: both variants, the command line on top, and every mistake in words."""

from pathlib import Path

import pytest

from bam_search.config import folder
from bam_search.errors import UserError
from bam_search.score.device import Device
from bam_search.search.study import load_study

CPU = Device("cpu", "a CPU", "", True)
GPU = Device("cuda", "a GPU", "", True)
SHIPPED = sorted(path.stem for path in folder("studies").glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_are_valid_on_both_devices(name: str) -> None:
    assert load_study(name, CPU, {}, []).question == load_study(name, GPU, {}, []).question


def test_the_placement_study_is_what_the_readme_says() -> None:
    cpu, gpu = (load_study("placement", device, {}, []) for device in (CPU, GPU))
    assert (cpu.space, gpu.space) == ("small", "resnet18")
    assert list(cpu.references.values()) == [
        "none",
        "bottleneck=bam(r=16,d=4)",
        "every-block=bam(r=16,d=4)",
        "every-block=se(r=16)",
    ]
    assert cpu.trials >= 16
    assert gpu.data.images == "all"
    assert gpu.recipe.epochs == 10


def test_flags_win_over_assignments_and_these_over_the_file() -> None:
    assignments = ["trials=7", "recipe.epochs=4", "recipe.lr=0.5", "data.images='all'"]
    study = load_study("placement", CPU, {"trials": 9, "recipe": {"epochs": 3}}, assignments)
    assert (study.trials, study.recipe.epochs, study.recipe.lr, study.data.images) == (
        9,
        3,
        0.5,
        "all",
    )


def test_the_space_has_one_name() -> None:
    """It is part of what a study is: the same model under another text is the same study."""
    flags = {"space": "./net.py:Net(b=1,a=[2,3])"}
    assert load_study("placement", CPU, flags, []).space == "net.py:Net(a=[2, 3], b=1)"
    twice = {"spaces": ["net.py:Net(a=1, b=2)", "net.py:Net(b=2, a=1)"]}
    with pytest.raises(UserError, match="give one space, or several, each once"):
        load_study("placement", CPU, twice, [])


@pytest.mark.parametrize(("value", "expected"), [("0.3", 0.3), ("700", 700), ("1", 1)])
def test_validation_is_a_share_or_a_number(value: str, expected: float) -> None:
    study = load_study("placement", CPU, {}, [f"data.validation={value}"])
    assert study.data.validation == expected
    assert type(study.data.validation) is type(expected)
    assert study.data.sizes(10_000).validation == {0.3: 3000, 700: 700, 1: 1}[expected]


@pytest.mark.parametrize("value", ["0", "0.0", "1.0", "1.5", "-3", "true", "many"])
def test_validation_is_nothing_else(value: str) -> None:
    with pytest.raises(
        UserError, match=r"one mistake:\n  data\.validation = .* or input should be"
    ):
        load_study("placement", CPU, {}, [f"data.validation={value}"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("recipe.lrr=1", "unknown key 'recipe.lrr': did you mean 'lr'"),
        ("recipe.learning_rate=1", "unknown key 'recipe.learning_rate': it is 'lr' here"),
        ("trails=3", "unknown key 'trails': did you mean 'trials'"),
        ("recipe.epochs=0", "recipe.epochs = 0"),
        ("recipe.epochs=two", "recipe.epochs = 'two'"),
        ("recipe.precision=fp8", "recipe.precision = 'fp8'"),
        ("recipe=3", "recipe = 3"),
        ("data.images=some", "data.images"),
        ("sampler=tpee", "no sampler 'tpee'"),
        ("objectives=['metric', 'flops']", "no objective 'flops'"),
        ("objectives=['params_overhead']", "needs 'metric'"),
        ("objectives=['metric', 'metric']", "each once"),
        ("trials=3", "pins 4 reference placements"),
        ("workers=0", "workers = 0"),
        ("seed=-1", "seed = -1"),
        ("rungs.epochs=[2]", "rungs ascend, each shorter than the full training"),
        ("rungs.epochs=[3]", "rungs.epochs = [3] with recipe.epochs = 2"),
        ("rungs.epochs=[1, 1]", "rungs ascend"),
        ("rungs.epochs=[0]", "rungs.epochs"),
        ("rungs.epoch=[1]", "unknown key 'rungs.epoch': did you mean 'epochs'"),
        ("rungs.control=1.5", "rungs.control = 1.5"),
        ("rungs.margin=-1", "rungs.margin = -1"),
        ("finalists.seeds=0", "finalists.seeds = 0"),
        ("finalists.most=2", "finalists.most = 2 is less than finalists.seeds = 3"),
        ("finalists.extra=-0.1", "finalists.extra = -0.1"),
        ("max_params_overhead=-1", "max_params_overhead = -1"),
        ("random_baseline=1", "random_baseline = 1"),
    ],
)
def test_mistakes_on_the_command_line(assignment: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_study("placement", CPU, {}, [assignment])
    assert message in str(caught.value)


def test_a_mistake_in_the_other_variant_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (folder("studies") / "placement.toml").read_text()
    path.write_text(text.replace('space = "resnet18"', 'spce = "resnet18"'))
    with pytest.raises(UserError, match=r"mine\.toml, variant gpu, has 2 mistakes"):
        load_study(str(path), CPU, {}, [])
    path.write_text(text.split("[cpu]")[0])
    with pytest.raises(UserError, match=r"no table \[cpu\]"):
        load_study(str(path), CPU, {}, [])


def test_most_seeds_follow_where_seeds_alone_are_raised() -> None:
    def plan(*assignments: str, **flags: object) -> tuple[int, int]:
        finalists = load_study("placement", CPU, flags, assignments).finalists
        return finalists.seeds, finalists.most

    assert plan("finalists.seeds=5") == (5, 12)
    assert plan("finalists.seeds=13") == plan(finalists={"seeds": 13}) == (13, 13)
    assert plan("finalists.seeds=13", "finalists.most=20") == (13, 20)


def test_rungs_come_before_the_full_training() -> None:
    study = load_study("placement", CPU, {}, ["recipe.epochs=9", "rungs.epochs=[1, 3]"])
    assert study.budgets == (1, 3, 9)
    assert load_study("placement", CPU, {}, ["recipe.epochs=9", "rungs.epochs=[]"]).budgets == (9,)
    with pytest.raises(UserError, match="rungs ascend"):
        load_study("placement", CPU, {}, ["recipe.epochs=9", "rungs.epochs=[3, 1]"])


def test_limits_and_costs_are_by_the_field_of_a_record() -> None:
    study = load_study(
        "placement", CPU, {}, ["max_params_overhead=2", "objectives=['macs_overhead', 'metric']"]
    )
    assert study.limits == {"params_overhead": 2.0}
    assert study.costs == ("macs_overhead",)
