"""What the commands say of their codec before it runs."""

import argparse
import logging
import types

import jax
import pytest

from earvae_jax.infer.commands import arguments


@pytest.mark.parametrize(("platform", "told"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_an_accelerator_compiles_for_so_long_that_it_is_told(platform, told, monkeypatch, caplog):
    devices = [types.SimpleNamespace(platform=platform)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    monkeypatch.setattr(arguments, "codec_on", lambda given, _: given)
    with caplog.at_level(logging.INFO, "absl"):
        assert arguments.open_codec(argparse.Namespace(compilation_cache=None)) is devices
    assert ("compile first" in caplog.text) == told
