"""One direction: which room may import which. No cycle between files or rooms, nor in annotations alone."""

import ast
import functools
import graphlib

import pytest
from places import ROOT

LIBRARY, APPLICATIONS = "earvae_jax", ("convert", "infer", "train")
HEAVY = (
    "torch",
    "diffusers",
    "gradio",
    "matplotlib",
    "grain",
    "tensorboardX",
    "alias_free_torch",
    "auraloss",
    "onnx",
    "onnxruntime",
)

# A room is a folder, or a file at the top of the library, and may import itself and the rooms named here.
# Applications may import the whole library besides.
ALLOWED = {
    "__init__": "errors model checkpoints",
    "__main__": "command",
    "command": "errors borders system",
    "errors": "",
    "borders": "errors",
    "arrays": "errors",
    "system": "errors borders",
    "flag_types": "",
    "targets": "errors borders system flag_types",
    "model": "errors borders arrays",
    "signal": "",
    "audio": "errors borders system",
    "demo": "",
    "parameters": "errors borders system model",
    "receptive_field": "model",
    "orbax_folders": "errors borders parameters",
    "known_models": "borders model",
    "checkpoints": "errors borders system model parameters orbax_folders demo known_models",
    "convert": "convert.foreign convert.torch_port",
    "convert.export": "convert convert.torch_port",
    "convert.foreign": "",
    "convert.torch_port": "",
    "convert.parity": "convert convert.foreign convert.torch_port",
    "convert.push": "convert",
    "infer": "infer.engine infer.inputs infer.latents infer.latent_sets",
    "infer.formulations": "",
    "infer.latents": "",
    "infer.latent_sets": "infer.latents",
    "infer.engine": "infer.formulations infer.latents",
    "infer.inputs": "infer.engine infer.latents",
    "infer.evaluation": "",
    "infer.commands": "infer infer.engine infer.evaluation infer.latents infer.latent_sets",
    "infer.web_app": "infer infer.commands infer.engine infer.evaluation infer.latents",
    "infer.benchmark": "infer infer.engine infer.formulations",
    "train": "train.config train.run",
    "train.config": "",
    "train.formulations": "",
    "train.free_music": "",
    "train.losses": "train.config train.formulations",
    "train.data": "train.config",
    "train.step": "train.config train.formulations train.losses",
    "train.watch": "train.config train.losses train.step",
    "train.run": "train.config train.data train.step train.watch",
    "train.studies": (
        "train.config train.data train.formulations train.losses train.step train.watch train.run"
    ),
}
# The benchmarks measure against the torch port, with the same weights.
EXCEPTIONS = {
    ("infer.benchmark.contenders", "convert.to_torch"),
    ("infer.benchmark.contenders", "convert.torch_port.model"),
    ("infer.benchmark.beside_diffusers", "convert.to_torch"),  # writes the model for diffusers
    ("train.studies.torch_step", "convert.torch_port.model"),
    ("train.studies.bands", "infer"),
    ("train.studies.transforms", "infer"),
    ("train.run.songs", "infer"),  # a run measures whole songs as its users will reconstruct them
}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every file of code by its dotted name; that of a package is the folder's."""
    found = {}
    for folder in (LIBRARY, *APPLICATIONS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[1:] if folder == LIBRARY else parts
            name = ".".join(parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found[name.removesuffix(".__init__")] = tree
    return found


def imports(name: str) -> set[str]:
    """Absolute names of all that a file imports, wherever in it; this project's without its first word."""
    found = set()
    for node in ast.walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(name: str) -> set[str]:
    """The files of this project among them."""
    found = set()
    for full in imports(name):
        if full.partition(".")[0] == LIBRARY:
            words = full.split(".")[1:]
            known = (".".join(words[:count]) for count in range(len(words), 0, -1))
            found.add(next((each for each in known if each in modules()), "__init__"))
    return found - {name}


def room(name: str) -> str:
    first, _, rest = name.partition(".")
    if first not in APPLICATIONS:
        return first
    second = rest.partition(".")[0]
    return f"{first}.{second}" if (ROOT / first / second).is_dir() and second else first


def test_every_room_is_known():
    assert {room(name) for name in modules()} == set(ALLOWED)
    assert len(modules()) > 100


@pytest.mark.parametrize("name", modules())
def test_a_file_imports_what_its_room_may(name):
    own = room(name)
    allowed = {own, *ALLOWED[own].split()}
    for other in ours(name):
        to = room(other)
        of_library = own.partition(".")[0] in APPLICATIONS and to.partition(".")[0] not in APPLICATIONS
        assert to in allowed or of_library or (name, other) in EXCEPTIONS, f"{name} imports {other}"


@pytest.mark.parametrize("level", [str, room], ids=["files", "rooms"])
def test_nothing_imports_what_imports_it(level):
    graph = {}
    for name in modules():
        wanted = {level(other) for other in ours(name) if (name, other) not in EXCEPTIONS}
        graph.setdefault(level(name), set()).update(wanted - {level(name)})
    assert tuple(graphlib.TopologicalSorter(graph).static_order())


def test_the_library_needs_no_extra():
    for name in modules():
        if room(name).partition(".")[0] not in APPLICATIONS:
            for full in imports(name):
                assert full.partition(".")[0] not in HEAVY, f"{name} imports {full}"


def test_no_room_is_crowded():
    """As many files as can be looked over."""
    for folder in (LIBRARY, *APPLICATIONS, "tests"):
        for place in (ROOT / folder, *(ROOT / folder).rglob("*/")):
            files = sorted(place.glob("*.py"))
            assert len(files) <= 15, f"{place.relative_to(ROOT)} has {len(files)} files"


def test_a_long_file_says_why():
    for folder in (LIBRARY, *APPLICATIONS):
        for path in (ROOT / folder).rglob("*.py"):
            lines = path.read_text(encoding="utf-8").splitlines()
            reason = any("long because" in line for line in lines[:20])
            assert len(lines) <= 300 or reason, f"{path.relative_to(ROOT)} has {len(lines)} lines"
