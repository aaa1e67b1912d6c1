"""Load a search space by the name a user gives.

It names a space that ships, a file, a user's function, or a model of torchvision or timm.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from bam_search.errors import UserError, nearest
from bam_search.model.detector import for_batches
from bam_search.model.find_sites import IMAGENET_SHAPE
from bam_search.model.trace import Shape
from bam_search.space.model_name import EXAMPLE, ModelName, is_model_name
from bam_search.space.search_space import SearchSpace, load_space
from bam_search.space.user_file import Code, check_code, function_of

RESERVED: Mapping[str, str] = {
    "num_classes": "the task says how many classes there are",
    **dict.fromkeys(
        ("weights", "weights_backbone", "pretrained", "checkpoint_path"),
        "pretrained weights of a study are a file: --weights FILE",
    ),
}
"""The arguments of a library's models that are not the user's, and why."""
IMAGENET, COCO = 1000, 91
"""The classes of what a library's classifiers and detectors were made for."""
OTHER_TARGETS = ("mask", "keypoint")
"""Detectors of torchvision with these in their names learn from more than boxes."""
DETECTOR_SHAPE: Shape = (3, 800, 1088)
"""What torchvision's detectors make of a photograph of COCO."""
FIXED_SHAPES: Mapping[str, Shape] = {
    "ssd300_vgg16": (3, 300, 300),
    "ssdlite320_mobilenet_v3_large": (3, 320, 320),
}
"""The detectors of torchvision that are for images of one size."""
CLASSES = ("classes", "num_classes")
"""What the number of classes is called by functions that take it."""


@dataclass(frozen=True)
class Inputs:
    """The images that a model is for: `shape` is (C, H, W) of one image."""

    shape: Shape
    classes: int


def load(name: str, inputs: Inputs | None = None) -> SearchSpace:
    """The search space of `name`: a backbone, its sites and the modules to try there.

        >>> from bam_search import load
        >>> space = load("torchvision:mobilenet_v2")
        >>> space.input_shape, space.classes
        ((3, 224, 224), 1000)
        >>> type(space.backbone(space.classes)).__name__
        'MobileNetV2'

    Args:
        name: that of a space in `search_spaces/`, a path to a file with `space()`,
            `path/to/file.py:function` for a function or class that gives an nn.Module or a
            SearchSpace, `torchvision:NAME` or `timm:NAME`; the last three with arguments if need
            be, whose values are literals: `net.py:Net(depth=3)`. torchvision's detectors are
            among its models; they, and a user's with their interface, take batches of one size as
            they are (`bam_search.model.detector`).
        inputs: for models, and spaces that ship; a user's space that says what it is for keeps it.
            Without them a model of a library has the images it was made for, and one of the user's
            CIFAR-100's.

    Raises:
        UserError: there is no such model, file or argument, or it gives something else.
    """
    space = _loaded(name, inputs)
    return replace(space, backbone=partial(_for_batches, space.backbone))


@functools.cache
def load_once(name: str, inputs: Inputs, code: Code) -> SearchSpace:
    """The same, once a process for the same code: a user's file is not run for each candidate.

    Whoever edits the file while a study runs does not change that study. Raises UserError as `load`
    does, and if a file of the study's `code` is another than it was.
    """
    check_code(code)
    return load(name, inputs)


def _for_batches(create: Callable[[int], nn.Module], classes: int) -> nn.Module:
    return for_batches(create(classes))


def _loaded(name: str, inputs: Inputs | None) -> SearchSpace:
    if not is_model_name(name):
        space = load_space(name)
        is_fixed = name.endswith(".py") and space.states_inputs
        return space if inputs is None or is_fixed else _for_inputs(space, inputs)
    model = ModelName.parse(name)
    if model.is_file:
        return _of_function(model, inputs)
    if model.source not in LIBRARIES:
        raise UserError(f"cannot read {name!r} as a model", EXAMPLE)
    return _of_library(model, inputs)


def _for_inputs(space: SearchSpace, inputs: Inputs) -> SearchSpace:
    """A space that ships, for images of another shape and another number of classes.

    Raises UserError for images of less than a quarter of its size: its last maps would be too
    small.
    """
    _, *made_for = space.input_shape
    _, *sides = inputs.shape
    if 4 * min(sides) < min(made_for):
        raise UserError(
            f"space {space.name!r} is for images of {made_for[0]}x{made_for[1]} pixels, "
            f"and these have {sides[0]}x{sides[1]}",
            "its last maps would be too small: take a space for small images, such as resnet18",
        )
    return replace(space, input_shape=inputs.shape, classes=inputs.classes)


def names(library: str) -> list[str]:
    """The classification models of a library. Raises UserError if it is not installed."""
    return LIBRARIES[library].names()


def natural_shape(reference: str) -> Shape:
    """The shape of the images that a model of a library, `LIBRARY:NAME`, was made for."""
    name = ModelName.parse(reference)
    return LIBRARIES[name.source].shape(name.model)


