"""What each operator of a traced graph costs: fvcore's handles, and more of them.

A handle gets the inputs and outputs of one node, and returns the node's MACs by operator. One that
multiplies matrices or convolves also returns, under PRODUCTS, its MACs once more, and under OUTPUTS
the elements that it puts out.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any

with warnings.catch_warnings():
    # fvcore is built on torch.jit, which newer releases call deprecated.
    warnings.simplefilter("ignore")
    from fvcore.nn.jit_handles import conv_flop_count, get_shape

Handle = Callable[[list[Any], list[Any]], Counter[str]]

PRODUCTS = "<products>"
OUTPUTS = "<outputs>"

_ARITHMETIC = ("add", "sub", "mul", "div", "addcmul", "maximum", "minimum", "exp", "pow", "sqrt")
_ACTIVATIONS = (
    *("relu", "leaky_relu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus"),
    *("sigmoid", "hardsigmoid", "hardswish", "hardtanh", "tanh", "softmax"),
)
_POOLS = ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool")
_REDUCING = ("mean", "sum", "amax", *(f"{pool}{n}d" for pool in _POOLS for n in (1, 2, 3)))
_NORMS = {"group_norm": 2, "layer_norm": 2, "instance_norm": 1}
"""The operators that normalise, and which of their inputs is the weight."""
_MATRIX_PRODUCTS = {"matmul": 0, "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1}
"""The products of matrices, and which of their inputs is the first factor."""
_VECTOR_PRODUCTS = {"mv": 0, "addmv": 1, "dot": 0, "vdot": 0, "inner": 0}
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_VIEWS = (
    *("t", "transpose", "permute", "numpy_T", "view", "reshape", "flatten", "squeeze", "unsqueeze"),
    *("expand", "select", "slice", "contiguous", "detach", "to", "type_as"),
)


def handles(images: int) -> dict[str, Handle]:
    """The handles by fvcore's name of an operator, for a graph whose first inputs are `images`.

    An operator that works in place counts under the plain name.
    """
    found = {f"aten::{name}": _per_input(name) for name in _REDUCING}
    for name in (*_ARITHMETIC, *_ACTIVATIONS):
        found[f"aten::{name}"] = found[f"aten::{name}_"] = _per_output(name)
    for name, weight in _NORMS.items():
        found[f"aten::{name}"] = _norm(name, weight)
    for name, first in _MATRIX_PRODUCTS.items():
        found[f"aten::{name}"] = _matrix_product(name, first, images)
    for name, first in _VECTOR_PRODUCTS.items():
        found[f"aten::{name}"] = _product(name, first)
    for name in _RECURRENT:
        found[f"aten::{name}"] = _recurrent(name)
    return found | WEIGHTED


def function_handles(names: Iterable[str]) -> dict[str, Handle]:
    """Handles for those of the operators that are functions of autograd: what is inside counts."""
    return {name: _inside for name in names if name.startswith("prim::PythonOp.")}


def _inside(_inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    graph = outputs[0].node().g("Subgraph")
    known = handles(images=len(list(graph.inputs())))  # which of them are weights is not known
    counted: Counter[str] = Counter()
    for node in graph.nodes():
        if node.kind() in known:
            counted += known[node.kind()](list(node.inputs()), list(node.outputs()))
    return counted


def elements(value: Any) -> int:
    """The number of elements of a value of the graph."""
    return prod(get_shape(value) or ())


def _per_output(name: str) -> Handle:
    return lambda _inputs, outputs: Counter({name: elements(outputs[0])})


def _per_input(name: str) -> Handle:
    return lambda inputs, _outputs: Counter({name: elements(inputs[0])})


def _norm(name: str, weight: int) -> Handle:
    """Five operations an element with weights, and four without, as fvcore counts them."""

    def handle(inputs: list[Any], _outputs: list[Any]) -> Counter[str]:
        each = 4 if get_shape(inputs[weight]) is None else 5
        return Counter({name: each * elements(inputs[0])})

    return handle


def _weighted(name: str, macs: int, out: int) -> Counter[str]:
    return Counter({name: macs, PRODUCTS: macs, OUTPUTS: out})


def _product(name: str, first: int) -> Handle:
    """The MACs of a product: for each element of the output, the length of the rows multiplied."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        out = elements(outputs[0])
        return _weighted(name, out * get_shape(inputs[first])[-1], out)

    return handle


