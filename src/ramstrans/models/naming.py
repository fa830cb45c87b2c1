"""Give tensors of a file timm's names, by the layout that their names are of."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ramstrans.errors import WeightsError
from ramstrans.models.layouts import LAYOUTS, Layout

Tensors = dict[str, Tensor]

STEMS = (
    *(
        "patch_embed.proj.weight",
        "embeds.proj.weight",
        "stem.0.weight",
        "conv_stem.weight",
        "stem.conv.weight",
    ),
    *("conv1.weight", "stem.conv1.weight", "stem_0.conv.weight"),
)
"""First tensors of timm's families: what stands before them is a prefix, whatever the model asked for."""

PREFERRED = ("ema", "teacher")
"""Words in the prefix of the better one of two equal networks."""


class Named(NamedTuple):
    """Tensors by timm's names.

    Attributes:
        tensors: The tensors.
        origin: The names in the file, of those that were renamed or joined.
        layout: Where the names came from; None if they were timm's.
    """

    tensors: Tensors
    origin: dict[str, tuple[str, ...]]
    layout: str | None


def to_timm(tensors: Tensors, own: Collection[str], source: str) -> Named:
    """Rename tensors to timm's names, and take off what stands before them.

    A name that the model has itself is not renamed, and one that is taken keeps its prefix.

    Args:
        tensors: As they are in the file.
        own: Names of the model's tensors.
        source: The file, for errors.

    Raises:
        WeightsError: There are several networks of equal size.
    """
    layout, prefix = _recognised(tensors, source)
    if layout is None:
        prefix = _common_prefix(tensors, own, source)
    short = _without_prefix(tensors, prefix)
    rules = LAYOUTS[layout] if layout else Layout("")
    named, origin = Tensors(), dict[str, tuple[str, ...]]()
    for key, old in short.items():
        new = key if key in own else _renamed(key, old.startswith(prefix), rules)
        if new in named:
            new = old
        named[new] = tensors[old]
        if new != key:
            origin[new] = (old,)
    return _joined(Named(named, origin, layout), own)


def _recognised(tensors: Tensors, source: str) -> tuple[str | None, str]:
    """The first layout that matches, and the prefix before its names."""
    for name, layout in LAYOUTS.items():
        found = [key.removesuffix(layout.root) for key in tensors if _ends_with(key, layout.root)]
        fitting = [
            start
            for start in found
            if layout.matches(key[len(start) :] for key in tensors if key.startswith(start))
        ]
        if fitting:
            return name, _only(Counter(fitting), source)
    return None, ""


def _common_prefix(tensors: Tensors, own: Collection[str], source: str) -> str:
    """What stands before most names of the model, or of any of timm's."""
    for names in (own, STEMS):
        found = Counter[str]()
        for key in tensors:
            ends = [0, *(match.end() for match in re.finditer(r"\.", key))]
            end = next((end for end in ends if key[end:] in names), None)
            if end is not None:
                found[key[:end]] += 1
        if found and (names is STEMS or max(found.values()) >= min(len(own), len(tensors)) / 4):
            return _only(found, source)
    return ""


def _only(found: Counter[str], source: str) -> str:
    """The prefix of most names; of several, an outer one, or one that says it is an average or a teacher."""
    most = max(found.values())
    best = sorted((prefix for prefix, count in found.items() if count == most), key=len)
    if all(prefix.startswith(best[0]) for prefix in best):
        return best[0]
    better = [prefix for prefix in best if any(word in prefix for word in PREFERRED)]
    if len(better or best) > 1:
        raise WeightsError(
            f"{source} holds several networks, {', '.join(best)}; save the state dict of one of them alone"
        )
    return (better or best)[0]


def _ends_with(key: str, name: str) -> bool:
    return key == name or key.endswith(f".{name}")


def _without_prefix(tensors: Tensors, prefix: str) -> dict[str, str]:
    """Names without the prefix, or the part of it that they share, such as a head's beside the network."""
    outer = [prefix[: end + 1] for end in reversed(range(len(prefix))) if prefix[end] == "."]
    short: dict[str, str] = {}
    for key in sorted(tensors, key=lambda key: key.startswith(tuple(outer))):
        name = next((key.removeprefix(start) for start in outer if key.startswith(start)), key)
        short[key if name in short else name] = key
    return short


def _renamed(key: str, inside: bool, layout: Layout) -> str:
    """A name by timm, of a tensor inside the network or beside it."""
    for old, new in layout.head.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    if not inside:
        return key
    for pattern, replacement in layout.renames.items():
        key = re.sub(pattern, replacement, key)
    return layout.keep + key


def _joined(named: Named, own: Collection[str]) -> Named:
    """Join and split tensors of a foreign layout as the model has them."""
    if named.layout is None:
        return named
    parts = Parts(dict(named.tensors), dict(named.origin), own)
    for key in list(named.tensors):
        for pattern, join in JOINS.items():
            if match := re.fullmatch(pattern, key):
                join(parts, match)
    return Named(parts.tensors, parts.origin, named.layout)


