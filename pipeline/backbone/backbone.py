"""One frozen masked language model, shared by every classifier of a run.

``Backbone.view()`` gives a new module tree around the same tensors, so teacher and student can each wrap the
modules of their own tree while the weights exist once in memory. ``Identity`` tells one backbone from another in
terms that hold in another folder and another precision.
"""

from __future__ import annotations

import copy
import ctypes
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from listflow.data.errors import InputError
from listflow.data.schema import Section
from listflow.pipeline.backbone.families import family_of
from listflow.pipeline.backbone.pretrained import UPDATES, base_layers, is_embedded, load_minilm, load_pretrained

Precision = Literal["auto", "fp32", "bf16"]


class Backbone(nn.Module):
    """A frozen masked LM with its tokenizer. ``name`` is what the user asked for.

    Without ``has_head`` its masked-LM head was drawn at random, and belongs neither to its checksum nor to its size.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, has_head: bool = True) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.has_head = has_head
        self.family = family_of(model.config)
        # What was made of its weights for finished models that share them (model/arithmetic.py).
        self.maps: dict[Any, Any] = {}

    @property
    def hidden_size(self) -> int:
        """D, the width of its layers; families with a narrower embedding widen it first."""
        return int(self.model.config.hidden_size)

    @property
    def max_length(self) -> int:
        """Tokens that the position table holds; families with relative positions state their training length."""
        limit = int(self.model.config.max_position_embeddings)
        return limit - 1 - self.model.base_model.embeddings.padding_idx if self.family.counts_from_pad else limit

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.word_rows.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its layers' parameters."""
        return next(self.layer(0).parameters()).dtype

    @property
    def word_rows(self) -> Tensor:
        """The (vocabulary, D) matrix that the masked-LM decoder is tied to."""
        return self.model.get_input_embeddings().weight

    @property
    def dtype_name(self) -> str:
        """``float32`` or ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    def layer(self, index: int) -> nn.Module:
        """The layer of that number, from 0 upward, of the backbone's own tree."""
        return self._layers[index]

    @property
    def n_layers(self) -> int:
        """How many layers a text passes, each time that one is run counted."""
        return len(self._layers)

    @property
    def _layers(self) -> list[nn.Module]:
        """Those of its own tree, in the order in which they run."""
        found = list(self.model.get_submodule(self.family.layers))
        if not self.family.shares_layers:
            return found
        runs = int(self.model.config.num_hidden_layers)
        return [layer for run in range(runs) for layer in found[run * len(found) // runs].albert_layers]

    def parameter_count(self) -> int:
        """How many numbers were loaded."""
        return sum(p.numel() for p in self._loaded.parameters())

    def require_head(self, reader: str) -> None:
        """Returns where there is a trained masked-LM head; InputError that names its ``reader`` otherwise."""
        if not self.has_head:
            raise InputError(
                f"backbone '{self.name}' is an encoder without a masked-LM head, which {reader} needs; use head "
                "ytuning or linear, or train a head for it with `listflow adapt`."
            )

    def view(self) -> nn.Module:
        """A new encoder tree (no masked-LM head) around the very same tensors; safe to wrap modules in."""
        shared = {id(t): t for t in (*self.model.parameters(), *self.model.buffers())}
        return _copied(self.model.base_model, shared)

    @cached_property
    def untouched(self) -> nn.Module:
        """The encoder as its makers left it: a view, whose layers are the package's own for the embedded backbone.

        There it takes 42 MB more in fp32: the update that made a masked LM of it changes every layer.
        """
        view = self.view()
        if is_embedded(self.name):
            own = {name: value.to(self.device, self.dtype) for name, value in base_layers().items()}
            view.load_state_dict(own, strict=False, assign=True)
        return view.eval().requires_grad_(False)

    @property
    def layers_in_view(self) -> str:
        """Path of the layer list inside ``view()``, or inside what ``layers.py`` makes of it."""
        return "encoder.layer" if self.family.own else self.family.layers.split(".", 1)[1]

    def checksum(self, dtype: torch.dtype | None = None) -> str:
        """sha256 over the bytes of every parameter that was loaded, in name order, as if it were of ``dtype``."""
        total = hashlib.sha256()
        for name, parameter in sorted(self._loaded.named_parameters()):
            total.update(name.encode())
            total.update(
                parameter.detach().to(dtype or parameter.dtype).contiguous().view(torch.uint8).cpu().numpy().data
            )
        return total.hexdigest()

    def identity(self) -> Identity:
        """What tells its parameters from those of another backbone, in whatever precision either is loaded."""
        own = self.checksum()
        rounded = own if self.dtype == torch.bfloat16 else self.checksum(torch.bfloat16)
        return Identity(dtype=self.dtype_name, checksum=own, rounded=rounded)

    def settings(self) -> str:
        """What the model does with its parameters, as JSON; not where it was loaded from, nor by which version."""
        aside = {"_name_or_path", "name_or_path", "transformers_version", "architectures"}
        known = {name: value for name, value in self.model.config.to_dict().items() if name not in aside}
        return json.dumps(known, sort_keys=True, default=str)

    @property
    def _loaded(self) -> nn.Module:
        """Its parts that were read from files."""
        return self.model if self.has_head else self.model.base_model


def _copied(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What ``copy.deepcopy`` makes, in a third of its time: it would ask of each empty table of hooks what it is."""
    if id(module) in memo:
        found: nn.Module = memo[id(module)]
        return found
    new = memo[id(module)] = module.__class__.__new__(module.__class__)
    for name, value in vars(module).items():
        if name == "_modules":
            vars(new)[name] = {key: _copied(part, memo) if part is not None else None for key, part in value.items()}
        else:
            is_empty = isinstance(value, dict) and not value
            vars(new)[name] = value.copy() if is_empty else copy.deepcopy(value, memo)
    return new


def load_backbone(name: str, precision: Precision = "auto", device: str = "auto") -> Backbone:
    """A frozen ``Backbone`` from ``minilm`` or ``minilm-2`` (embedded), an update of them, a folder, or a hub id.

    Raises InputError when the folder or hub id cannot be read, is of a family that this project does not know, or
    when a file of the embedded backbone is not the one it was made for. A masked-LM head may be missing.
    """
    has_head = True
    if is_embedded(name):
        model, tokenizer = load_minilm(name)
    else:
        model, tokenizer, has_head = load_pretrained(name)
    one_thread_after_fork()
    where = torch.device(resolve_device(device))
    dtype = torch.bfloat16 if resolve_precision(precision, where.type) == "bf16" else torch.float32
    if where.type == "cpu":
        # On CPUs the fused attention kernel's backward is about twice as slow as plain matmuls at these lengths.
        model.set_attn_implementation("eager")
        keep_freed_memory()
    return Backbone(model.to(device=where, dtype=dtype), tokenizer, name, has_head)


def absolute_backbone(name: str) -> str:
    """What ``load_backbone`` knows as ``name``, from any folder: the whole path of a local folder or file."""
    path = Path(name).expanduser()
    return str(path.resolve()) if name not in UPDATES and path.exists() else name


def resolve_precision(precision: Precision, device: str = "cpu") -> Literal["fp32", "bf16"]:
    """``auto`` is bf16 where the hardware multiplies it natively, else fp32."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def resolve_device(device: str) -> str:
    """``auto`` is cuda where there is one, else cpu."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


class Identity(Section):
    """Type and checksum of a backbone's parameters, and the checksum of what they round to in bfloat16.

    The latter is empty in records of earlier versions. ``text`` is that of the text face, where a model reads it.
    """

    dtype: str
    checksum: str
    rounded: str = ""
    text: str = ""

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        """What a ``record`` says of it, among other things."""
        return cls.model_validate({name: record[name] for name in cls.model_fields if name in record})

    def is_of(self, other: Identity) -> bool:
        """Whether both are of one backbone; between two types, as far as the coarser one can tell.

        bfloat16 is made of float32 by rounding, and nothing gives the lost bits back. True where a record lacks what it
        would take to tell.
        """
        if self.text and other.text and self.text != other.text:
            return False
        if self.dtype == other.dtype:
            return self.checksum == other.checksum
        return not (self.rounded and other.rounded) or self.rounded == other.rounded


# Of glibc's malloc.h, and bytes.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT, KEPT_IN_ALL = 64 * 2**20, 256 * 2**20


def keep_freed_memory() -> None:
    """Freed blocks of up to 64 MiB stay with this process until 256 MiB of them lie together; on other C libraries
    than glibc nothing is changed.

    Otherwise each large tensor is mapped afresh, and the kernel fills it with zeros first: some percent of the time,
    and a third of labelling in a dask worker, whose environment (MALLOC_TRIM_THRESHOLD_) forbids to keep anything.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_IN_ALL)


@cache
def one_thread_after_fork() -> None:
    """From now on a process that is forked from this one computes with one thread; this one keeps its own.

    A fork takes no thread along but the one that forks, and OpenMP does not know it: the first operation that is split
    among threads would wait for the others for ever.
    """
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))
