"""The decode layer: attention over a paged FP8 cache, W_O, norm and an NVFP4 MLP, one call
a layer.

    layer = jitc.decode.DecodeLayer(jit, max_tokens=8, accumulate="mma", weight_layout="packed64")
    codes, scales = layer.pack("gate", codes, scales, linear=True)     # of a checkpoint
    step = layer.bind(query=query, kv_cache=cache, ..., softmax_scale=0.0625)
    step(3)                                   # a step of three tokens, on the current stream

docs/LAYER.md says what the layer computes. Nothing here imports torch before memory is
allocated by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _jitc
from ._errors import ArgumentError, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Allocate = Callable[[tuple[int, ...], str], Any]
    # Memory by name, type and shape.
    Workspace = dict[tuple[str, str, tuple[int, ...]], Any]

__all__ = ["BoundLayer", "DecodeLayer"]

# Written for the next kernel alone.
_SCRATCH = ("wo_output",)

_MATRICES = {
    "wo": ("hidden", None, "wo_packed"),
    "gate": ("intermediate", "hidden", "mlp_packed"),
    "up": ("intermediate", "hidden", "mlp_packed"),
    "down": ("hidden", "intermediate", "mlp_packed"),
}


def _by_torch(device: int) -> Allocate:
    import torch  # type: ignore[import-not-found, unused-ignore]

    dtypes = {
        "bf16": torch.bfloat16,
        "f32": torch.float32,
        "u8": torch.uint8,
        "u32": torch.uint32,
        "e4m3": torch.float8_e4m3fn,
    }

    def allocate(shape: tuple[int, ...], dtype: str) -> Any:
        # Some types have no zeros of their own: all are made of bytes.
        made = dtypes[dtype]
        count = made.itemsize
        for dim in shape:
            count *= dim
        return torch.zeros(count, dtype=torch.uint8, device=f"cuda:{device}").view(made).reshape(shape)

    return allocate


class DecodeLayer:
    """Kernels of one layer, loaded: those for several numbers of tokens.

    Args:
        jit: the engine, whose settings may name a preset.
        max_tokens: tokens of the largest step.
        tokens_per_pass: numbers of tokens that share a pass over the weights, a kernel each:
            1, 2, 4, 8.
        path: ``cooperative`` (one launch), ``separate`` (five, same bits), or ``auto``, which
            has both and takes the cooperative one where its grid is resident at once.
        device: the GPU, by default the current one.
        constants: of the family ``decode_layer``: ``jitc families decode_layer``. With
            ``dependent`` the bits are the same, and launches still follow one another.

    Raises:
        SpecError: a constant that cannot be.
        LoadError: a kernel that cannot be launched on this GPU.
    """

    def __init__(
        self,
        jit: _jitc.Jit,
        *,
        max_tokens: int,
        tokens_per_pass: Sequence[int] = (1, 2, 4, 8),
        path: str = "auto",
        device: int | None = None,
        **constants: Any,
    ) -> None:
        launches = {"auto": ("cooperative", "separate"), "coop": ("cooperative",), "lite": ("separate",)}
        launches |= {"cooperative": ("cooperative",), "separate": ("separate",)}
        if path not in launches:
            raise ArgumentError(f"path {path!r}: expected auto, cooperative or separate", parameter="path")
        if max_tokens < 1:
            raise ArgumentError("max_tokens: expected at least 1", parameter="max_tokens")
        # A pass for more tokens than there ever are wins nothing.
        passes = sorted(tokens_per_pass)
        passes = [n for at, n in enumerate(passes) if at == 0 or passes[at - 1] < max_tokens]
        self.max_tokens = max_tokens
        self.path = path
        self.kernels: list[_jitc.Kernel] = [
            jit.load("decode_layer", device=device, launch=launch, tokens_per_pass=tokens, **constants)
            for launch in launches[path]
            for tokens in passes
        ]
        self.facts = [_jitc.layer_facts(kernel) for kernel in self.kernels][0]
        self._jit = jit

    def choose(self, num_tokens: int) -> tuple[_jitc.Kernel, str]:
        """The kernel that runs a step of so many tokens, and why.

        Raises:
            LoadError: none does; the reason is the message.
        """
        place, why = _jitc.choose(self.kernels, num_tokens, self.max_tokens, self.path)
        if place is None:
            raise LoadError(f"decode_layer: {num_tokens} tokens: {why}")
        return self.kernels[place], why

    def pack(self, matrix: str, codes: Any, scales: Any, *, linear: bool = False) -> tuple[Any, Any]:
        """A matrix as checkpoints have it, in the layout that the kernels read.

        Args:
            matrix: ``wo``, ``gate``, ``up`` or ``down``.
            codes: u8 ``[rows, k / 2]``, even k in the low nibble: bytes, or a torch tensor.
            scales: E4M3, a scale for 16 codes: row by row if ``linear``, else in swizzled
                tiles of 128 rows; bytes, or a torch tensor of one byte an element.

        Returns:
            Codes and scales: bytes of bytes, tensors of tensors, on the same device.
        """
        if matrix not in _MATRICES:
            raise ArgumentError(f"matrix {matrix!r}: expected wo, gate, up or down", parameter="matrix")
        rows_of, k_of, packed = _MATRICES[matrix]
        facts = self.facts
        rows = facts[rows_of]
        k = facts[k_of] if k_of else facts["num_q_heads"] * facts["head_dim"]
        if not facts[packed]:
            raise ArgumentError(f"`{matrix}` is read as checkpoints have it: nothing to pack", parameter="matrix")
        if isinstance(codes, bytes):
            return _jitc.pack_weight(codes, scales, rows, k, linear)
        import torch  # type: ignore[import-not-found, unused-ignore]

        if codes.is_cuda:
            kernel = self._jit.load("pack", device=codes.device.index, rows=rows, k=k, linear_scales=linear)
            given = scales.view(torch.float8_e4m3fn).reshape(-1)
            out = torch.empty_like(codes), torch.empty(rows * k // 16, dtype=given.dtype, device=codes.device)
            kernel(codes, given, *out)
            return out
        as_bytes = [bytes(t.contiguous().view(torch.uint8).reshape(-1).numpy()) for t in (codes, scales)]
        made = _jitc.pack_weight(as_bytes[0], as_bytes[1], rows, k, linear)
        packed_codes, packed_scales = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in made)
        return packed_codes.reshape(rows, k // 2), packed_scales.view(torch.float8_e4m3fn)

    def bind(
        self, *, allocate: Allocate | None = None, share: BoundLayer | None = None, **tensors: Any
    ) -> BoundLayer:
        """Checks all tensors once, for steps of up to ``max_tokens`` tokens.

        Args:
            allocate: makes zeroed memory of a shape and a type (``bf16``, ``f32``, ``u8``,
                ``u32``, ``e4m3``) on the GPU, for the workspace; torch unless it is given.
            share: works in that one's workspace, as layers do that run one after another.
            tensors: the declared parameters of ``decode_layer`` but the workspace, each with
                room for ``max_tokens``; ``max_pages`` and the strides of the cache are those
                of ``page_table`` and ``kv_cache`` unless they are given.

        A workspace serves one launch at a time: streams that run side by side bind one each.

        Raises:
            ArgumentError: what is not as declared; it is named.
        """
        facts = self.facts
        half = facts["page_size"] * facts["num_kv_heads"] * facts["head_dim"]
        tensors.setdefault("kv_half_stride", half)
        tensors.setdefault("kv_page_stride", 2 * half)
        if "page_table" in tensors:
            tensors.setdefault("max_pages", tensors["page_table"].shape[1])
        if allocate is None:
            allocate = _by_torch(self.kernels[0].device)
        made: Workspace = dict(share._workspace) if share else {}
        bound: list[_jitc.BoundKernel] = []
        for kernel in self.kernels:
            own = dict(tensors)
            for name, _, access in kernel.params:
                if name in own or name in kernel.optional or not (access == "workspace" or name in _SCRATCH):
                    continue
                dtype, dims = kernel.shape(name, num_tokens=self.max_tokens)
                key = name, dtype, tuple(dim or 0 for dim in dims)
                if key not in made:
                    made[key] = allocate(key[2], dtype)
                own[name] = made[key]
            bound.append(kernel.bind(num_tokens=self.max_tokens, **own))
        chosen = [self.kernels.index(self.choose(n)[0]) for n in range(1, self.max_tokens + 1)]
        return BoundLayer([bound[at] for at in chosen], made)


class BoundLayer:
    """A layer with its tensors and its workspace, which it holds."""

    def __init__(self, by_tokens: list[_jitc.BoundKernel], workspace: Workspace) -> None:
        self._by_tokens = by_tokens
        self._workspace = workspace

    def __call__(self, num_tokens: int, *, stream: Any = None) -> None:
        """Launches the layer for the first ``num_tokens`` tokens. Captured in a graph like any
        launch.

        Raises:
            ArgumentError: more tokens than there is room for, or none.
        """
        if not 1 <= num_tokens <= len(self._by_tokens):
            raise ArgumentError(
                f"num_tokens = {num_tokens}: it was bound for 1 to {len(self._by_tokens)}", parameter="num_tokens"
            )
        self._by_tokens[num_tokens - 1](num_tokens, stream=stream)
