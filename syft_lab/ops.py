"""The table of operations that plans may use, and why others are refused. The same on both sides; the owner's decides.

Only functions of their arguments are here: nothing that writes into an argument, reads a file, or whose result's shape
depends on values. What torch does in place is recorded as the function next to it (`functional`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from syft_lab.errors import PrivateValueError, RefusedOpError

POINTWISE = frozenset(
    "abs absolute neg negative positive exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan asin "
    "acos atan sinh cosh tanh asinh acosh atanh sigmoid erf erfc erfinv floor ceil round trunc frac sign sgn signbit "
    "relu relu6 hardtanh hardswish hardsigmoid leaky_relu elu celu selu silu gelu softplus mish threshold square "
    "isnan isinf isfinite isposinf isneginf logical_not bitwise_not lgamma digamma logit sinc i0 deg2rad rad2deg "
    "special_entr special_erfcx special_log_ndtr special_ndtri nan_to_num clamp clamp_min clamp_max conj "
    "_conj_physical conj_physical angle add sub mul div rsub pow remainder fmod floor_divide true_divide maximum "
    "minimum fmax fmin atan2 hypot copysign eq ne lt le gt ge logical_and logical_or logical_xor bitwise_and "
    "bitwise_or bitwise_xor __and__ __or__ __xor__ bitwise_left_shift bitwise_right_shift where lerp addcmul addcdiv "
    "xlogy special_xlog1py masked_fill heaviside logaddexp logaddexp2 threshold_backward sigmoid_backward "
    "tanh_backward gelu_backward silu_backward elu_backward leaky_relu_backward hardtanh_backward hardswish_backward "
    "hardsigmoid_backward softplus_backward mish_backward logit_backward _to_copy clone detach alias lift_fresh lift "
    "fill copy zero native_dropout_backward complex polar nextafter _prelu_kernel _prelu_kernel_backward hardshrink "
    "hardshrink_backward softshrink softshrink_backward igamma igammac polygamma lcm gcd special_i0e special_i1 "
    "special_i1e special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_modified_bessel_i0 "
    "special_modified_bessel_i1 special_modified_bessel_k0 special_modified_bessel_k1 "
    "special_scaled_modified_bessel_k0 special_scaled_modified_bessel_k1 special_spherical_bessel_j0 special_airy_ai "
    "special_zeta".split()
)
LOSSES = frozenset(
    "mse_loss mse_loss_backward smooth_l1_loss smooth_l1_loss_backward huber_loss huber_loss_backward "
    "binary_cross_entropy binary_cross_entropy_backward nll_loss_forward nll_loss_backward nll_loss2d_forward "
    "nll_loss2d_backward soft_margin_loss soft_margin_loss_backward log_sigmoid_forward log_sigmoid_backward "
    "multi_margin_loss binary_cross_entropy_with_logits".split()
)
REDUCTIONS = frozenset(
    "sum mean prod amax amin aminmax max min argmax argmin all any std var var_mean std_mean norm linalg_vector_norm "
    "logsumexp cumsum cumprod cummax cummin logcumsumexp count_nonzero median nanmedian kthvalue mode nansum sort "
    "topk argsort cumulative_trapezoid _softmax _log_softmax _softmax_backward_data _log_softmax_backward_data "
    "softmax log_softmax _safe_softmax renorm trace cummaxmin_backward glu glu_backward diff dist".split()
)
SHAPES = frozenset(
    "view _unsafe_view reshape permute transpose t expand squeeze unsqueeze select slice split "
    "split_with_sizes unsafe_split unsafe_split_with_sizes unbind cat stack flip roll repeat constant_pad_nd "
    "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "reflection_pad1d_backward reflection_pad2d_backward replication_pad1d_backward replication_pad2d_backward "
    "diagonal diag_embed tril triu unfold unfold_backward as_strided select_backward slice_backward diagonal_backward "
    "select_scatter slice_scatter diagonal_scatter as_strided_scatter view_as_real view_as_complex real imag _conj "
    "_neg_view resolve_conj resolve_neg movedim swapaxes rot90 pixel_shuffle pixel_unshuffle channel_shuffle im2col "
    "col2im tril_indices triu_indices expand_copy view_copy permute_copy alias_copy detach_copy unsqueeze_copy "
    "squeeze_copy transpose_copy t_copy select_copy slice_copy split_copy unbind_copy as_strided_copy diagonal_copy "
    "narrow_copy split_with_sizes_copy unfold_copy".split()
)
INDEXING = frozenset(
    "index_select index _unsafe_index gather scatter scatter_add scatter_reduce index_put _unsafe_index_put "
    "_index_put_impl index_add index_copy index_fill masked_scatter take put embedding embedding_dense_backward "
    "searchsorted bucketize index_reduce isin".split()
)
LINEAR = frozenset(
    "mm bmm addmm addmv mv dot vdot baddbmm addbmm addr outer ger linear linalg_cholesky_ex linalg_inv_ex linalg_solve_ex "
    "_linalg_solve_ex linalg_qr _linalg_svd _linalg_eigh linalg_eig linalg_lu_factor_ex linalg_lu linalg_lu_solve "
    "linalg_ldl_factor_ex _linalg_det _linalg_slogdet linalg_solve_triangular triangular_solve cholesky_inverse "
    "cholesky_solve linalg_householder_product linalg_matrix_exp linalg_cross linalg_lstsq linalg_pinv _cdist_forward "
    "_cdist_backward _euclidean_dist _pdist_forward _pdist_backward cross block_diag _fft_r2c _fft_c2c _fft_c2r "
    "fft_fftfreq".split()
)
LAYERS = frozenset(
    "convolution convolution_backward max_pool2d_with_indices max_pool2d_with_indices_backward "
    "max_pool3d_with_indices max_pool3d_with_indices_backward avg_pool2d avg_pool2d_backward avg_pool3d "
    "avg_pool3d_backward _adaptive_avg_pool2d _adaptive_avg_pool2d_backward _adaptive_avg_pool3d "
    "_adaptive_avg_pool3d_backward adaptive_max_pool2d avg_pool1d adaptive_avg_pool1d adaptive_max_pool2d_backward "
    "native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward "
    "_native_batch_norm_legit_functional _native_batch_norm_legit_no_training _native_batch_norm_legit "
    "native_batch_norm_backward _fused_rms_norm _fused_rms_norm_backward _thnn_fused_lstm_cell _thnn_fused_gru_cell "
    "upsample_nearest1d upsample_nearest2d upsample_bilinear2d upsample_bicubic2d upsample_nearest1d_backward "
    "upsample_nearest2d_backward upsample_bilinear2d_backward upsample_bicubic2d_backward upsample_linear1d "
    "upsample_linear1d_backward upsample_trilinear3d upsample_trilinear3d_backward upsample_nearest3d "
    "upsample_nearest3d_backward _weight_norm_interface _weight_norm_interface_backward grid_sampler_2d "
    "grid_sampler_2d_backward _scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_flash_attention_for_cpu_backward _scaled_dot_product_attention_math _trilinear "
    "adaptive_max_pool3d adaptive_max_pool3d_backward _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d _upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward "
    "_upsample_nearest_exact3d_backward grid_sampler_3d grid_sampler_3d_backward max_unpool2d max_unpool3d".split()
)
# They make tensors of a shape; `empty` gives zeros at the owner, never what lay in memory.
SHAPE_ONLY = frozenset(
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided zeros ones full "
    "empty empty_strided empty_permuted eye arange linspace logspace scalar_tensor tril_indices triu_indices "
    "hann_window".split()
)
RANDOM = frozenset(
    "rand randn randint randperm rand_like randn_like randint_like bernoulli normal normal_functional uniform exponential "
    "geometric random log_normal cauchy multinomial native_dropout poisson".split()
)
# Of their first argument they use its shape and type alone.
LIKE = frozenset(
    "zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided rand_like randn_like "
    "randint_like normal_functional uniform exponential geometric random log_normal cauchy".split()
)
ALLOWED = POINTWISE | LOSSES | REDUCTIONS | SHAPES | INDEXING | LINEAR | LAYERS | SHAPE_ONLY | RANDOM

_EDGES = "use comparisons with your own edges, and sum them"
_FORWARD = "forward-mode derivatives have it; use backward(), torch.func.grad or jacrev"
_ADVICE = {
    "histc": _EDGES,
    "histogram": _EDGES,
    "allclose": "use torch.isclose(a, b).all(), which stays at the owner",
    "is_same_size": _FORWARD,
    "_is_all_true": "torch.distributions looks at its arguments with it; give validate_args=False",
    "_pack_padded_sequence": "give the padded tensor, and multiply what lies behind a sequence's end by zero",
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), "use F.embedding, and sum or average what it gives"),
}
_SHAPE = "the shape of its result depends on values, which would tell them; "
REASONS = {
    "_local_scalar_dense": "a number taken out of it would leave",
    "item": "a number taken out of it would leave",
    "equal": "whether two tensors are equal is a private value; use (a == b).all(), which stays at the owner",
    "is_nonzero": "its truth value would leave; use torch.where(condition, a, b)",
    "nonzero": _SHAPE + "use torch.where(condition, a, b), or multiply by the mask",
    "masked_select": _SHAPE + "use torch.where(mask, x, 0), or multiply by the mask",
    "argwhere": _SHAPE + "use torch.where(condition, a, b)",
    "bincount": _SHAPE + "use one-hot columns with a declared number of classes, and sum them",
    "repeat_interleave": _SHAPE + "give the repeats as a Python number",
    **dict.fromkeys(("unique", "_unique", "_unique2", "unique_dim", "unique_consecutive"), _SHAPE + "declare the values"),
    **_ADVICE,
}
PRIVATE = frozenset(REASONS) - frozenset(_ADVICE)
# In-place operations whose function has another name.
_FUNCTIONS = {
    "normal_": "normal_functional", "zero_": "zero", "copy_": "copy", "_index_put_impl_": "index_put", "uniform_": "uniform",
}  # fmt: skip


def name_of(func: Any) -> str:
    """``aten.add.Tensor`` of an overload, as plans write it."""
    return str(func)


def packet(op: str) -> str:
    """``add`` of ``aten.add.Tensor``."""
    return op.split(".")[1] if op.count(".") == 2 else op


@cache
def find(op: str) -> Any:
    """The torch overload called ``aten.name.overload``, if the table has it; raises RefusedOpError otherwise."""
    parts = op.split(".")
    if len(parts) != 3 or parts[0] != "aten" or parts[1] not in ALLOWED:
        raise refusal(op)
    try:
        found = getattr(getattr(torch.ops.aten, parts[1]), parts[2])
    except AttributeError:
        raise RefusedOpError(f"torch {torch.__version__} has no operation {ascii(op)[:80]}") from None
    if found._schema.is_mutable or parts[2].endswith("out"):
        raise RefusedOpError(f"{op} writes into its arguments; a plan uses the function that does the same")
    return found


def refusal(op: str) -> PrivateValueError | RefusedOpError:
    """The error for an operation that pointers don't have, with the way out."""
    name = packet(op)
    if name in PRIVATE:
        ways = (
            ". x.release(epsilon=…) and x.request(reason=…) are the ways out" if name in ("_local_scalar_dense", "item") else ""
        )
        return PrivateValueError(f"{name.strip('_')} on a pointer is refused: {REASONS[name]}{ways}")
    near = [n for n in sorted(ALLOWED) if name.strip("_")[:5] in n][:5]
    if op.startswith("prims."):
        return RefusedOpError(f"pointers don't have the operation {ascii(op)[:80]}; {_FORWARD}")
    hint = REASONS.get(name) or (f"the nearest that work: {', '.join(near)}" if near else "docs/operations.md lists what works")
    return RefusedOpError(f"pointers don't have the operation {ascii(op)[:80]}; {hint}")


