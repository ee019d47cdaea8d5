"""The notebooks run from top to bottom, at a tiny size; none is committed with what it printed."""

import dataclasses
import json
import re

import light_training
import pages
import pytest
import small_models
from places import ROOT

from earvae_jax import checkpoints
from earvae_jax.model.config import TransformerConfig

NOTEBOOKS = ROOT / "docs" / "notebooks"
NAMES = sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
# Of the bundled model's rate, ratio and latents, and quick to compile.
MODEL = small_models.config((1024,), latent_dim=64, transformer=TransformerConfig(depth=1, dim_heads=32))
TINY = {
    "latent_generator.ipynb": {
        "EARVAE_LENGTH": 16,
        "EARVAE_BATCH": 2,
        "EARVAE_STEPS": 3,
        "EARVAE_WIDTH": 32,
        "EARVAE_DEPTH": 1,
        "EARVAE_SAMPLING_STEPS": 2,
    },
    "quickstart.ipynb": {"EARVAE_STEPS": 2, "EARVAE_CONFIG": "config.json"},
}


def cells(name: str, kind: str) -> list[str]:
    found = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def test_every_notebook_is_run():
    assert set(NAMES) == set(TINY)


# The quickstart trains: half a minute of two cores.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "quickstart.ipynb")) for name in NAMES]
)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip(
        "nbclient", reason="notebooks run where nbclient and ipykernel are installed"
    )
    nbformat = pytest.importorskip("nbformat")
    model = dataclasses.replace(MODEL, sample_rate=44_100)
    checkpoints.save(tmp_path / "tiny.safetensors", small_models.model(model))
    light_training.write_config(tmp_path / "config.json", light_training.config(model=model.to_dict()))
    given = {"EARVAE_CHECKPOINT": tmp_path / "tiny.safetensors", "EARVAE_WORK": tmp_path / "work"}
    for key, value in (given | TINY[name]).items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()  # raises what a cell raises
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 2, "nothing to hear"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_committed_as_it_is_written(name):
    notebook = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert (NOTEBOOKS / name).stat().st_size < 50_000


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_somewhere(name):
    text = "\n".join(cells(name, "markdown"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    for link in links:
        target, _, anchor = link.partition("#")
        path = (NOTEBOOKS / target).resolve()
        assert path.is_file(), f"{name}: {link}: no such file"
        assert not anchor or anchor in pages.Page(path).anchors, f"{name}: {link}: no such heading"


@pytest.mark.parametrize("name", NAMES)
def test_what_can_be_changed_is_used(name):
    """Environment variables of the test are those of the notebook, or it would run at its full size."""
    code = "\n".join(cells(name, "code"))
    for key in TINY[name]:
        assert key in code or f'parameter("{key.removeprefix("EARVAE_")}"' in code
