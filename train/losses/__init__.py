"""What training minimizes: pure loss functions, the objective that combines them, and the discriminator."""

from earvae_jax.signal.weighting import k_weight
from earvae_jax.train.losses.functions import (
    correlation_loss,
    feature_matching_loss,
    group_delay_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    instantaneous_frequency_loss,
    kl_loss,
    least_squares_discriminator_loss,
    least_squares_generator_loss,
    log_waveform_loss,
    multi_resolution_stft_loss,
    waveform_loss,
)

__all__ = [
    "correlation_loss",
    "feature_matching_loss",
    "group_delay_loss",
    "hinge_discriminator_loss",
    "hinge_generator_loss",
    "instantaneous_frequency_loss",
    "k_weight",
    "kl_loss",
    "least_squares_discriminator_loss",
    "least_squares_generator_loss",
    "log_waveform_loss",
    "multi_resolution_stft_loss",
    "waveform_loss",
]
