"""Operations that torch fuses for speed where nothing needs a gradient, written out in those that plans have."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


def attention(
    x: Any, heads: int, qkv: tuple[Any, Any], out: tuple[Any, Any], mask: Any = None, mask_type: int | None = None
) -> Any:
    """Self-attention of (batch, length, width); ``mask`` is true where not to look: (length, length), or by key where its
    type is 1. Vaswani et al. 2017, section 3.2."""  # noqa: D209
    batch, length, width = x.shape
    q, k, v = (t.reshape(batch, length, heads, width // heads).transpose(1, 2) for t in F.linear(x, *qkv).chunk(3, dim=-1))
    if mask is not None:
        if mask_type == 1:
            mask = mask.reshape(batch, 1, 1, length)
        mask = torch.zeros_like(mask, dtype=x.dtype).masked_fill(mask.bool(), float("-inf"))
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return F.linear(found.transpose(1, 2).reshape(batch, length, width), *out)


def encoder_layer(
    src: Any, width: int, heads: int, qkv_weight: Any, qkv_bias: Any, proj_weight: Any, proj_bias: Any, gelu: bool,
    norm_first: bool, eps: float, norm_weight_1: Any, norm_bias_1: Any, norm_weight_2: Any, norm_bias_2: Any,
    ffn_weight_1: Any, ffn_bias_1: Any, ffn_weight_2: Any, ffn_bias_2: Any, mask: Any = None, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """`nn.TransformerEncoderLayer` without dropout."""

    def attend(x: Any) -> Any:
        return attention(x, heads, (qkv_weight, qkv_bias), (proj_weight, proj_bias), mask, mask_type)

    def forward(x: Any) -> Any:
        inner = F.linear(x, ffn_weight_1, ffn_bias_1)
        return F.linear(F.gelu(inner) if gelu else F.relu(inner), ffn_weight_2, ffn_bias_2)

    def first(x: Any) -> Any:
        return F.layer_norm(x, (width,), norm_weight_1, norm_bias_1, eps)

    def second(x: Any) -> Any:
        return F.layer_norm(x, (width,), norm_weight_2, norm_bias_2, eps)

    if norm_first:
        x = src + attend(first(src))
        return x + forward(second(x))
    x = first(src + attend(src))
    return second(x + forward(x))


def multi_head_attention(
    query: Any, key: Any, value: Any, width: int, heads: int, qkv_weight: Any, qkv_bias: Any, proj_weight: Any, proj_bias: Any,
    mask: Any = None, need_weights: bool = True, average: bool = True, mask_type: int | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """`nn.MultiheadAttention` on one sequence, with its weights where they are wanted."""
    found = attention(query, heads, (qkv_weight, qkv_bias), (proj_weight, proj_bias), mask, mask_type)
    if not need_weights:
        return found, None
    batch, length, _ = query.shape
    q, k, _ = (
        t.reshape(batch, length, heads, width // heads).transpose(1, 2)
        for t in F.linear(query, qkv_weight, qkv_bias).chunk(3, dim=-1)
    )
    scores = q @ k.transpose(-2, -1) / (width // heads) ** 0.5
    if mask is not None:
        scores = scores.masked_fill(mask.reshape(batch, 1, 1, length) if mask_type == 1 else mask.bool(), float("-inf"))
    weights = scores.softmax(-1)
    return found, weights.mean(1) if average else weights


def lstm_layer(x: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, h: Any, c: Any, reverse: bool) -> tuple[Any, Any, Any]:
    """One layer of an LSTM, in one direction: x (length, batch, inputs), h and c (batch, hidden). Gives outputs, last h and c.

    Hochreiter and Schmidhuber 1997, with forget gates (Gers et al. 2000). Torch's order of gates: input, forget, cell, output.
    """
    inputs, outs = F.linear(x, w_ih, b_ih), [None] * x.shape[0]
    for t in reversed(range(len(outs))) if reverse else range(len(outs)):
        i, f, g, o = (inputs[t] + F.linear(h, w_hh, b_hh)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        outs[t] = h = o.sigmoid() * c.tanh()
    return torch.stack(outs), h, c


def mkldnn_lstm(
    x: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, h: Any, c: Any, reverse: bool, batch_sizes: Any, mode: int,
    hidden_size: int, num_layers: int, has_biases: bool, bidirectional: bool, batch_first: bool, train: bool,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """What torch makes of each layer of `nn.LSTM` on a CPU; the last of its results is for oneDNN alone."""
    shape = h.shape
    if not has_biases:  # what stands in their place is as large as the weights
        b_ih = b_hh = None
    outs, last, cell = lstm_layer(x, w_ih, w_hh, b_ih, b_hh, h.reshape(shape[-2:]), c.reshape(shape[-2:]), reverse)
    return outs, last.reshape(shape), cell.reshape(shape), x.new_zeros(0)


def mkldnn_lstm_backward(
    x: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, h: Any, c: Any, output: Any, hy: Any, cy: Any, grad_output: Any,
    grad_hy: Any, grad_cy: Any, reverse: bool, mode: int, hidden_size: int, num_layers: int, has_biases: bool, *_: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Its gradients: the layer is computed again and differentiated, so that nothing is kept between the two."""
    shape = h.shape
    with torch.overrides.enable_reentrant_dispatch(), torch.enable_grad():
        leaves = [t.detach().requires_grad_(True) for t in (x, w_ih, w_hh, h, c, *((b_ih, b_hh) if has_biases else ()))]
        first, second = (t.reshape(shape[-2:]) for t in leaves[3:5])
        with_bias = leaves[5:] or [None, None]
        outs = lstm_layer(leaves[0], leaves[1], leaves[2], with_bias[0], with_bias[1], first, second, reverse)
        given = [(o, g.reshape(o.shape)) for o, g in zip(outs, (grad_output, grad_hy, grad_cy), strict=True) if g is not None]
        dx, dw_ih, dw_hh, dh, dc, *db = torch.autograd.grad([o for o, _ in given], leaves, [g for _, g in given])
    db_ih, db_hh = db or (torch.zeros_like(b_ih), torch.zeros_like(b_hh))
    return dx, dw_ih, dw_hh, db_ih, db_hh, dh, dc
