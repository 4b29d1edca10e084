"""export.py: every family's network gives the same samples out of the files as in the run."""

import dataclasses
import json
import shutil

import pytest
import torch
import yaml
from PIL import Image

import export
from models import FAMILIES, loading
from tests.runs import run
from tests.untrained import RECIPES, untrained
from utils.errors import UserError
from utils.run import export as writing
from utils.run.card import card
from utils.run.opening import open_run


def inputs(description: loading.Description) -> list[torch.Tensor]:
    """Five of what the network takes."""
    draw = torch.Generator().manual_seed(0)
    if description.network == "recogniser":
        return [torch.randn(5, *description.shape, generator=draw)]
    latent = torch.randn(5, description.model["latent_dim"], generator=draw)
    return [latent, torch.arange(5) % description.classes] if description.classes else [latent]


def outputs(network: torch.nn.Module, *given: torch.Tensor) -> list[torch.Tensor]:
    made = network(*given)
    return [made] if isinstance(made, torch.Tensor) else [*made[0].layers, made[0].logits]


def test_every_family_is_exported():
    assert RECIPES.keys() == FAMILIES.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_loaded_network_is_the_run_s(tmp_path, family):
    """The weights are bit for bit the same. The outputs, in float64, differ by the order of sums alone, which may be
    another in another memory layout: 2^-53 for each of fewer than 10^5 terms, 1e-11.
    """
    opened = untrained(tmp_path, family)
    before = torch.random.get_rng_state()
    description, network = writing.exported(opened)
    writing.write(tmp_path / "out", description, network, card(opened, "ema", description, "mit", False))
    loaded = loading.load(tmp_path / "out")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not loaded.training
    assert loading.read(tmp_path / "out/config.json") == description
    theirs = opened.players.average.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in loaded.state_dict().items())
    given = [x.double() if x.is_floating_point() else x for x in inputs(description)]
    with torch.no_grad():
        pairs = zip(outputs(loaded.double(), *given), outputs(opened.players.average.double(), *given), strict=True)
        assert all((a - b).norm() <= 1e-11 * b.norm() for a, b in pairs)


def test_programs_do_what_the_network_does(tmp_path):
    """The same operations on the same numbers: no bit differs. The batch is of another size than torch.export saw."""
    for family in ("mlp", "dense"):
        description, network = writing.exported(untrained(tmp_path, family))
        writing.write_program(tmp_path / "model.pt2", description, network)
        program = torch.export.load(tmp_path / "model.pt2").module()
        given = inputs(description)
        with torch.no_grad():
            assert torch.equal(program(*given), outputs(network, *given)[-1])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that has chosen a best model."""
    folder = tmp_path_factory.mktemp("runs")
    assert run(folder, "run.name=plain") == 0
    return folder


def test_a_model_card_says_what_was_measured(finished, tmp_path, capsys):
    out = tmp_path / "out"
    assert export.main([str(finished / "plain"), str(out), "--license", "cc-by-4.0"]) == 0
    assert capsys.readouterr().out == f"{out}: generator of step 12, best weights\n"
    _, header, text = (out / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(header)
    assert about["license"] == "cc-by-4.0"
    assert about["pipeline_tag"] == "unconditional-image-generation"
    records = [json.loads(line) for line in (finished / "plain/metrics.jsonl").read_text().splitlines()]
    metrics = [record["metric"] for record in records if record["kind"] == "metric"]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == metrics
    assert "32 samples, seed 0 | digits, held-out | classifier trained on digits, train split |" in text
    assert "1,347 training samples: `name=digits`, `resolution=8`" in text
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert recipe["model.generator_width"] == 4
    assert "run.dir" not in recipe
    assert Image.open(out / "samples.png").format == "PNG"
    code = text.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(out))
    names = {}
    exec(code, names)
    assert names["samples"].shape == (16, 1, 8, 8)


def test_a_model_card_has_the_latest_of_two_measurements_alike(finished, tmp_path):
    """Of these weights at this step, whatever evaluate.py was asked; a line that is cut short is passed over."""
    copy = tmp_path / "copy"
    shutil.copytree(finished / "plain", copy)
    about = {"step": 12, "metric": "recall", "unit": "", "note": " of a test", "samples": 7, "seed": 3}
    other = [{"weights": "raw", "value": 0.31}, {"weights": "ema", "value": 0.32, "step": 11}]
    mine = [{"weights": "ema", "value": 0.33}, {"weights": "best", "value": 0.34}]
    lines = [json.dumps({**about, **record}) for record in (*other, *mine)]
    (copy / "evaluations.jsonl").write_text("\n".join([*lines, '{"step": 12, "metr']))
    assert export.main([str(copy), str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/README.md").read_text()
    assert "| recall | 0.34 of a test |  | 7 samples, seed 3 |" in text
    assert not any(value in text for value in ("0.31 of", "0.32 of", "0.33 of"))


def test_an_export_replaces_an_export_and_leaves_other_files_alone(finished, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".gitattributes").write_text("of a fresh clone")
    assert export.main([str(finished / "plain"), str(out)]) == 0
    (out / "notes.txt").write_text("mine")
    (out / "model.pt2").write_text("of an earlier export")
    before = loading.load(out)
    assert export.main([str(finished / "plain"), str(out), "--weights", "raw"]) == 0
    raw = open_run(str(finished / "plain"), [], "raw").players.average
    given = inputs(loading.read(out / "config.json"))
    assert torch.equal(loading.load(out)(*given), raw(*given))
    assert not torch.equal(before(*given), raw(*given))
    assert json.loads((out / "config.json").read_text())["weights"] == "raw"
    names = [".gitattributes", "README.md", "config.json", "model.safetensors", "notes.txt", "samples.png"]
    assert sorted(path.name for path in out.iterdir()) == names


@pytest.mark.parametrize("name", ["files", "other", "file"])
def test_a_folder_of_something_else_is_left_alone(finished, tmp_path, name):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.txt").write_text("precious")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="name a") as caught:
        export.main([str(finished / "plain"), str(tmp_path / name)])
    assert "\n" not in str(caught.value)
    assert len(list((tmp_path / "files").iterdir())) == 1


def test_what_cannot_be_exported_is_one_sentence(finished, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="not the folder of a run"):
        export.main([str(tmp_path), str(tmp_path / "out")])
    copy = tmp_path / "copy"
    shutil.copytree(finished / "plain", copy)
    shutil.rmtree(copy / "best")
    with pytest.raises(UserError, match="has no chosen model"):
        export.main([str(copy), str(tmp_path / "out"), "--weights", "best"])
    monkeypatch.setattr(writing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install onnx onnxscript"):
        export.main([str(copy), str(tmp_path / "out"), "--onnx"])
    assert not (tmp_path / "out").exists()


def test_a_network_that_models_does_not_have_is_refused(tmp_path):
    opened = untrained(tmp_path, "dcgan")
    other = dataclasses.replace(opened.players, average=torch.nn.Identity())
    with pytest.raises(UserError, match="has a network of its own"):
        writing.exported(opened._replace(players=other))


@pytest.mark.parametrize("other", [{"format": "other"}, {"model": []}, {"shape": 8}])
def test_a_config_of_something_else_is_refused(tmp_path, other):
    fields = {"network": "generator", "family": "mlp", "model": {}, "shape": [2], "classes": 0}
    (tmp_path / "config.json").write_text(json.dumps({"format": loading.FORMAT, **fields, **other}))
    with pytest.raises(ValueError, match=r"does not describe|has no fields of a network"):
        loading.load(tmp_path)
