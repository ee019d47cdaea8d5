"""The continuous transformer of εar-VAE in PyTorch, with the published attribute names.

Everything computes in the module's own dtype, rotary angles included, so that `.double()` gives a float64
run throughout (the published code casts the rotary embedding to float32).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from earvae_jax.model.config import FeedForwardConfig, NormConfig, TransformerConfig


class LayerNorm(nn.Module):
    """Layer normalisation; without `bias`, `beta` is a constant in the file that is still applied."""

    def __init__(self, dim: int, config: NormConfig):
        super().__init__()
        if config.fix_scale:
            self.register_buffer("gamma", torch.ones(dim))
        else:
            self.gamma = nn.Parameter(torch.ones(dim))
        if config.bias:
            self.beta = nn.Parameter(torch.zeros(dim))
        else:
            self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta, eps=1e-5)


class GatedLinear(nn.Module):
    """`x · silu(gate)`, where one linear layer yields x and gate, in that order."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.silu(gate)


class SequenceConv1d(nn.Conv1d):
    """A convolution over the middle axis of `[B, N, D]`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class FeedForward(nn.Module):
    """Two layers around a SiLU, gated by default; `ff.0` and `ff.2` carry the weights."""

    def __init__(self, dim: int, config: FeedForwardConfig):
        super().__init__()
        inner, bias, width = dim * config.mult, not config.no_bias, config.conv_kernel_size

        def layer(dim_in: int, dim_out: int) -> nn.Module:
            if config.use_conv:
                return SequenceConv1d(dim_in, dim_out, width, padding=width // 2, bias=bias)
            return nn.Linear(dim_in, dim_out, bias=bias)

        if config.glu:
            first: nn.Module = GatedLinear(dim, inner)
        else:
            first = nn.Sequential(nn.Identity(), layer(dim, inner), nn.SiLU())
        self.ff = nn.Sequential(first, nn.Identity(), layer(inner, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.ff(x)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotates the first `angles.shape[-1]` dims of `x` `[..., N, d]` and leaves the rest."""
    rotated, rest = x[..., : angles.shape[-1]], x[..., angles.shape[-1] :]
    first, second = rotated.chunk(2, dim=-1)
    turned = rotated * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()
    return torch.cat([turned, rest], dim=-1)


class Attention(nn.Module):
    """Unmasked multi-head self-attention with a fused projection and optional query/key normalisation."""

    def __init__(self, dim: int, dim_heads: int, qk_norm: str | None):
        super().__init__()
        self.dim_heads = dim_heads
        self.l2_norm = qk_norm == "l2"
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)
        if qk_norm == "ln":
            self.q_norm: nn.Module = nn.LayerNorm(dim_heads, eps=1e-6)
            self.k_norm: nn.Module = nn.LayerNorm(dim_heads, eps=1e-6)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def forward(self, x: Tensor, angles: Tensor | None) -> Tensor:
        # [B, N, D] -> three of [B, H, N, d]
        q, k, v = (t.unflatten(-1, (-1, self.dim_heads)).transpose(1, 2) for t in self.to_qkv(x).chunk(3, -1))
        if self.l2_norm:
            q, k = F.normalize(q, dim=-1, eps=1e-12), F.normalize(k, dim=-1, eps=1e-12)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(mixed.transpose(1, 2).flatten(-2))


class Conformer(nn.Module):
    """The conformer's convolution module: pointwise, gate, depthwise of width 17, pointwise."""

    def __init__(self, dim: int, config: NormConfig):
        super().__init__()
        self.in_norm = LayerNorm(dim, config)
        self.pointwise_conv = SequenceConv1d(dim, dim, 1, bias=False)
        self.glu = GatedLinear(dim, dim)
        self.depthwise_conv = SequenceConv1d(dim, dim, 17, padding=8, groups=dim, bias=False)
        self.mid_norm = LayerNorm(dim, config)
        self.pointwise_conv_2 = SequenceConv1d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.glu(self.pointwise_conv(self.in_norm(x)))
        return self.pointwise_conv_2(F.silu(self.mid_norm(self.depthwise_conv(x))))


class Rotary(nn.Module):
    """Angles `[N, d]` of the rotary embedding, with the same frequencies for both halves."""

    inv_freq: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / 10000.0 ** (torch.arange(0, dim, 2).float() / dim))

    def forward(self, length: int) -> Tensor:
        positions = torch.arange(length, device=self.inv_freq.device, dtype=self.inv_freq.dtype)
        angles = torch.outer(positions, self.inv_freq)
        return torch.cat([angles, angles], dim=-1)


class SinusoidalEmbedding(nn.Module):
    """Sine ‖ cosine of the positions, times a learned scale."""

    frequencies: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), dim**-0.5))
        half = dim // 2
        frequencies = 10000.0 ** -(torch.arange(half).float() / half)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, length: int) -> Tensor:
        positions = torch.arange(length, device=self.scale.device, dtype=self.scale.dtype)
        angles = torch.outer(positions, self.frequencies)
        return torch.cat([angles.sin(), angles.cos()], dim=-1) * self.scale


class AbsoluteEmbedding(nn.Module):
    """Learned positions, scaled by `dim^-½`."""

    def __init__(self, dim: int, max_length: int):
        super().__init__()
        self.emb = nn.Embedding(max_length, dim)

    def forward(self, length: int) -> Tensor:
        if length > self.emb.num_embeddings:
            raise ValueError(f"{length} latents exceed abs_pos_emb_max_length {self.emb.num_embeddings}")
        return self.emb.weight[:length] * self.emb.embedding_dim**-0.5


class Block(nn.Module):
    """Attention, optional conformer and feed-forward, each added to its input."""

    def __init__(self, dim: int, config: TransformerConfig):
        super().__init__()

        def norm() -> nn.Module:
            return nn.Identity() if config.remove_norms else LayerNorm(dim, config.norm_kwargs)

        self.pre_norm = norm()
        self.self_attn = Attention(dim, config.dim_heads, config.attn_kwargs.qk_norm)
        self.ff_norm = norm()
        self.ff = FeedForward(dim, config.ff_kwargs)
        self.conformer = Conformer(dim, config.norm_kwargs) if config.conformer else None
        # As published: every residual branch but the conformer's starts as zero.
        for parameter in [*self.self_attn.to_out.parameters(), *self.ff.ff[2].parameters()]:
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, angles: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.pre_norm(x), angles)
        if self.conformer is not None:
            x = x + self.conformer(x)
        return x + self.ff(self.ff_norm(x))


class Transformer(nn.Module):
    """The stack in front of the decoder; maps latents `[B, N, D]` to latents of the same shape."""

    def __init__(self, dim: int, config: TransformerConfig):
        super().__init__()
        self.layers = nn.ModuleList(Block(dim, config) for _ in range(config.depth))
        self.rotary_pos_emb = Rotary(config.rotary_dims) if config.rotary_pos_emb else None
        self.pos_emb: AbsoluteEmbedding | SinusoidalEmbedding | None
        if config.use_abs_pos_emb:
            self.pos_emb = AbsoluteEmbedding(dim, config.abs_pos_emb_max_length)
        elif config.use_sinusoidal_emb:
            self.pos_emb = SinusoidalEmbedding(dim)
        else:
            self.pos_emb = None

    def forward(self, x: Tensor) -> Tensor:
        angles = None if self.rotary_pos_emb is None else self.rotary_pos_emb(x.shape[1])
        if self.pos_emb is not None:
            x = x + self.pos_emb(x.shape[1])
        for layer in self.layers:
            x = layer(x, angles)
        return x