def _matrix_product(name: str, first: int, images: int) -> Handle:
    """The MACs of a product of matrices, which is a linear layer if one of them is a weight."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        factors = inputs[first : first + 2]
        is_layer = sum(_is_weight(factor, images) for factor in factors) == 1
        batch = get_shape(factors[0])[0] if name == "addbmm" else 1  # it adds the batch up
        out = elements(outputs[0])
        macs = batch * out * get_shape(factors[0])[-1]
        return _weighted("linear" if is_layer else name, macs, out)

    return handle


def _is_weight(value: Any, images: int) -> bool:
    """Whether a value is a parameter, a buffer or a constant, or a view of one."""
    while value.node().kind().removeprefix("aten::") in _VIEWS:
        value = next(value.node().inputs())
    node = value.node()
    if node.kind() == "prim::Param":
        given = [given.debugName() for given in node.outputs()]
        return value.debugName() not in given[:images]
    return bool(node.kind() == "prim::Constant")


def _recurrent(name: str) -> Handle:
    """Each matrix of a recurrent layer multiplies each position of its sequences once."""

    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        positions = elements(inputs[0]) // get_shape(inputs[0])[-1]
        *_, weights = (v for v in inputs if v.node().kind() == "prim::ListConstruct")
        shapes = [get_shape(weight) for weight in weights.node().inputs()]
        matrices = sum(prod(shape) for shape in shapes if len(shape) == 2)
        return _weighted(name, positions * matrices, elements(outputs[0]))

    return handle


def _convolution(transposed: Callable[[list[Any]], bool]) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        shapes = [get_shape(value) for value in (*inputs[:2], outputs[0])]
        macs = int(conv_flop_count(*shapes, transposed=transposed(inputs)))
        return _weighted("conv", macs, elements(outputs[0]))

    return handle


def _convolution_in_time(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    length, channels, _ = get_shape(inputs[1])
    out = elements(outputs[0])
    return _weighted("conv", out * length * channels, out)


def _bilinear(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Each weight once a position."""
    out = elements(outputs[0])
    return _weighted("bilinear", out * prod(get_shape(inputs[2])[1:]), out)


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """What attention that is written out costs: two products with a softmax between them.

    Causal and masked attention count in full. Elements put out are the scores and the output.
    """
    query, key, value = (get_shape(v) for v in inputs[:3])
    scores = prod(query[:-1]) * key[-2]
    counted = scores * (query[-1] + value[-1])
    out = scores + elements(outputs[0])
    return _weighted("scaled_dot_product_attention", counted, out) + Counter(softmax=scores)


def _distances(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """One MAC for each difference, in each pair of points."""
    length = get_shape(inputs[0])[-1]
    out = elements(outputs[0])
    counted = _weighted("cdist", out * length, out)
    counted[PRODUCTS] += 2 * out  # torch multiplies rows that are longer by their norm and by 1
    return counted


def _tensordot(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    shape = get_shape(inputs[0])
    out = elements(outputs[0])
    return _weighted("tensordot", out * prod(shape[d] for d in _integers(inputs[2])), out)


def _einsum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """The products of pairs, in the order in which torch takes them."""
    shapes = [get_shape(value) for value in inputs[1].node().inputs()]
    path = _integers(inputs[2]) if len(inputs) > 2 else []
    out = elements(outputs[0])
    sizes = _pair_sizes(inputs[0].toIValue(), shapes, path)
    if not sizes:
        return Counter()
    products = sum(size for size, contracted in sizes if contracted)
    elementwise = sum(size for size, contracted in sizes if not contracted)
    return _weighted("einsum", products, out) + Counter(mul=elementwise)


def _pair_sizes(
    equation: str, shapes: Sequence[Sequence[int]], path: Sequence[int]
) -> list[tuple[int, bool]]:
    """For each pair of operands the number of products, and whether any are added up."""
    terms, size = _letters(equation, shapes)
    *operands, result = terms
    left: list[set[str]] = [set(operand) for operand in operands]
    found = []
    for first, second in _pairs(path, len(operands)):
        a, b = left[first], left[second]
        rest = [term for n, term in enumerate(left) if n not in (first, second)]
        needed = set(result).union(*rest)
        # A letter that one operand alone has, and nothing else needs, is added up before.
        together = {letter for letter in a | b if letter in needed or letter in a & b}
        found.append((prod(size[letter] for letter in together), not together <= needed))
        left = [*rest, together & needed]
    return found


def _pairs(path: Sequence[int], operands: int) -> Iterator[tuple[int, int]]:
    """The positions of each pair among the operands that are left; a result goes to the end.

    Without a path, torch goes from left to right.
    """
    if path:
        yield from zip(path[::2], path[1::2], strict=True)
    elif operands > 1:
        yield 0, 1
        yield from ((left - 1, 0) for left in range(operands - 1, 1, -1))


def _letters(equation: str, shapes: Sequence[Sequence[int]]) -> tuple[list[str], dict[str, int]]:
    """A letter for each dimension of each operand and of the result, and each letter's size."""
    given, arrow, result = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    unnamed = [len(s) - len(t.replace("...", "")) for s, t in zip(shapes, terms, strict=True)]
    dots = max(unnamed)
    spelled = [t.replace("...", _dots(n, dots)) for n, t in zip(unnamed, terms, strict=True)]
    size: dict[str, int] = {}
    for term, shape in zip(spelled, shapes, strict=True):
        for letter, side in zip(term, shape, strict=True):
            size[letter] = max(size.get(letter, 1), side)
    joined = "".join(spelled)
    once = "".join(letter for letter in size if joined.count(letter) == 1 and letter.isalpha())
    implied = _dots(dots, dots) + once
    return [*spelled, result.replace("...", _dots(dots, dots)) if arrow else implied], size


def _dots(count: int, of: int) -> str:
    """Digits that stand for the dimensions of `...`: the last `count` of `of`."""
    return "".join(str(n) for n in range(of - count, of))


def _integers(value: Any) -> list[int]:
    """A list of integers of the graph; none for None."""
    if value.node().kind() == "prim::ListConstruct":
        return [item.toIValue() for item in value.node().inputs()]
    return value.toIValue() or []


WEIGHTED: dict[str, Handle] = {
    "aten::_convolution": _convolution(lambda inputs: bool(inputs[6].toIValue())),
    "aten::_convolution_mode": _convolution(lambda _inputs: False),
    "aten::conv_tbc": _convolution_in_time,
    "torchvision::deform_conv2d": _convolution(lambda _inputs: False),
    "aten::linear": _product("linear", 0),
    "aten::bilinear": _bilinear,
    "aten::einsum": _einsum,
    "aten::tensordot": _tensordot,
    "aten::cdist": _distances,
    "aten::scaled_dot_product_attention": _attention,
}
"""The handles of operators with weights or products of their own kind."""
