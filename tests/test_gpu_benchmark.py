"""`python -m benchmarks.gpu` as a whole, tiny on a CPU, and its pieces.

A part that fails affects no other, and nothing measured is lost.
"""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bam_search.errors import UserError
from bam_search.tasks.classification.synthetic import generate_images
from bam_search.words import duration
from benchmarks import ladder, usual_loop
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import goals, runner
from benchmarks.gpu.candidate import Kernels, group
from benchmarks.gpu.folder import NAMES, Folder
from benchmarks.gpu.modules import measured
from benchmarks.gpu.parts import Absent, Part, Work
from benchmarks.gpu.plan import SLACK, TWO_PROCESSES, estimated, plan, rates
from benchmarks.gpu.runner import Outcome, run
from benchmarks.gpu.stages import STAGES, Stage, allowed
from benchmarks.gpu.studies import own_estimate, told_seconds
from benchmarks.gpu.suite import results
from benchmarks.gpu.summary import text

ROOT = Path(__file__).parents[1]
ABOUT = {
    "device": "a card",
    "kind": "cpu",
    "tiny": True,
    "date": "today",
    "versions": {"torch": "2.11"},
    "data": "",
    "cores": 1,
}


def asked(data: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, on one core."""
    core = {max(os.sched_getaffinity(0))}
    line = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--device",
        "cpu",
        "--data",
        str(data),
        "--out",
        str(out),
        *words,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        line,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, core),
    )


def figures(out: Path) -> dict[str, Any]:
    """What the folder's JSON files say of each stage; each says where and when it was measured."""
    stages: dict[str, Any] = {}
    for file in out.glob("gpu-*.json"):
        told = json.loads(file.read_text())
        assert told["device"]
        assert told["date"][:2] == "20"
        assert {"torch", "cuda", "cudnn", "driver", "python"} <= set(told["versions"])
        stages |= told["stages"]
    return stages


def images(folder: Path) -> Path:
    """A file of a thousand images."""
    x_train, y_train, x_test, y_test = generate_images(1000, 200)
    path = folder / "cifar100.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return path


def found(stages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each part of each stage found."""
    return {
        name: {part: value["found"] for part, value in stage["parts"].items()}
        for name, stage in stages.items()
    }


@pytest.mark.slow
def test_stages_run_on_a_cpu_and_a_later_call_replaces_those_it_names(tmp_path: Path) -> None:
    data, broken, out = images(tmp_path), tmp_path / "broken.npz", tmp_path / "out"
    content = bytearray(data.read_bytes())
    content[5000:5100] = bytes(range(100))
    broken.write_bytes(content)
    names = ["machine", "parity", "kernels", "attention", "resnet18", "study"]

    done = asked(data, out, "--stages", *names)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout == (out / "summary.txt").read_text()
    assert {file.name for file in out.iterdir()} == set(NAMES)
    assert len(NAMES) <= 8
    stages = figures(out)
    assert set(stages) == set(names)
    assert [name for name in names if stages[name]["state"] != "done"] == []
    told = found(stages)
    assert told["machine"]["data"]["train"] == 1000
    assert told["parity"]["batches"]["equal"]
    assert told["kernels"]["kernels of small every-block=bam"]["groups"]["convolution"]["calls"] > 0
    assert told["resnet18"]["the engine, batch 60"]["images_per_s"] > 0
    assert told["study"]["study"]["planned_s"] == told["study"]["plan"]["seconds"]
    assert told["study"]["study"]["estimated_s"] > 0
    assert told["study"]["study"]["verified_records"] > 0
    with tarfile.open(out / "study.tar.gz") as archive:
        assert "study/study.db" in archive.getnames()

    # In the order of the table, whatever the order here.
    other = asked(broken, out, "--stages", "parity", "machine")
    assert other.returncode == 1
    assert [line.split(":")[0] for line in other.stderr.splitlines()] == [
        "machine",
        "machine",
        "parity",
        "parity",
    ]
    after = figures(out)
    assert (
        after["machine"]["parts"]["data"]["state"]
        == after["parity"]["parts"]["losses"]["state"]
        == "failed"
    )
    assert after["machine"]["parts"]["imports"]["state"] == "done"
    assert "cannot be read" in after["parity"]["parts"]["batches"]["why"]
    assert {name: stage for name, stage in after.items() if name not in ("machine", "parity")} == {
        name: stage for name, stage in stages.items() if name not in ("machine", "parity")
    }


@pytest.mark.slow
def test_every_stage_runs_on_a_cpu_and_a_later_call_does_none_again(tmp_path: Path) -> None:
    data, out = images(tmp_path), tmp_path / "out"
    done = asked(data, out)
    assert done.returncode == 0, done.stderr + done.stdout
    stages = figures(out)
    assert [stage.name for stage in STAGES if stages[stage.name]["state"] != "done"] == []
    told = found(stages)
    assert set(told["tests"]["test_gpu.py"]["outcomes"].values()) <= {"SKIPPED", "PASSED"}
    assert told["packed"]["the engine, batch 60"]["images_per_s"] > 0

    again = asked(data, out)
    assert again.returncode == 0, again.stderr
    assert figures(out) == stages
    assert again.stderr == ""


def test_mistakes_are_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "generated", "--out", str(tmp_path)]
    assert command.main([*words, "--stages", "kernel"]) == 2
    assert "there is no stage 'kernel'\nhint: did you mean 'kernels'?" in capsys.readouterr().err
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds 'notes.txt'"):
        Folder.open(tmp_path, ABOUT)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_there_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--data", "generated", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "finds no CUDA GPU" in said[0]
    assert said[1].startswith("hint: --device cpu")


# Each stage in processes of its own


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(runner, "PRELOADED", [])
    monkeypatch.setattr(runner, "GRACE", 3.0)
    return Work("", "cpu", True, 60.0, tmp_path)


def perform(
    name: str, work: Work, outcome: Outcome, keep: Callable[[], None] = lambda: None
) -> Outcome:
    """The outcome of a stage of `troubled_stages.py`."""
    stage = Stage("stage", "", 60, f"troubled_stages:{name}", least=1)
    run(stage, work, outcome, work.temporary / "log.txt", keep)
    return outcome


@pytest.mark.slow
def test_a_part_that_fails_hangs_or_crashes_costs_itself_alone(work: Work) -> None:
    outcome = perform("troubled", work, Outcome())
    assert outcome.state == "done"
    assert {
        name: (part["state"], part["found"], part["why"])
        for name, part in outcome.parts.items()
        if name != "starts"
    } == {
        "well": ("done", {"number": 1}, ""),
        "fails": ("failed", None, "ValueError: it is"),
        "crashes": ("failed", None, "its process was ended by SIGABRT"),
        "hangs": ("failed", {"partly": 2}, "it took more than 1 s"),
        "is deaf": ("failed", None, "it took more than 1 s"),
        "is absent": ("absent", None, "there is none"),
        "last": ("done", 3, ""),
    }
    left = Path(f"/proc/{outcome.parts['starts']['found']}/cmdline")
    assert not left.exists() or not left.read_text()  # what it started is ended too
    assert "Traceback" in (work.temporary / "log.txt").read_text()


@pytest.mark.slow
def test_a_stage_that_is_cut_off_keeps_what_it_found_and_goes_on_with_it(work: Work) -> None:
    outcome = perform("slow", replace(work, seconds=6.0), Outcome())
    assert (outcome.state, outcome.why) == ("cut off", "its time was over")
    assert outcome.parts["long"] | {"seconds": 0} == {
        "state": "cut off",
        "seconds": 0,
        "found": {"from": 0},
        "why": "the time of its stage was over",
    }
    assert perform("slow", work, outcome).state == "done"
    assert outcome.parts["quick"]["found"] == 1
    assert outcome.parts["long"]["found"] == {"from": 0, "spent": True}


def test_an_interrupt_ends_the_stage(work: Work) -> None:
    outcome = Outcome()

    def interrupt() -> None:
        if outcome.parts.get("long", {}).get("found"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform("slow", work, outcome, interrupt)
    assert outcome.parts["long"]["state"] == "cut off"
    assert outcome.parts["quick"]["state"] == "done"


def test_a_stage_that_is_not_finished_or_cannot_begin_says_so(work: Work) -> None:
    outcome = perform("unfinished", work, Outcome())
    assert outcome.state == outcome.parts["one"]["state"] == "cut off"
    assert outcome.parts["two"]["found"] == 2
    outcome = perform("broken", work, Outcome())
    assert (outcome.state, outcome.why, outcome.parts) == ("crashed", "OSError: no such thing", {})


def test_the_time_that_is_left_is_shared_out() -> None:
    first, study, last = (
        replace(STAGES[0], name=name, limit=300, least=10, share=share)
        for name, share in (("a", 0), ("b", 0.5), ("c", 0.1))
    )
    assert allowed(first, [study, last], left=700, whole=700) == 700 - 350 - 70
    assert allowed(first, [], left=700, whole=700) == 300
    assert allowed(last, [], left=9, whole=700) == 0
    # For the later one that would be too little anyway.
    assert allowed(first, [replace(study, least=100)], left=90, whole=90) == 90


# Pieces


@pytest.mark.slow
def test_the_outcome_of_each_test_is_read_and_warnings_fail_none(tmp_path: Path) -> None:
    tests = tmp_path / "test_some.py"
    tests.write_text(
        "import warnings, pytest\n"
        "def test_warns(): warnings.warn('use the new thing', FutureWarning)\n"
        "@pytest.mark.parametrize('n', [1])\n"
        "def test_fails(n): assert n == 2\n"
        "@pytest.mark.skip(reason='not here')\n"
        "def test_skips(): pass\n"
    )
    all_told: list[dict[str, Any]] = []
    with pytest.raises(RuntimeError, match=r"1 of 3 tests failed: test_fails\[1\]"):
        all_told.extend(results(str(tests)))
    told = all_told[-1]
    assert told["outcomes"] == {
        "test_warns": "PASSED",
        "test_fails[1]": "FAILED",
        "test_skips": "SKIPPED",
    }
    assert told["why"] == {"test_fails[1]": "assert 1 == 2"}
    assert (told["passed"], told["failed"], told["skipped"], told["exit_code"]) == (1, 1, 1, 1)
    with pytest.raises(RuntimeError, match="exit code 4, and not all"):
        list(results(str(tmp_path / "none.py")))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64",
            "convolution",
        ),
        (
            "void cutlass__5x_cudnn::Kernel<"
            "cutlass_tensorop_bf16_s16816dgrad_optimized_bf16_128x128_32x5_nhwc_align8>",
            "convolution",
        ),
        (
            "void at::native::(anonymous namespace)::"
            "conv_depthwise2d_forward_kernel<5, float, int>",
            "convolution",
        ),
        (
            "void at::native::batch_norm_backward_reduce_channels_last_kernel<"
            "4, c10::BFloat16, float, float>",
            "batch norm",
        ),
        ("void cudnn::bn_bw_1C11_kernel_new<float, float, float2, 512, true, 1>", "batch norm"),
        ("nvjet_hsh_64x8_64x16_1x2_h_bz_TNT", "matrix product"),
        (
            "void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, __nv_bfloat16, float>",
            "matrix product",
        ),
        (
            "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<"
            "FusedSgdMathFunctor<float, 3, true, true>>",
            "optimizer",
        ),
        (
            "void at::native::elementwise_kernel<128, 4, "
            "at::native::gpu_kernel_impl_nocast<at::native::direct_copy_kernel_cuda>>",
            "copy",
        ),
        ("Memset (Device)", "copy"),
        (
            "void at::native::reduce_kernel<128, 4, "
            "at::native::ReduceOp<float, at::native::MeanOps<float, float, float, float>>>",
            "reduction",
        ),
        (
            "void at::native::(anonymous namespace)::cunn_SoftMaxForward<4, float, float, float>",
            "reduction",
        ),
        (
            "void at::native::vectorized_gather_kernel<16, long>("
            "char*, char*, long*, int, long, long, long, long, bool)",
            "gather",
        ),
        (
            "void at::native::(anonymous namespace)::indexSelectLargeIndex<"
            "unsigned char, long, unsigned int, 2, 2, -2, true>",
            "gather",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<8, "
            "at::native::CUDAFunctor_add<c10::BFloat16>>",
            "elementwise",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<4, "
            "at::native::sigmoid_kernel_cuda(at::TensorIteratorBase&)>",
            "elementwise",
        ),
        ("triton_red_fused__native_batch_norm_legit_functional_add_relu_3", "compiled"),
        ("void some_kernel()", "other"),
    ],
)
def test_kernels_are_told_apart_by_name(name: str, expected: str) -> None:
    assert group(name) == expected


def test_kernels_beyond_the_bare_net() -> None:
    bare = Kernels({"conv": (2.0, 50.0), "copy": (1.0, 10.0)})
    told = (
        Kernels({"conv": (3.0, 90.0), "copy": (1.0, 10.0), "sigmoid_elementwise": (4.0, 20.0)})
        .beyond(bare)
        .told()
    )
    assert (told["kernels_a_step"], told["ms_a_step"]) == (5.0, pytest.approx(0.06))
    assert told["groups"]["convolution"] == {
        "calls": 1.0,
        "ms": pytest.approx(0.04),
        "share": pytest.approx(2 / 3),
    }
    assert [row["name"] for row in told["top"]] == ["conv", "sigmoid_elementwise"]


def known(speed: float = 50_000.0, two_processes: str = "PASSED") -> dict[str, dict[str, Any]]:
    """What stages might have found."""
    phases = {
        "net": "resnet18",
        "images_per_s": speed,
        "to_full_speed_s": 1.5,
        "seconds": {"build": 0.3},
        "evaluation": {"images_per_s": 100_000.0},
    }
    first = {
        "training_s": 2.5,
        "images_each": 45_000,
        "beside_trainings_s": 40.0,
        "trainings": 12,
        "not_one_graph": False,
    }
    return {
        "tests": {"test_gpu.py": {"outcomes": {TWO_PROCESSES: two_processes}}},
        "first-study": {"study": first, "dry run": {"minutes": 38.5}},
        "kernels": {f"resnet18 {n}": phases for n in range(4)},
        "resnet18": {
            "the engine, batch 256": {"images_per_s": speed},
            "the engine, batch 128": {"images_per_s": 0.9 * speed},
            "the engine, blocks compiled, batch 256": {"images_per_s": 2 * speed},
            "usual loop, 14 workers, batch 128": {"images_per_s": 10_000.0},
            "the engine, 2 processes at once, batch 256": {"images_per_s": 1.2 * speed},
        },
    }


def test_a_study_is_planned_by_what_was_measured() -> None:
    costs = rates(known())
    assert (costs.images_per_s, costs.workers, costs.gain, costs.cuda_graph) == (
        pytest.approx(50_000),
        2,
        1.2,
        True,
    )
    # Building, a training less its images, and the way to the next.
    assert costs.around == pytest.approx(0.3 + 2.5 - 0.9 + 0.3)
    planned = plan(known(), 480, 50_000)
    assert (planned.space, planned.trials, planned.seeds) == ("resnet18", 24, 3)
    assert (
        planned.seconds
        == estimated(planned.rates, 50_000, planned.trials, planned.seeds, planned.epochs)
        <= SLACK * 480
    )
    assert (
        estimated(planned.rates, 50_000, planned.trials, planned.seeds, planned.epochs + 1)
        > SLACK * 480
    )
    assert plan(known(2 * 50_000.0), 480, 50_000).epochs > planned.epochs
    assert plan(known(5_000.0), 300, 50_000).space == "small"
    assert rates(known(two_processes="FAILED")).workers == 1


def test_a_study_is_planned_where_nothing_is_known() -> None:
    assert rates({}).source == "guesses"
    assert plan({}, 400, 50_000).epochs >= 1
    failed = known() | {"kernels": {}, "first-study": {"study": {"not_one_graph": True}}}
    assert (rates(failed).source, rates(failed).cuda_graph) == (
        "the engine's speed, and guesses",
        False,
    )


def test_what_a_dry_run_says_is_read() -> None:
    said = [
        "one training: 12 to 14 s",
        "the study: about 38.5 min for 40 candidates and some 17 finalists",
    ]
    assert told_seconds(said) == 38.5 * 60
    run = [
        "placement: the gpu variant runs on a GPU",
        f"about {duration(7000)} in all",
        "phase 1 of 2: search",
    ]
    assert own_estimate(run) == pytest.approx(7000, rel=0.05)
    assert own_estimate(run[:1]) is None
    with pytest.raises(ValueError, match="is not told"):
        told_seconds(said[:1])


def test_goals_are_reached_missed_or_not_measured(tmp_path: Path) -> None:
    assert (ladder.ENGINE, next(iter(ladder.STEPS))) == (goals.ENGINE, goals.USUAL)
    assert f"batch {usual_loop.BATCH}" == goals.SAME_BATCH
    study = {
        "exit_code": 0,
        "seconds": 400.0,
        "estimated_s": 500.0,
        "took_of_estimate": 0.8,
        "took_of_plan": 1.5,
    }
    detectors = {goals.DETECTOR: {"images_per_s": 400.0}}
    lines = [
        goal.line(known() | {"study": {"study": study}, "detectors": detectors})
        for goal in goals.goals("NVIDIA H200")
    ]
    assert [line.split("   ")[-1].strip() for line in lines] == [
        "60,000  reached",
        "4.50  reached",
        "not measured",
        "not measured",
        "1.50  reached",
        "20  reached  (6.7 min for 8.3)",
        "50  MISSED",
        "38.5  reached",
        "2.5  reached",
    ]
    assert "24,000" in lines[2]
    assert "18,000" in goals.goals("NVIDIA H100")[2].line({})
    cut_off = {"study": {"study": study | {"exit_code": 130}}}
    assert all(goal.line(cut_off).endswith("not measured") for goal in goals.goals(""))
    assert "at least 60,000   50,000  MISSED" in goals.goals("")[0].line(
        {"resnet18": {"the engine, batch 256": {"images_per_s": 50_000.0}}}
    )
    assert "Goals\n  ResNet-18, images/s" in text(
        Folder(tmp_path, ABOUT | {"tiny": False}), "1 of 2 s"
    )


def test_what_the_project_does_not_have_is_absent(work: Work) -> None:
    with pytest.raises(Absent, match="has no passes here"):
        measured(work, "passes", "benchmarks.no_such_module")


def test_what_is_told_of_attention_is_shown(tmp_path: Path) -> None:
    rows = {
        "passes": {"bam 256x64x32x32": {"step_ms": {"now": 1.0, "before": 2.0}, "step_ratio": 0.5}}
    }
    outcome = Outcome(
        "done",
        parts={name: {"state": "done", "found": found, "why": ""} for name, found in rows.items()},
    )
    where = {"date": "", "device": "another card", "limit": 60, "seconds": 1.0}
    page = text(Folder(tmp_path, ABOUT, {"attention": outcome}, {"attention": where}), "")
    assert "bam 256x64x32x32" + 33 * " " + "step_ratio 0.5" in page
    assert "1 of 1 parts, on another card" in page


@pytest.mark.parametrize(
    ("only", "chosen"), [((), ["one, batch 1", "two"]), (("batch",), ["one, batch 1"])]
)
def test_parts_are_chosen_by_what_is_in_their_names(
    only: tuple[str, ...], chosen: list[str]
) -> None:
    work = Work("generated", "cpu", True, 1.0, Path(), only)
    listed = [Part(name, 1.0, dict) for name in ("one, batch 1", "two")]
    assert [part.name for part in work.chosen(listed)] == chosen
