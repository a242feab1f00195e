"""The examples of the README and of docs/trainer.md run as they are printed."""

from __future__ import annotations

import shlex

import numpy as np

from cli_support import FILES, names
from guides import blocks, page
from normkit.cli import main

README = page("README.md")


def test_python_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = blocks("python", README)
    assert len(examples) >= 3
    namespace: dict[str, object] = {}
    for number, example in enumerate(examples, start=1):
        exec(compile(example, f"README.md, example {number}", "exec"), namespace)  # noqa: S102 - the README is ours
    assert namespace["history"].history["val_accuracy"][-1] > 0.93
    assert names(tmp_path) == ["digits.safetensors"]


def test_examples_of_the_trainer():
    namespace: dict[str, object] = {}
    for number, example in enumerate(blocks("python", page("docs/trainer.md")), start=1):
        exec(compile(example, f"trainer.md, example {number}", "exec"), namespace)  # noqa: S102 - the page is ours
    assert namespace["history"].history["val_accuracy"][-1] > 0.5


def test_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.arange(220) % 10
    pixels = rng.integers(0, 64, (220, 28, 28), dtype=np.uint8)
    pixels[np.arange(220), labels] += 191  # a bright line whose height is the label
    test, new = slice(200, 210), slice(210, 220)
    np.savez(
        "mnist.npz", x_train=pixels[:200], y_train=labels[:200], x_test=pixels[test], y_test=labels[test]
    )
    np.savetxt("new.csv", pixels[new].reshape(10, -1), fmt="%d", delimiter=",")

    (commands,) = blocks("sh", README.partition("## Command line")[2].partition("## Benchmark")[0])
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "normkit"
        assert main(arguments) == 0, capsys.readouterr().err
    assert capsys.readouterr().err == ""
    assert names(tmp_path / "runs" / "mnist") == FILES
    predicted = np.loadtxt("predictions.csv", delimiter=",", skiprows=1)[:, 0]
    np.testing.assert_array_equal(predicted, labels[new])