@dataclass(frozen=True)
class _Library:
    """How to ask a library for its models.

    `names` lists them, `create` makes one by (name, arguments, classes), and `shape` is (C, H, W)
    of the images that it was made for. `detectors` lists those that are for detection.
    """

    names: Callable[[], list[str]]
    create: Callable[[str, Mapping[str, Any], int], nn.Module]
    shape: Callable[[str], Shape]
    detectors: Callable[[], list[str]] = list


def _torchvision(name: str, arguments: Mapping[str, Any], classes: int) -> nn.Module:
    models = _import("torchvision.models")
    if name in _torchvision_detectors():
        arguments = {**arguments, "weights_backbone": None}
    return models.get_model(name, weights=None, num_classes=classes, **arguments)


def _torchvision_shape(name: str) -> Shape:
    if name in _torchvision_detectors():
        return FIXED_SHAPES.get(name, DETECTOR_SHAPE)
    # The last weights: the first of a ViT are for larger images than its default.
    *_, weights = _import("torchvision.models").get_model_weights(name)
    side = weights.transforms().crop_size[0]
    return (3, side, side)


def _torchvision_names() -> list[str]:
    models = _import("torchvision.models")
    return models.list_models(module=models)


def _torchvision_detectors() -> list[str]:
    models = _import("torchvision.models")
    found = models.list_models(module=models.detection)
    return [name for name in found if not name.startswith(OTHER_TARGETS)]


def _timm(name: str, arguments: Mapping[str, Any], classes: int) -> nn.Module:
    timm = _import("timm")
    return timm.create_model(name, pretrained=False, num_classes=classes, **arguments)


def _timm_shape(name: str) -> Shape:
    pretrained = _import("timm.models").get_pretrained_cfg(name)
    return tuple(pretrained.input_size) if pretrained is not None else IMAGENET_SHAPE


LIBRARIES: Mapping[str, _Library] = {
    "torchvision": _Library(
        _torchvision_names, _torchvision, _torchvision_shape, _torchvision_detectors
    ),
    "timm": _Library(lambda: _import("timm").list_models(), _timm, _timm_shape),
}


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(f"{package} is not installed", f"pip install {package}") from None


def _check_known(library: str, model: str) -> None:
    known = [*names(library), *LIBRARIES[library].detectors()]
    if model not in known:
        raise UserError(f"{library} has no model {model!r}", nearest(model, known))


def _of_library(model: ModelName, inputs: Inputs | None) -> SearchSpace:
    _check_known(model.source, model.model)
    for key, _ in model.arguments:
        if key in RESERVED:
            raise UserError(f"{model.text} cannot have the argument {key!r}", RESERVED[key])
    detects = model.model in LIBRARIES[model.source].detectors()
    inputs = inputs or Inputs(natural_shape(model.text), COCO if detects else IMAGENET)
    create = partial(LIBRARIES[model.source].create, model.model, dict(model.arguments))
    return SearchSpace(model.text, create, inputs.shape, inputs.classes)


def _of_function(model: ModelName, inputs: Inputs | None) -> SearchSpace:
    function = function_of(Path(model.source), model.model)
    _check_arguments(model, function)
    make = partial(_called, function, dict(model.arguments))
    usual = inputs or Inputs(SearchSpace.input_shape, SearchSpace.classes)
    try:
        made = make(usual.classes)
    except UserError:
        raise
    except Exception as error:  # a user's function can raise anything; the user has to read it
        arguments = f"its arguments are given as '{model.source}:{model.model}(NAME=VALUE)'"
        hint = arguments if isinstance(error, TypeError) else ""
        raise UserError(f"{model.text} failed: {type(error).__name__}: {error}", hint) from error
    if isinstance(made, SearchSpace):
        return made if inputs is None or made.states_inputs else _for_inputs(made, inputs)
    if not isinstance(made, nn.Module):
        raise UserError(
            f"{model.text} returned a {type(made).__name__}",
            "it must return an nn.Module, or a SearchSpace",
        )
    return SearchSpace(model.text, make, usual.shape, usual.classes)


def _check_arguments(model: ModelName, function: Callable[..., Any]) -> None:
    """Raise UserError for an argument that the function does not take, or that is the task's."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key, _ in model.arguments:
        if key not in parameters and not takes_any:
            raise UserError(
                f"{model.source}:{model.model} has no argument {key!r}", nearest(key, parameters)
            )
        if key in CLASSES:
            hint = f"{RESERVED['num_classes']}; leave it out"
            raise UserError(f"{model.text} cannot have the argument {key!r}", hint)


def _called(function: Callable[..., Any], arguments: Mapping[str, Any], classes: int) -> Any:
    """What `function` returns, called with the number of classes too if it takes that.

    It takes it as `classes`, as `num_classes`, or as its one argument that has no default and is
    not among `arguments`.
    """
    parameters = inspect.signature(function).parameters
    for key in CLASSES:
        if key in parameters:
            return function(**{key: classes}, **arguments)
    without_default = [p for p in parameters.values() if p.default is p.empty]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in without_default if p.kind in positional and p.name not in arguments]
    if len(needed) != 1:
        return function(**arguments)
    if needed[0].kind is inspect.Parameter.POSITIONAL_ONLY:
        return function(classes, **arguments)
    return function(**{needed[0].name: classes}, **arguments)
