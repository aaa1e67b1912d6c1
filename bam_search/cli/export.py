"""`export`: a candidate of a report as files that work without it.

All that is written is loaded again and compared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from bam_search import __version__
from bam_search.cli.candidate import find
from bam_search.cli.train import beside
from bam_search.errors import UserError
from bam_search.files import write
from bam_search.model.arguments import tensors
from bam_search.model.attach import Init
from bam_search.model.attention import module_files
from bam_search.model.detector import is_detector
from bam_search.model.weights import load_weights
from bam_search.space.model_name import ModelName, is_model_name
from bam_search.space.placement import Placement
from bam_search.space.search_space import SearchSpace
from bam_search.space.user_file import run_file
from bam_search.study.record import Record

MAKERS: Mapping[str, str] = {
    "torchvision": "torchvision.models.get_model",
    "timm": "timm.create_model",
}
"""The function of each library that makes its models."""
CLOSE = 1e-4
"""How far outputs may lie apart where another runtime computes them."""


@dataclass(frozen=True, eq=False)
class Exported:
    """A candidate, its model in eval mode, and the `outputs` of that model on some images.

    These are all tensors that it returns.

    `name` is the name under which the space is loaded, `init` that of `attach`; `image` is a batch
    (2, C, H, W).
    """

    record: Record
    name: str
    space: SearchSpace
    init: Init
    net: nn.Module
    image: Tensor
    outputs: Sequence[Tensor]


def export(
    folder: Path,
    tag: str,
    out: Path,
    weights: Path | None,
    formats: Sequence[str],
    modules: Mapping[str, str],
) -> None:
    """Write the candidate that the report in `folder` calls `tag` to `out`.

    `modules` says where modules of the user's lie now.

    Raises UserError, and ClickException if a comparison fails.
    """
    candidate = _candidate(folder, tag, weights, modules)
    if formats and is_detector(candidate.net):
        raise UserError(
            f"a detector cannot be written as {' or '.join(formats)}: "
            "it finds more objects in one image than in another",
            "leave --format out: model.py builds it in Python",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {str(out)!r} cannot be a folder: {error.strerror}", "name another one"
        ) from None
    _write_placement(candidate, out / "placement.json")
    _write_snippet(candidate, out / "model.py")
    for name in formats:
        FORMATS[name](candidate, out / f"model.{name}")
    if weights and beside(weights).is_file():
        write(out / "preprocessing.json", beside(weights).read_text(encoding="utf-8"))
        click.echo(f"{out / 'preprocessing.json'}: what it takes, and its classes")
    if weights:
        origin = f"from {weights}"
    else:
        origin = (
            "untrained: a study keeps no weights; "
            "`train` makes some, and export again with --weights"
        )
    click.echo(f"weights {origin}", err=True)


def _candidate(
    folder: Path, tag: str, weights: Path | None, modules: Mapping[str, str]
) -> Exported:
    candidate = find(folder, tag, modules)
    record, space = candidate.record, candidate.space
    net = candidate.net(record.seed)
    if weights:
        load_weights(net, weights)
    net.eval()
    image = torch.rand(2, *space.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = tensors(net(image))
    init = candidate.plan.init
    return Exported(record, candidate.name, space, init, net, image, outputs)


def _write_placement(candidate: Exported, path: Path) -> None:
    write(path, candidate.record.parsed_placement.json + "\n")
    read_back = Placement.from_json(path.read_text(encoding="utf-8")).text
    same = read_back == candidate.record.placement
    _say(path, same, f"reads back as {candidate.record.placement}")


def _write_snippet(candidate: Exported, path: Path) -> None:
    write(path, _snippet(candidate))
    net = run_file(path).model()
    net.load_state_dict(candidate.net.state_dict())
    with torch.no_grad():
        outputs = tensors(net.eval()(candidate.image))
    same = all(map(torch.equal, outputs, candidate.outputs))
    parameters = sum(p.numel() for p in net.parameters())
    _say(path, same, f"builds the same model: {parameters:,} parameters, equal outputs")


def _snippet(candidate: Exported) -> str:
    """Return the text of a Python file whose `model()` builds the candidate."""
    record, space = candidate.record, candidate.space
    metric, value = record.metric, "failed"
    if record.val_metric is not None:
        value = f"{metric.with_unit(metric.text(record.val_metric))} validation {metric.name}"
    summary = (
        f"Candidate {record.tag} of a placement search on {space.name}: "
        f"{value}, {record.params_overhead:+z.2f} % parameters."
    )
    written_by = (
        f"Written by bam_search {__version__}, which it needs. "
        "`python model.py` prints the number of parameters."
    )
    images = f"(B, {', '.join(map(str, space.input_shape))})"
    what = (
        f"{images} -> {_returned(candidate.net)}, with the attention modules of PLACEMENT; "
        "weights are untrained."
    )
    imports, build = _build_lines(candidate.name, is_detector(candidate.net))
    init = "" if candidate.init == "random" else f", init={candidate.init!r}"
    registered = _register_lines(record.placement)
    if registered:
        imports = imports.replace(
            "bam_search import attach", "bam_search import attach, register_attention"
        )
    return f'''"""{_in_docstring(summary)}