class Parts(NamedTuple):
    """Tensors while they are joined; `own` are the names of the model's."""

    tensors: Tensors
    origin: dict[str, tuple[str, ...]]
    own: Collection[str]

    def put(self, new: str, olds: Iterable[str], value: Tensor) -> None:
        """Replace tensors by another one that was made of them."""
        olds = list(olds)
        sources = tuple(name for old in olds for name in self.origin.pop(old, (old,)))
        for old in olds:
            self.tensors.pop(old, None)
        self.tensors[new], self.origin[new] = value, sources


def _join_attention(parts: Parts, match: re.Match[str]) -> None:
    """Name `block.q`, `.k` and `.v` as the model does: one `qkv`, or three projections."""
    block, (tensors, _, own) = match[1], parts
    names = {kind: [f"{block}.{part}.{kind}" for part in "qkv"] for kind in ("weight", "bias")}
    biases = [key for key in names["bias"] if key in tensors]
    if f"{block}.q_proj.weight" in own:
        for key in (*names["weight"], *biases):
            parts.put(re.sub(r"\.([qkv])\.(\w+)$", r".\1_proj.\2", key), [key], tensors[key])
        return
    weight = torch.cat([tensors[key] for key in names["weight"]])
    parts.put(f"{block}.qkv.weight", names["weight"], weight)
    if biases and (len(biases) == len("qkv") or f"{block}.qkv.bias" in own):
        zero = torch.zeros_like(tensors[biases[0]])
        joined = torch.cat([tensors.get(key, zero) for key in names["bias"]])
        parts.put(f"{block}.qkv.bias", biases, joined)
        return
    for key in biases:  # keys have none
        parts.put(re.sub(r"\.([qv])\.bias$", r".\1_bias", key), [key], tensors[key])


def _join_gate(parts: Parts, match: re.Match[str]) -> None:
    """Name `mlp.gate` and `.up` as the model does: `fc1`, of both, or `fc1_g` and `fc1_x`."""
    mlp, kind, tensors = match[1], match[2], parts.tensors
    gate, up = f"{mlp}.gate.{kind}", f"{mlp}.up.{kind}"
    if gate not in tensors:
        parts.put(f"{mlp}.fc1.{kind}", [up], tensors[up])
    elif f"{mlp}.fc1_g.{kind}" in parts.own:
        parts.put(f"{mlp}.fc1_g.{kind}", [gate], tensors[gate])
        parts.put(f"{mlp}.fc1_x.{kind}", [up], tensors[up])
    else:
        parts.put(f"{mlp}.fc1.{kind}", [gate, up], torch.cat([tensors[gate], tensors[up]]))


def _split_pool(parts: Parts, match: re.Match[str]) -> None:
    """Split the query of an attention pool from its keys and values."""
    query, keys, values = parts.tensors[match[0]].chunk(3)
    parts.put(f"attn_pool.q.{match[1]}", [match[0]], query)
    parts.put(f"attn_pool.kv.{match[1]}", [], torch.cat([keys, values]))


def _split_bias(parts: Parts, match: re.Match[str]) -> None:
    """Split DINOv3's bias; the third of the keys is masked there."""
    query, _, value = parts.tensors[match[0]].chunk(3)
    parts.put(f"{match[1]}.q_bias", [match[0]], query)
    parts.put(f"{match[1]}.v_bias", [], value)


def _as_rows(parts: Parts, match: re.Match[str]) -> None:
    """Give tokens and positions timm's three dimensions."""
    tensor = parts.tensors[match[0]]
    parts.tensors[match[0]] = tensor.reshape(1, -1, tensor.shape[-1])


def _as_vector(parts: Parts, match: re.Match[str]) -> None:
    parts.tensors[match[0]] = parts.tensors[match[0]].flatten()


def _as_linear(parts: Parts, match: re.Match[str]) -> None:
    """Rename a patch embedding that is a linear layer, as NaFlex has it."""
    if parts.tensors[match[0]].ndim == 2:
        for kind in ("weight", "bias"):
            parts.put(f"embeds.proj.{kind}", [name := f"patch_embed.proj.{kind}"], parts.tensors[name])


JOINS: dict[str, Callable[[Parts, re.Match[str]], None]] = {
    r"(.*\.attn)\.q\.weight": _join_attention,
    r"(.*\.mlp)\.up\.(weight|bias)": _join_gate,
    r"attn_pool\.qkv\.(weight|bias)": _split_pool,
    r"(.*\.attn)\.qv\.bias": _split_bias,
    r"(cls|dist|reg)_token|pos_embed": _as_rows,
    r".*\.(gamma|grn\.weight|grn\.bias)": _as_vector,
    r"patch_embed\.proj\.weight": _as_linear,
}
"""What is done with tensors of these names, once they are renamed."""
