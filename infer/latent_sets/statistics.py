"""Statistics of latents that grow item by item and merge, with the result of all latents at once."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

_ROWS = 1 << 16  # latents taken together: 64 numbers each are 32 MB in float64


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Sums over latents in float64, from which every statistic follows.

    Attributes:
      count: latents.
      mean: [D], the average of the posterior means.
      scatter: [D, D], the sum over all latents of (x − mean)(x − mean)ᵀ, x being the posterior mean.
      noise: [D], the sum of the squared standard deviations of the posterior; None if they are not known.
    """

    count: int
    mean: Float[np.ndarray, " D"]
    scatter: Float[np.ndarray, "D D"]
    noise: Float[np.ndarray, " D"] | None

    @classmethod
    def of(cls, mean: Float[np.ndarray, "N D"], std: Float[np.ndarray, "N D"] | None) -> "Statistics":
        """Those of the latents of one piece; N is at least 1."""
        blocks = range(0, len(mean), _ROWS)
        parts = (_of_block(mean[a : a + _ROWS], None if std is None else std[a : a + _ROWS]) for a in blocks)
        whole = next(parts)
        for part in parts:
            whole = whole.merged(part)
        return whole

    def merged(self, other: "Statistics") -> "Statistics":
        """Those of both together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        share = other.count / count
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.count * share)
        noise = None if self.noise is None or other.noise is None else self.noise + other.noise
        return Statistics(count, self.mean + apart * share, scatter, noise)

    @property
    def covariance(self) -> Float[np.ndarray, "D D"]:
        """Of the posterior means, with the count as the divisor."""
        return self.scatter / self.count

    @property
    def deviation(self) -> Float[np.ndarray, " D"]:
        """Standard deviation of the posterior means."""
        return np.sqrt(np.diagonal(self.covariance))

    @property
    def sampled_deviation(self) -> Float[np.ndarray, " D"] | None:
        """Standard deviation of latents that are drawn from the posterior; None if its std is not known."""
        if self.noise is None:
            return None
        return np.sqrt(np.diagonal(self.covariance) + self.noise / self.count)

    @property
    def dead(self) -> list[int] | None:
        """Dimensions whose means vary less than the noise that is added to them, as training counts them."""
        if self.noise is None:
            return None
        return np.flatnonzero(self.deviation < np.sqrt(self.noise / self.count)).tolist()

    def described(self) -> dict[str, Any]:
        """For people and programs: what `latent_statistics.json` says of the numbers."""
        dead, sampled = self.dead, self.sampled_deviation
        return {
            "latents": self.count,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "sampled_deviation": None if sampled is None else sampled.tolist(),
            "dead_dimensions": dead,
            "dead_share": None if dead is None else len(dead) / len(self.mean),
            "covariance": self.covariance.tolist(),
        }

    def to_dict(self) -> dict[str, Any]:
        """The sums as JSON holds them, bit for bit."""
        noise = None if self.noise is None else self.noise.tolist()
        sums = {"mean": self.mean.tolist(), "scatter": self.scatter.tolist(), "noise": noise}
        return {"count": self.count, **sums}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Statistics":
        """What `to_dict` gave; raises a ValueError, TypeError or KeyError for anything else."""
        mean = np.asarray(values["mean"], np.float64)
        scatter = np.asarray(values["scatter"], np.float64)
        noise = None if values["noise"] is None else np.asarray(values["noise"], np.float64)
        fits = mean.ndim == 1 and scatter.shape == 2 * mean.shape
        if not fits or (noise is not None and noise.shape != mean.shape):
            raise ValueError("the statistics have other shapes than [D] and [D, D]")
        squares = np.diagonal(scatter) if noise is None else np.append(np.diagonal(scatter), noise)
        if not (np.isfinite(mean).all() and np.isfinite(scatter).all() and (squares >= 0).all()):
            raise ValueError("the statistics hold what no latents can have")
        return cls(int(values["count"]), mean, scatter, noise)


def _of_block(mean: np.ndarray, std: np.ndarray | None) -> Statistics:
    values = mean.astype(np.float64)
    centre = values.mean(axis=0)
    values -= centre
    noise = None if std is None else np.square(std.astype(np.float64)).sum(axis=0)
    return Statistics(len(values), centre, values.T @ values, noise)
