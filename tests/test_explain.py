"""explain.py on finished runs, and the same pictures while a run trains."""

import json
import shutil

import pytest
from matplotlib.figure import Figure
from PIL import Image

import explain
from tests.runs import assert_close, networks, run
from utils.errors import UserError
from utils.evaluation.attribution import ATTRIBUTIONS
from utils.tasks import explanations


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """Small pictures, without the layout that costs half the time of one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explanations, "DIRECTIONS", 1)
        patch.setattr(explanations, "COLUMNS", 2)
        patch.setattr(Figure, "tight_layout", lambda figure: None)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a generator that was explained on the way, and one of domains."""
    folder = tmp_path_factory.mktemp("runs")
    assert run(folder, "explain.every=8", "explain.count=1") == 0
    assert run(folder, recipe="configs/moons.yaml") == 0
    return folder


def test_what_is_written_is_said(finished, tmp_path, capsys):
    assert explain.main([str(finished / "digits"), "--count", "2", "--out", str(tmp_path / "new")]) == 0
    output = capsys.readouterr().out.splitlines()
    names = [f"{name}-step-00000012-ema.png" for name in ("critic", "directions", "singular-values")]
    assert sorted(output[:3]) == [str(tmp_path / "new" / name) for name in names]
    assert all(Image.open(path).format == "PNG" for path in output[:3])
    assert output[-2].startswith("condition number: ")
    found = [json.loads(line) for line in (tmp_path / "new/records.jsonl").read_text().splitlines()]
    assert len(found) == 2 * len(ATTRIBUTIONS) + 2 == len(output) - 3
    assert all((record["step"], record["weights"], record["samples"]) == (12, "ema", 2) for record in found)


def test_integrated_gradients_sum_to_the_change_of_the_score(finished, tmp_path):
    assert explain.main([str(finished / "moons"), "--out", str(tmp_path)]) == 0
    found = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()]
    sums = [record for record in found if record["method"] == "integrated gradients"]
    assert len(sums) == 4  # of class and domain, at source and target
    for record in sums:  # sigmoid units, and rectified ones whose kinks the midpoint rule meets with 32 points
        assert abs(record["missed"]) < 0.05 * record["samples"] * max(1, max(map(abs, record["scores"])))


def test_last_weights_make_other_samples(finished, tmp_path):
    scores = {}
    for name in ("ema", "raw"):
        out = tmp_path / name
        assert explain.main([str(finished / "digits"), "--count", "1", "--weights", name, "--out", str(out)]) == 0
        found = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
        scores[name] = {record["side"]: record["scores"] for record in found if "side" in record}
    assert scores["ema"]["real"] == scores["raw"]["real"]
    assert scores["ema"]["generated"] != scores["raw"]["generated"]


def test_pictures_while_it_trains(finished):
    """Every 8 of 12 steps, and at the end; training goes on as without them."""
    names = [f"critic-step-{step:08d}-ema.png" for step in (8, 12)]
    assert sorted(path.name for path in (finished / "digits/explain").iterdir()) == names
    (events,) = (finished / "digits/tensorboard").glob("events*")
    assert events.read_bytes().count(b"explain/critic") == 2
    assert run(finished, "run.name=plain", "sample.every=0") == 0
    explained, plain = (networks(finished, 12, name) for name in ("digits", "plain"))
    assert_close(explained, plain, 0)


def test_wrong_input_is_one_sentence(finished, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "config.yaml").write_text((finished / "digits/config.yaml").read_text())
    for words, message in (
        (["nowhere"], "not the folder of a run"),
        ([str(tmp_path)], "holds no checkpoint yet"),
        ([str(finished / "digits"), "--out", str(tmp_path / "file")], "which is no folder"),
        ([str(finished / "digits"), "data.resolution=16", "data.fit=pad"], "shape"),
        ([str(finished / "digits"), "--layer", "critic.feature.0"], "did you mean 'critic.features.0'"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            explain.main(words)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_without_critic_is_one_sentence(finished, tmp_path):
    """As somebody might publish it: only what makes samples."""
    shutil.copytree(finished / "digits", tmp_path / "run")
    for folder in (tmp_path / "run/checkpoints").iterdir():
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["critic.safetensors"]
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "critic.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no critic\.safetensors") as caught:
        explain.main([str(tmp_path / "run")])
    assert "\n" not in str(caught.value)
