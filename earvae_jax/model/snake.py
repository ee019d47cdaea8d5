"""The snake activation, and fast forms of sin²: an accurate one, and a shorter one for bfloat16."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

# sin²(r) = r² + r⁴·Q(r²) on |r| ≤ π/4 (Q by Chebyshev interpolation in float64), and π/2 in three parts. The
# first two have so few bits that n·part is exact in float32 up to n ≈ 2¹³.
_SIN_SQUARED = np.polynomial.chebyshev.Chebyshev.interpolate(
    lambda u: (np.square(np.sin(np.sqrt(u))) / u - 1) / u, 4, domain=[1e-5, (np.pi / 4) ** 2]
).convert(kind=np.polynomial.Polynomial)
_HALF_PI_PARTS = (1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8)

# d sin² / dr² = 1 + d(r⁴·Q)/dr² on the same interval.
_SLOPE = np.polynomial.Polynomial([0, 1, *_SIN_SQUARED.coef]).deriv()

# sin²(πr) = r²·Q(r²) on |r| ≤ 1/2, within 1.6·10⁻⁶ of it: a thousandth of what bfloat16 rounds away.
_SHORT_SIN_SQUARED = (
    np.polynomial.chebyshev.Chebyshev.interpolate(
        lambda u: np.square(np.sin(np.pi * np.sqrt(u))) / u, 4, domain=[1e-9, 0.25]
    )
    .convert(kind=np.polynomial.Polynomial)
    .coef
)


@jax.custom_jvp
def sin_squared(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """sin²(x) in float32; for |x| ≤ 10⁴ value and derivative are closer than with a float32 sine.

    The nearest multiple of π/2 is subtracted from x (Cody-Waite), which leaves a rest in [−π/4, π/4]. For an
    odd multiple the result is the cosine's square, 1 − sin². On a CPU this costs a quarter of XLA's sine.
    The derivative, sin(2x), has its own polynomial, so that the backward pass keeps one array for each
    activation and not one for each step of the computation.
    """
    if x.dtype == jnp.float64:
        return jnp.square(jnp.sin(x))
    return _sin_squared_of(*_reduced(x, jnp.round))


def sin_squared_in_kernels(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """`sin_squared` for Pallas, whose compiler for GPUs knows `floor` and not `round`. Without derivative."""
    return _sin_squared_of(*_reduced(x, _nearest))


def short_sin_squared(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """sin²(x) in float32 within 2·10⁻⁶ and the rounding of the angle, for values that bfloat16 rounds.

    Half of `sin_squared`'s work: the period of sin² is π, so the nearest multiple of π is subtracted, in one
    step. An H200's snake in bfloat16 waited for its arithmetic and not for memory, most of all for the
    conversion of integers, of which this has none. Also for Pallas.
    """
    turns = x.astype(jnp.float32) * np.float32(1 / np.pi)
    square = jnp.square(turns - _nearest(turns))
    return square * _polynomial(square, _SHORT_SIN_SQUARED)


def _nearest(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    return jnp.floor(x + np.float32(0.5))


@sin_squared.defjvp
def _sin_squared_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    if x.dtype == jnp.float64:
        return sin_squared(x), jnp.sin(2 * x) * tangent
    rest, odd = _reduced(x, jnp.round)
    slope = 2 * rest * _polynomial(rest * rest, _SLOPE.coef)
    return sin_squared(x), jnp.where(odd, -slope, slope) * tangent


def _reduced(
    x: Float[Array, "*S"], nearest: Callable[[Float[Array, "*S"]], Float[Array, "*S"]]
) -> tuple[Float[Array, "*S"], Bool[Array, "*S"]]:
    """x less the nearest multiple of π/2, and whether that multiple is odd."""
    x = x.astype(jnp.float32)
    quarters = nearest(x * np.float32(2 / np.pi))
    for part in _HALF_PI_PARTS:
        x = x - quarters * np.float32(part)
    return x, quarters.astype(jnp.int32) & 1 == 1


def _sin_squared_of(rest: Float[Array, "*S"], odd: Bool[Array, "*S"]) -> Float[Array, "*S"]:
    square = rest * rest
    total = square + square * (square * _polynomial(square, _SIN_SQUARED.coef))
    return jnp.where(odd, 1 - total, total)


def _polynomial(x: Float[Array, "*S"], coefficients: np.ndarray) -> Float[Array, "*S"]:
    """Horner's scheme, in float32."""
    total = jnp.full_like(x, np.float32(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        total = total * x + np.float32(coefficient)
    return total


def frequency_of(alpha: Float[Array, "*S C"]) -> Float[Array, "*S C"]:
    """eᵅ, the frequency of SnakeBeta."""
    return jnp.exp(alpha)


def amplitude_of(beta: Float[Array, "*S C"]) -> Float[Array, "*S C"]:
    """1/(eᵝ + 1e-9), the amplitude of SnakeBeta."""
    return 1 / (jnp.exp(beta) + 1e-9)


def snake(
    x: Float[Array, "*S C"],
    frequency: Float[Array, " C"],
    amplitude: Float[Array, " C"],
    *,
    sine: Callable[[Float[Array, "*S C"]], Float[Array, "*S C"]] = sin_squared,
) -> Float[Array, "*S C"]:
    """x + amplitude · sin²(frequency · x) (arXiv 2006.08195), computed in float32; `sine` computes sin²."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y = x.astype(wide)
    return (y + amplitude.astype(wide) * sine(y * frequency.astype(wide))).astype(x.dtype)


def short_snake(
    x: Float[Array, "*S C"], frequency: Float[Array, " C"], amplitude: Float[Array, " C"]
) -> Float[Array, "*S C"]:
    """`snake` with the shorter sine, for bfloat16."""
    return snake(x, frequency, amplitude, sine=short_sin_squared)
