"""The snake activation, and fast forms of sin²: one as accurate as float32, one for bfloat16."""

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


def sin_squared_in_kernels(x: Float[Array, "*S"], dtype: jnp.dtype) -> Float[Array, "*S"]:
    """sin² as `sine_for` this type, for Pallas: its compiler for GPUs knows `floor` and not `round`.

    Without derivative.
    """
    if dtype == jnp.bfloat16:
        return _short_sin_squared_of(_turned(x, _nearest_by_floor))
    return _sin_squared_of(*_reduced(x, _nearest_by_floor))


def _nearest_by_floor(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
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


# sin²(πr) = r²·Q(r²) on |r| ≤ 1/2, within 1.6·10⁻⁶ of it: a thousandth of what bfloat16 rounds away. And its
# derivative's half, sin(2πr)/2 = r·S(r²).
_SHORT_SIN_SQUARED, _SHORT_SLOPE = (
    np.polynomial.chebyshev.Chebyshev.interpolate(function, degree, domain=[1e-9, 0.25])
    .convert(kind=np.polynomial.Polynomial)
    .coef
    for function, degree in (
        (lambda u: np.square(np.sin(np.pi * np.sqrt(u))) / u, 4),
        (lambda u: np.sin(2 * np.pi * np.sqrt(u)) / (2 * np.sqrt(u)), 4),
    )
)


@jax.custom_jvp
def short_sin_squared(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """sin²(x) in float32 to 2·10⁻⁶ of it, for values that bfloat16 rounds: half of `sin_squared`'s work.

    The period of sin² is π, so the nearest multiple of π is subtracted, in one step. A GPU's snake in
    bfloat16 waits for its arithmetic and not for memory, most of all for the conversion of integers, of which
    this has none.
    """
    return _short_sin_squared_of(_turned(x, jnp.round))


@short_sin_squared.defjvp
def _short_sin_squared_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    rest = _turned(x, jnp.round)
    slope = 2 * rest * _polynomial(rest * rest, _SHORT_SLOPE)
    return _short_sin_squared_of(rest), slope * tangent


def _turned(
    x: Float[Array, "*S"], nearest: Callable[[Float[Array, "*S"]], Float[Array, "*S"]]
) -> Float[Array, "*S"]:
    """x/π less the nearest whole number."""
    turns = x.astype(jnp.float32) * np.float32(1 / np.pi)
    return turns - nearest(turns)


def _short_sin_squared_of(rest: Float[Array, "*S"]) -> Float[Array, "*S"]:
    square = rest * rest
    return square * _polynomial(square, _SHORT_SIN_SQUARED)


def sine_for(dtype: jnp.dtype) -> Callable[[Float[Array, "*S"]], Float[Array, "*S"]]:
    """The sin² that activations of this type need."""
    return short_sin_squared if dtype == jnp.bfloat16 else sin_squared


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
    sine: Callable[[Float[Array, "*S C"]], Float[Array, "*S C"]] | None = None,
) -> Float[Array, "*S C"]:
    """x + amplitude · sin²(frequency · x) (arXiv 2006.08195), computed in float32.

    `sine` computes sin²; by default as the type of x needs it.
    """
    sine = sine or sine_for(x.dtype)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y = x.astype(wide)
    return (y + amplitude.astype(wide) * sine(y * frequency.astype(wide))).astype(x.dtype)
