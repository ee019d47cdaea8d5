"""The wheel holds all that is here, a checkout needs no install, and tools have one version each."""

import re
import subprocess
import sys
import tomllib

import pytest
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
FOLDERS = {name: ROOT / folder for name, folder in SETUPTOOLS["package-dir"].items()}  # by package


def place(package: str):
    """The folder of a package."""
    top = max((name for name in FOLDERS if f"{package}.".startswith(f"{name}.")), key=len)
    return FOLDERS[top].joinpath(*package.removeprefix(top).split("."))


def test_the_wheel_has_every_folder_of_code():
    found = set()
    for name, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            found.add(".".join((name, *path.parent.relative_to(folder).parts)))
    assert found == set(SETUPTOOLS["packages"])
    assert len(SETUPTOOLS["packages"]) == len(found) > 10


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_a_package_says_what_it_is(package):
    assert (place(package) / "__init__.py").is_file()


def test_the_wheel_has_every_file_beside_the_code():
    data = SETUPTOOLS["package-data"]
    for package in SETUPTOOLS["packages"]:
        patterns = data.get(package, [])
        taken = {path.name for pattern in patterns for path in place(package).glob(pattern)}
        here = {path.name for path in place(package).iterdir() if path.is_file() and path.suffix != ".py"}
        assert here == taken, package
        for pattern in patterns:
            assert list(place(package).glob(pattern)), f"{package}: there is no {pattern}"
    assert "py.typed" in data["earvae_jax"]


def test_ruff_is_of_one_version():
    (stated,) = (each for each in PROJECT["project"]["optional-dependencies"]["lint"] if "ruff" in each)
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (used,) = re.findall(r"ruff-pre-commit\n\s+rev: v(\S+)", text)
    assert stated == f"ruff=={used}"
    assert not re.search(r"(ruff|mypy)\s*[=<>]", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))


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