{written_by}
"""

{imports}
{registered}
PLACEMENT = {record.placement!r}


def model(classes: int = {space.classes}):
    """{what}"""
    net = {build}
    attach(net, PLACEMENT, {space.input_shape}{init})
    return net


if __name__ == "__main__":
    print(f"{{sum(p.numel() for p in model().parameters()):,}} parameters")
'''


def _returned(net: nn.Module) -> str:
    return "the objects in each image" if is_detector(net) else "(B, classes)"


def _in_docstring(text: str) -> str:
    """Return the text as it is written between three quotes: a record's words are no code."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _register_lines(placement: str) -> str:
    """Return the lines that make the user's modules in the placement known, empty without any."""
    files = module_files()
    used = {choice.module for _, choice in Placement.parse(placement).choices}
    lines = [
        f"register_attention({name!r}, {_absolute(files[name].path) + ':' + files[name].cls!r})\n"
        for name in sorted(used & set(files))
    ]
    return "".join(["\n", *lines]) if lines else ""


def _absolute(path: str) -> str:
    return str(Path(path).resolve())


def _build_lines(name: str, detects: bool) -> tuple[str, str]:
    """Return the import lines, and the expression that makes the backbone.

    A detector that `detects` is made by `load`, which lets it take batches as they are.
    """
    if not is_model_name(name):
        # A path must hold from wherever the written file is run.
        return _loaded(_absolute(name) if name.endswith(".py") else name)
    model = ModelName.parse(name)
    if model.is_file:
        return _loaded(replace(model, source=_absolute(model.source)).text)
    if detects:
        return _loaded(name)
    function = MAKERS[model.source]
    arguments = "".join(f", {key}={value!r}" for key, value in model.arguments)
    return (
        f"import {model.source}\n\nfrom bam_search import attach",
        f"{function}({model.model!r}, num_classes=classes{arguments})",
    )


def _loaded(name: str) -> tuple[str, str]:
    return "from bam_search import attach, load", f"load({name!r}).backbone(classes)"


def _write_program(candidate: Exported, path: Path) -> None:
    program = torch.export.export(
        candidate.net, (candidate.image,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    with torch.no_grad():
        _compare(path, tensors(loaded(candidate.image)), candidate)


def _write_onnx(candidate: Exported, path: Path) -> None:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError:
        raise UserError(
            "ONNX needs packages that are not installed", "pip install 'bam_search[onnx]'"
        ) from None
    torch.onnx.export(
        candidate.net,
        (candidate.image,),
        path,
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path)
    input_name = session.get_inputs()[0].name
    outputs = session.run(None, {input_name: candidate.image.numpy()})
    _compare(path, [torch.from_numpy(output) for output in outputs], candidate)


FORMATS: Mapping[str, Callable[[Exported, Path], None]] = {
    "pt2": _write_program,
    "onnx": _write_onnx,
}
"""What a candidate can be written as, beside Python."""


def _compare(path: Path, outputs: Sequence[Tensor], candidate: Exported) -> None:
    pairs = list(zip(outputs, candidate.outputs, strict=True))
    difference = max(float((one - expected).abs().max()) for one, expected in pairs)
    largest = max(float(expected.abs().max()) for _, expected in pairs)
    close = difference <= CLOSE * max(1.0, largest)
    _say(path, close, f"loaded again, its outputs differ by at most {difference:.1e}")


def _say(path: Path, same: bool, what: str) -> None:
    """Print `what` was checked of the file at `path`; raise ClickException if it does not hold."""
    if not same:
        raise click.ClickException(f"{path} was written, but not that it {what}")
    click.echo(f"{path}: {what}")
