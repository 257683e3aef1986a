"""Files made to harm are refused in a sentence. (Names with HTML in them: test_report.)"""

import os
import pickle

import pytest
import torch

from classify.weights_file import read_given_weights
from study.config.load import load_config
from study.config.schema import StudyConfig
from study.stages.network import read_weights
from study.stages.stage import load_stage
from study.stages.store import RunDir
from training.strict_yaml import ConfigError


class Evil:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("save", [torch.save, lambda data, path: path.write_bytes(pickle.dumps(data))])
def test_a_pickle_given_as_weights_is_refused_and_not_run(tmp_path, save):
    file = tmp_path / "weights.pth"
    save({"state_dict": Evil(tmp_path / "evil")}, file)
    with pytest.raises(ValueError, match="holds more than tensors"):
        read_given_weights(file)
    assert not (tmp_path / "evil").exists()


def test_a_pickle_in_the_place_of_a_run_s_weights_is_not_the_file_that_was_written(tmp_path):
    run = RunDir(tmp_path / "train_classifier-0/seed0")
    run.path.mkdir(parents=True)
    run.weights.write_bytes(b"weights")
    run.write_result({"metrics": {}})
    torch.save(Evil(tmp_path / "evil"), run.weights)
    with pytest.raises(ValueError, match="not the file that the run wrote"):
        read_weights(run.weights)
    run.write_result({"metrics": {}})  # even with the right sum
    with pytest.raises(ValueError, match="not readable as safetensors"):
        read_weights(run.weights)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir [{0}]", "!!python/name:os.system"])
def test_yaml_with_python_in_it_is_refused(tmp_path, tag):
    text = f"name: {tag.format(tmp_path / 'evil')}\n"
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="not valid YAML: could not determine a constructor"):
        load_config(StudyConfig, file)
    file.write_text("name: good\n")
    with pytest.raises(ConfigError, match="the value is not valid YAML"):
        load_config(StudyConfig, file, [text.strip().replace(": ", "=", 1)])
    assert not (tmp_path / "evil").exists()


def test_yaml_with_python_in_a_run_directory_is_refused(tmp_path):
    run = RunDir(tmp_path / "prune-0/seed0")
    run.path.mkdir(parents=True)
    run.config.write_text("kind: !!python/object/apply:os.getcwd []\n")
    run.write_result({"metrics": {}})
    with pytest.raises(ValueError, match=r"config\.yaml: not valid YAML: could not determine a constructor"):
        load_stage(run.path)
