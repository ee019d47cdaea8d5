"""The package as it is imported from a checkout that is not installed."""

import subprocess
import sys

from places import ROOT


def test_a_checkout_finds_its_applications_without_being_installed(tmp_path):
    """Python run in the checkout imports the library from there, whatever else is installed."""
    program = (
        "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n"
        "import earvae_jax.infer, earvae_jax.train.config, earvae_jax.convert\n"
        "print(earvae_jax.infer.__file__)\n"
    )
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ROOT / "infer" / "__init__.py")