@cache
def functional(func: Any) -> Any:
    """The function that makes what an in-place overload would write; raises RefusedOpError if plans have none."""
    name, overload = func._schema.name.partition("::")[2], func._overloadname.replace("default", "")
    plain = _FUNCTIONS.get(name, name[:-1] if name.endswith("_") and not name.endswith("__") else name.replace("__i", "__"))
    if plain == name or not name.endswith("_"):
        raise RefusedOpError(f"{func} writes into its arguments; use the form that returns a new tensor")
    return find(f"aten.{plain}.{overload or 'default'}")


@cache
def without_out(func: Any) -> Any:
    """The function that an overload with ``out=`` calls; None where this is none, or writes more than one result."""
    outs = [a.name for a in func._schema.arguments if a.is_out]
    if len(outs) != 1:
        return None
    wanted = [(a.name, str(a.type)) for a in func._schema.arguments if not a.is_out]
    packets = func.overloadpacket
    for name in packets.overloads():
        found = getattr(packets, name)
        if not found._schema.is_mutable and [(a.name, str(a.type)) for a in found._schema.arguments] == wanted:
            return find(str(found))
    return None


def is_placed(func: Any) -> bool:
    """Whether what an overload gives depends on where in memory its arguments begin, as views do."""
    return "as_strided" in func._schema.name or any(r.alias_info is not None for r in func._schema.returns)


def is_random(op: str) -> bool:
    """Whether a node draws random numbers, and so has a seed."""
    return packet(op) in RANDOM
