"""The library imports no application and no heavy extra; applications never import each other."""

import ast
from pathlib import Path

import pytest
from places import ROOT

APPLICATIONS = ("convert", "train", "infer")
# The benchmarks measure against the torch port, with the same weights.
EXCEPTIONS = {
    ("infer/benchmark/contenders.py", "earvae_jax.convert.torch_port.model"),
    ("infer/benchmark/contenders.py", "earvae_jax.convert.to_torch"),
    ("train/studies/torch_step.py", "earvae_jax.convert.torch_port.model"),
}


def imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, wherever in it."""
    package = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
    package = package if package.startswith("earvae_jax") else f"earvae_jax.{package}"
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*parents, *([module] if module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_the_library_stands_alone():
    assert len(files("earvae_jax")) > 20
    refused = [f"earvae_jax.{name}" for name in APPLICATIONS]
    refused += ["torch", "matplotlib", "grain", "tensorboardX"]
    for path in files("earvae_jax"):
        for name in imports(path):
            assert not any(within(name, module) for module in refused), f"{path.name} imports {name}"


@pytest.mark.parametrize("application", APPLICATIONS)
def test_applications_import_the_library_absolutely_and_themselves_relatively(application):
    others = [f"earvae_jax.{name}" for name in APPLICATIONS if name != application]
    assert files(application)
    for path in files(application):
        relative = path.relative_to(ROOT).as_posix()
        for name in imports(path):
            excepted = any(relative == start and within(name, module) for start, module in EXCEPTIONS)
            assert excepted or not any(within(name, other) for other in others), f"{relative} imports {name}"
        text = path.read_text(encoding="utf-8")
        assert f"earvae_jax.{application}" not in {
            node.module and ".".join(node.module.split(".")[:2])
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and not node.level
        }, f"{relative} imports its own package absolutely"
