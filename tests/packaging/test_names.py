"""Names: what modules show, what a type checker knows, and the hint for a mistyped one."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import normkit as nk
from normkit import callbacks, data, layers, losses, metrics, optimizers, regularizers
from normkit._names import did_you_mean
from normkit.cli import architecture
from normkit.optimizers import schedules

PACKAGE = Path(nk.__file__).parent
PUBLIC = [
    "normkit",
    *(
        f"normkit.{path.stem}"
        for path in sorted(PACKAGE.iterdir())
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.stem.startswith("_")
    ),
    "normkit.optimizers.schedules",
]
WITHOUT_NAMES = {"normkit.cli"}  # a command, not a library


def module(name: str) -> ModuleType:
    if name == "normkit.sklearn":
        pytest.importorskip("sklearn")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in WITHOUT_NAMES])
def test_dir_shows_the_public_names_and_no_others(name: str) -> None:
    found = module(name)
    assert dir(found) == sorted(found.__all__)
    for public in found.__all__:
        assert getattr(found, public) is not None
    assert not {"importlib", "TYPE_CHECKING", "annotations", "Any", "np"} & set(dir(found))


def test_dir_of_the_package_has_the_trainer() -> None:
    assert {"Sequential", "Input", "layers", "models", "optimizers", "utils", "layer_norm"} <= set(dir(nk))


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in WITHOUT_NAMES])
def test_a_star_import_works(name: str) -> None:
    module(name)
    names: dict[str, Any] = {}
    exec(f"from {name} import *", names)  # noqa: S102
    assert set(importlib.import_module(name).__all__) <= set(names)


def test_the_package_has_its_own_names_alone() -> None:
    """Not only in what `dir` shows: what it takes from elsewhere for itself begins with an underscore."""
    run(  # in a process of its own, as tests import more
        "import types, normkit\n"
        "names = {n for n, v in vars(normkit).items() if n[0] != '_'}\n"
        "others = {n for n in names - set(normkit.__all__)\n"
        "          if getattr(getattr(normkit, n), '__name__', None) != f'normkit.{n}'}\n"
        "assert not others, others"
    )
    for name in PUBLIC:
        assert not hasattr(module(name), "TYPE_CHECKING"), name


def run(source: str) -> str:
    command = [sys.executable, "-c", source]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_trainer_is_imported_when_it_is_used() -> None:
    source = (
        "import sys, normkit\n"
        "def trainer(): return [m for m in sys.modules if m.startswith(('normkit.layers', 'normkit.models'))]\n"
        "dir(normkit); assert not trainer(), trainer()\n"
        "assert not hasattr(normkit, 'nothing') and not trainer()\n"
        "normkit.Sequential; assert trainer()\n"
        "assert normkit.Sequential is normkit.models.Sequential and normkit.Input is normkit.layers.Input\n"
        "print('lazy')"
    )
    assert run(source).strip() == "lazy"


def test_python_adds_no_second_hint() -> None:
    command = [sys.executable, "-c", "import normkit; normkit.Sequental"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    last = text.strip().splitlines()[-1]
    assert last == "AttributeError: module 'normkit' has no attribute 'Sequental'; did you mean 'Sequential'?"


PROGRAM = """
import normkit as nk
import normkit

model: nk.Sequential = nk.Sequential([nk.Input((4,)), nk.layers.Dense(3, activation="relu")])
model.compile(nk.optimizers.Adam(), nk.losses.MeanSquaredError(), metrics=[nk.metrics.AUC()])
nk.callbacks.EarlyStopping(patience=3)
normkit.utils.set_random_seed(0)
reveal_type(nk.Sequential)
"""
MISSPELT = {
    "nk.Sequental": 'Module has no attribute "Sequental"',
    "nk.layers.Dnese": 'Module has no attribute "Dnese"',
    "nk.layrs": 'Module has no attribute "layrs"',
    "nk.importlib": 'has no attribute "importlib"',
    "nk.TYPE_CHECKING": 'has no attribute "TYPE_CHECKING"',
    "nk.typing": 'has no attribute "typing"',
    "nk.losses.Any": 'does not explicitly export attribute "Any"',
    "nk.utils.np": 'does not explicitly export attribute "np"',
    "nk.layers.show_public_names": 'does not explicitly export attribute "show_public_names"',
    "nk.layers.Dense(3, activtion='relu')": 'Unexpected keyword argument "activtion"',
    "nk.Sequential([]).fit(3, epoch=3)": '"epoch"',
}


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_type_checker_knows_the_names_and_no_others(tmp_path: Path) -> None:
    """Of one program, as mypy takes a while; each misspelt name is on a line of its own."""
    lines = [*PROGRAM.splitlines(), *MISSPELT]
    (tmp_path / "program.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "program.py"]
    environment = {"PATH": "", "HOME": str(tmp_path)}
    if PACKAGE.parent.name != "site-packages":  # mypy refuses the folder of what is installed
        environment["MYPYPATH"] = str(PACKAGE.parent)
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    said = {
        int(line.split(":")[1]): line
        for line in result.stdout.splitlines()
        if re.match(r"program\.py:\d+: error:", line)
    }
    right = len(PROGRAM.splitlines())
    assert not [text for number, text in said.items() if number <= right], result.stdout
    assert "def (layers: " in result.stdout  # Sequential is itself, not Any
    for number, (source, message) in enumerate(MISSPELT.items(), right + 1):
        assert message in said.get(number, ""), (source, result.stdout)


def test_what_a_type_checker_is_told_is_what_there_is() -> None:
    """Without a type checker: the imports for checkers are all that is imported later, and no module-level
    `__getattr__` is in sight, for which a checker would take every misspelt name."""
    text = (PACKAGE / "__init__.py").read_text()
    assert "def __getattr__" not in text
    assert "__getattr__ =" not in text
    told = text.partition("if _typing.TYPE_CHECKING:")[2].partition("__all__")[0]
    for name in nk._LAZY:
        assert f"{name},\n" in told or f"import {name}\n" in told, name
    for name in PUBLIC[1:]:
        assert "def __getattr__" not in Path(str(module(name).__file__)).read_text()


def fitted(**kwargs: Any) -> Any:
    model = nk.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    return model.fit(np.ones((4, 2)), np.ones((4, 1)), **kwargs)


MISTYPED: list[tuple[Callable[[], Any], str]] = [
    (lambda: optimizers.get("adma"), "no optimizer 'adma'; did you mean 'adam'? There are: sgd, "),
    (lambda: optimizers.get("SGDD"), "did you mean 'sgd'?"),
    (lambda: losses.get("mes"), "no loss 'mes'; did you mean 'mse'?"),
    (lambda: losses.get("sparse_categorical_crosentropy"), "did you mean 'sparse_categorical_crossentropy'?"),
    (lambda: metrics.get("acuracy"), "no metric 'acuracy'; did you mean 'accuracy'? There are: accuracy, "),
    (lambda: metrics.get("presicion"), "did you mean 'precision'?"),
    (lambda: nk.activations.get("rleu"), "no activation 'rleu'; did you mean 'relu'?"),
    (lambda: nk.initializers.get("he_nromal"), "did you mean 'he_normal'?"),
    (lambda: regularizers.get("l1+l2"), "no regularizer 'l1+l2'; did you mean 'l1_l2'?"),
    (lambda: schedules.get({"class_name": "CosinDecay", "config": {}}), "did you mean 'CosineDecay'?"),
    (lambda: layers.Dense(3, activation="sofmax"), "did you mean 'softmax'?"),
    (lambda: layers.Dense(3, kernel_initializer="zeroes"), "did you mean 'zeros'?"),
    (lambda: nk.Sequential([layers.Dense(1)]).get_layer("dens"), "no layer 'dens'; did you mean 'dense'?"),
    (lambda: nk.isa.use("basline"), "did you mean 'baseline'?"),
    (lambda: architecture._layer("gleu"), "no layer 'gleu'; did you mean 'gelu'?"),
    (lambda: architecture._layer("dropuot:0.5"), "did you mean 'dropout:RATE'?"),
    (lambda: callbacks.LambdaCallback(on_epoch_edn=print), "did you mean 'on_epoch_end'?"),
    (lambda: nk.Sequental, "module 'normkit' has no attribute 'Sequental'; did you mean 'Sequential'?"),
    (lambda: nk.layer_nrom, "did you mean 'layer_norm'?"),
    (lambda: layers.Dnese, "module 'normkit.layers' has no attribute 'Dnese'; did you mean 'Dense'?"),
    (lambda: nk.ops.btach_norm, "did you mean 'batch_norm'?"),
    (lambda: schedules.CosinDecay, "did you mean 'CosineDecay'?"),
    (lambda: layers.BatchNorm, "did you mean 'BatchNormalization'?"),
    (lambda: layers.LayerNorm, "did you mean 'LayerNormalization'?"),
    (lambda: layers.batch_normalisation, "did you mean 'BatchNormalization'?"),
    (lambda: layers.GroupNorm, "did you mean 'GroupNormalization'?"),
    (lambda: layers.layer_normalization, "did you mean 'LayerNormalization'?"),
    (lambda: layers.dense, "did you mean 'Dense'?"),
    (lambda: losses.get("sparse_crossentropy"), "did you mean 'sparse_categorical_crossentropy'?"),
    (lambda: losses.get("SparseCategorical"), "did you mean 'sparse_categorical_crossentropy'?"),
    (lambda: losses.mse, "did you mean 'MeanSquaredError'?"),
    (lambda: losses.mae, "did you mean 'MeanAbsoluteError'?"),
    (lambda: nk.models.load, "did you mean 'load_model'?"),
    (lambda: nk.models.save, "did you mean 'save_model'?"),
    (lambda: nk.models.sequential_, "did you mean 'Sequential'?"),
    (lambda: nk.Dense, "module 'normkit' has no attribute 'Dense'; did you mean 'normkit.layers.Dense'?"),
    (lambda: nk.Dnese, "did you mean 'normkit.layers.Dense'?"),
    (lambda: nk.Adam, "did you mean 'normkit.optimizers.Adam'?"),
    (lambda: nk.BatchNormalization, "did you mean 'normkit.layers.BatchNormalization'?"),
    (lambda: nk.EarlyStopping, "did you mean 'normkit.callbacks.EarlyStopping'?"),
    (lambda: nk.load_model, "did you mean 'normkit.models.load_model'?"),
    (lambda: nk.to_categorical, "did you mean 'normkit.utils.to_categorical'?"),
    (lambda: nk.MiniBatches, "did you mean 'normkit.data.MiniBatches'?"),
]
KEYWORDS: list[tuple[Callable[[], Any], str]] = [
    (
        lambda: layers.Dense(64, activtion="relu"),
        "Dense: unexpected keyword argument 'activtion'; did you mean 'activation'?",
    ),
    (lambda: layers.BatchNormalization(momentun=0.9), "did you mean 'momentum'?"),
    (lambda: layers.BatchNormalization(nmae="bn"), "BatchNormalization: unexpected keyword argument 'nmae'"),
    (lambda: layers.Dropout(0.5, sed=3), "did you mean 'seed'?"),
    (lambda: layers.Flatten(nam="x"), "did you mean 'name'?"),
    (lambda: optimizers.Adam(learning_rte=0.1), "Adam: unexpected keyword argument 'learning_rte'; did"),
    (lambda: optimizers.Adam(clipnrom=0.1), "did you mean 'clipnorm'?"),
    (
        lambda: optimizers.Adam(lr=0.1),
        "Adam: unexpected keyword argument 'lr'; did you mean 'learning_rate'?",
    ),
    (lambda: schedules.CosineDecay(0.1, decay_step=3), "did you mean 'decay_steps'?"),
    (lambda: losses.Huber(dleta=1.0), "did you mean 'delta'?"),
    (lambda: metrics.AUC(num_treshold=3), "did you mean 'num_thresholds'?"),
    (lambda: nk.initializers.HeNormal(sed=3), "did you mean 'seed'?"),
    (lambda: regularizers.L1L2(l3=3), "L1L2: unexpected keyword argument 'l3'; there are: l1, l2"),
    (lambda: callbacks.EarlyStopping(patiance=3), "did you mean 'patience'?"),
    (lambda: data.MiniBatches(np.ones(3), batchsize=3), "did you mean 'batch_size'?"),
    (lambda: data.load(divsor=3), "did you mean 'divisor'?"),
    (lambda: nk.Sequential(sed=3), "Sequential: unexpected keyword argument 'sed'; did you mean 'seed'?"),
    (lambda: nk.Sequential().compile("adam", los="mse"), "did you mean 'loss'?"),
    (lambda: fitted(epoch=3), "fit: unexpected keyword argument 'epoch'; did you mean 'epochs'?"),
    (lambda: nk.Sequential().evaluate(3, batchsize=3), "did you mean 'batch_size'?"),
    (lambda: nk.Sequential().predict(3, verbos=3), "did you mean 'verbose'?"),
    (lambda: layers.Dense(64, quantum=True), "there are: activation, bias_initializer, "),
]


@pytest.mark.parametrize(("call", "message"), MISTYPED)
def test_a_mistyped_name(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((ValueError, AttributeError, TypeError)) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize(("call", "message"), KEYWORDS)
def test_a_mistyped_keyword(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert message in str(caught.value)


def test_a_mistyped_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("size,label\n1,2\n")
    with pytest.raises(
        ValueError, match="no column 'lable'; columns are size, label; did you mean 'label'\\?"
    ):
        data.CsvFile(tmp_path / "t.csv", y="lable")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["images"] = np.ones((3, 2))
    with pytest.raises(ValueError, match="no dataset 'image', but images; did you mean 'images'\\?"):
        data.Hdf5File(tmp_path / "t.h5", "image")


def test_a_mistyped_monitor() -> None:
    stopping = callbacks.EarlyStopping(monitor="los")
    with pytest.warns(UserWarning, match="monitor='los' is not in the logs, .*; did you mean 'loss'\\?"):
        fitted(callbacks=[stopping], verbose=0)


def test_a_hint_imports_nothing() -> None:
    run(
        "import sys, normkit\n"
        "try: normkit.Dense\n"
        "except AttributeError as error: assert 'normkit.layers.Dense' in str(error)\n"
        "assert 'normkit.layers' not in sys.modules"
    )


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in WITHOUT_NAMES])
def test_each_public_name_is_found_without_capitals_and_by_its_beginning(name: str) -> None:
    names = module(name).__all__
    for public in names:
        if public.startswith("_"):
            continue
        alike = {other for other in names if other.lower().replace("_", "").startswith(public.lower()[:5])}
        for typed in (public.lower().replace("_", ""), public.swapcase(), f"{public}_", public[:-1]):
            hint = did_you_mean(typed, names)
            assert typed in names or hint, (public, typed)
            if len(alike) == 1 and hint and typed != public[:-1]:
                assert public in hint, (public, typed, hint)


def test_nothing_is_meant_by_what_is_far_from_all() -> None:
    assert did_you_mean("quantum", ["adam", "sgd"]) == ""
    assert did_you_mean("a" * 10**6, ["a" * 99]) == ""
    assert did_you_mean(3, ["adam"]) == ""
    with pytest.raises(ValueError, match=r"no optimizer 'quantum'; there are: sgd, adam, "):
        optimizers.get("quantum")


def test_subclasses_of_users_get_hints_and_keep_their_signatures() -> None:
    class Mine(layers.Dense):
        def __init__(self, units: int, strength: float = 1.0, **kwargs: Any) -> None:
            super().__init__(units, **kwargs)
            self.strength = strength

    assert Mine(3, strength=2.0, activation="relu").units == 3
    with pytest.raises(
        TypeError, match="Mine: unexpected keyword argument 'strenght'; did you mean 'strength'"
    ):
        Mine(3, strenght=2.0)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'units'"):
        layers.Dense()


def test_subclasses_whose_init_is_not_pythons() -> None:
    class Plain(callbacks.Callback):
        __init__ = object.__init__

    class Counting(callbacks.Callback, dict):  # type: ignore[type-arg]
        pass

    assert repr(Plain()) == "Plain()"
    assert repr(Counting(a=1)) == "Counting()"
    with pytest.raises(TypeError):
        Plain(patience=3)
