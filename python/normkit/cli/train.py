"""`normkit train`: train a classifier, show how it goes, and leave a folder with the model and its history."""

from __future__ import annotations

import argparse
import math
import os
import sys
import textwrap
import warnings
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from normkit import optimizers
from normkit.callbacks import BackupAndRestore, Callback
from normkit.callbacks.checkpoint import BackupWarning, OtherTrainingError
from normkit.cli import architecture
from normkit.cli.arguments import Commands, add_data, count, folder, path, positive, seed, share
from normkit.cli.outputs import Results, locked, naming, new_folder
from normkit.cli.progress import EpochBar, EpochTable, has_terminal
from normkit.cli.report import draw_curves, write_history
from normkit.cli.saved import LOSS, METRICS, MODEL_FILE, RECORD_FILE, as_rows, division, record_of
from normkit.data.dataset import Dataset
from normkit.data.files import DIGITS, load
from normkit.distributed import DataParallel, launched_ranks
from normkit.distributed.data_parallel import Distribution
from normkit.layers import Input
from normkit.models import Sequential

__all__ = ["add_parser", "run"]

EXIT_ERROR = 2

RUNS = Path("runs")

# Options of which a backup is told to be of others.
DECISIVE = (
    "layers",
    "batch_size",
    "optimizer",
    "lr",
    "last",
    "validation_split",
    "seed",
    "deterministic",
)


def add_parser(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a classifier and write the model, its history and a picture",
        description=(
            "Train a classifier on mini-batches. Without options: Dense(64) -> BatchNormalization -> "
            "Dense(10, softmax) on the digits, batches of 32, adam at 0.001, 5 epochs. "
            "Under mpiexec the ranks share every batch."
        ),
    )
    add_data(parser, DIGITS)
    option = parser.add_argument
    option(
        "--layers",
        type=architecture.parse,
        metavar="LIST",
        help=(
            "a number of units, bn, ln, "
            + ", ".join(architecture.ACTIVATIONS)
            + " or dropout:RATE, separated by commas; the last is the number of classes and gets softmax; "
            "default: 64,bn,CLASSES"
        ),
    )
    option("--batch-size", type=count, default=32, metavar="N", help="rows per mini-batch; default: 32")
    option("--epochs", type=count, default=5, metavar="N", help="passes over the data; default: 5")
    option("--optimizer", choices=optimizers.registry.names, default="adam", help="default: adam")
    option("--lr", type=positive, metavar="RATE", help="learning rate; default: that of the optimizer")
    option(
        "--last",
        choices=("keep", "drop", "merge", "spread"),
        default="keep",
        help="a last mini-batch that is too small: keep it, drop it, merge it with the one before, or spread its rows over all; default: keep",
    )
    option(
        "--validation-split",
        type=share,
        metavar="SHARE",
        help="share of the rows of digits or of a .csv that validates; default: 0.2",
    )
    option(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of the split, the weights and the order; default: 0",
    )
    option(
        "--backup",
        type=path,
        metavar="FOLDER",
        help=(
            "keep a checkpoint there, from which the same command goes on, to the bit, after Ctrl-C, a kill or a crash; "
            "deleted when the results are written; not in the folder of --out"
        ),
    )
    option(
        "--out",
        type=folder,
        metavar="FOLDER",
        help="new or empty folder for the results; default: runs/NAME-NUMBER",
    )
    option(
        "--deterministic",
        action="store_true",
        help="the same bits at any number of ranks of mpiexec, up to 8, and with one process",
    )
    option("--quiet", action="store_true", help="print nothing but the folder")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, and write the run folder; after Ctrl-C with the epochs that were finished, or only the backup.

    Under a launcher of MPI every rank trains, and the first prints and writes.
    """
    shared = arguments.deterministic or launched_ranks() > 1
    distribution = DataParallel(deterministic=arguments.deterministic) if shared else Distribution()
    with distribution.guard():
        try:
            return _train(arguments, distribution)
        except Exception as error:
            if distribution.is_first or not distribution.is_shared(error):
                raise
            return EXIT_ERROR  # the first rank tells of it


def _train(arguments: argparse.Namespace, distribution: Distribution) -> int:
    with distribution.agreement():
        data = _data(arguments)
        model = _model(arguments, data, distribution)
    title = f"{data.name}: {architecture.describe(model.layers)}"
    options = {name: getattr(arguments, name) for name in DECISIVE}
    table = EpochTable(arguments.quiet or not distribution.is_first, options)
    backup = None
    if arguments.backup is not None:
        backup = BackupAndRestore(arguments.backup, delete_checkpoint=False)
    record = record_of(arguments, data)
    results: Results | None = None
    with ExitStack() as at_end:
        with distribution.agreement():
            if distribution.is_first:
                _check_backup(arguments.backup, arguments.out)
                results = at_end.enter_context(new_folder(arguments.out, RUNS / data.name, record))
                if arguments.backup is not None:  # to go before the mark by which a killed command is known
                    at_end.enter_context(locked(arguments.backup))
        are_made = distribution.any(results is not None and results.are_made)
        if not are_made:
            if results is not None and not arguments.quiet:
                print(_describe(arguments, data, model))
            _fit(model, data, arguments, table, backup)
        if results is None:
            return 0
        done = len(table.rows)
        if not are_made:
            with naming(results.folder):
                _write(results.shop, model, table, title)
                (results.shop / RECORD_FILE).write_text(record, encoding="utf-8")
                results.deliver(partial=done < arguments.epochs)
        if backup is not None:
            at_end.callback(backup.delete)
        out = results.folder
        if not are_made and done < arguments.epochs:
            raise KeyboardInterrupt(f"interrupted in epoch {done + 1}, wrote {out} after epoch {done}")
        print(out if arguments.quiet else f"wrote {out}: {', '.join(results.names)}", flush=True)
    return 0


def _check_backup(backup: Path | None, out: Path | None) -> None:
    """Raise ValueError if a backup would be among the results."""
    if backup is None or out is None:
        return
    folder, place = Path(os.path.realpath(backup)), Path(os.path.realpath(out))
    if place in (folder, *folder.parents):
        raise ValueError(
            f"--backup {backup} is in --out {out}, which is for results alone; choose a folder elsewhere for one of them"
        )


def _data(arguments: argparse.Namespace) -> Dataset:
    data = load(arguments.data or DIGITS, validation_split=arguments.validation_split, seed=arguments.seed)
    data = data._replace(x_train=as_rows(data.x_train), x_test=as_rows(data.x_test))
    labels = np.unique(np.concatenate([data.y_train, data.y_test]))
    if len(labels) < 2:
        raise ValueError(
            f"{arguments.data or DIGITS}: every label is {labels[0]}; a classifier needs two classes or more"
        )
    return data


def _model(arguments: argparse.Namespace, data: Dataset, distribution: Distribution) -> Sequential:
    tokens = arguments.layers or architecture.default(data.num_classes)
    layers = architecture.build(tokens, data.num_classes)
    try:
        model = Sequential([Input(data.x_train.shape[1:]), *layers], seed=arguments.seed)
    except MemoryError:
        raise MemoryError(
            f"--layers {','.join(tokens)[:60]}: its weights need more memory than there is"
        ) from None
    settings = {} if arguments.lr is None else {"learning_rate": arguments.lr}
    optimizer = optimizers.get({"class_name": arguments.optimizer, "config": settings})
    model.compile(optimizer, LOSS, metrics=METRICS, distribution=distribution)
    return model


def _describe(arguments: argparse.Namespace, data: Dataset, model: Sequential) -> str:
    rows = f"{len(data.x_train)} training and {len(data.x_test)} validation rows"
    rate = f"learning rate {model.optimizer.learning_rate:g}"
    ranks = model.distribution.comm.size
    lines = (
        f"{data.name}: {rows}, {data.x_train.shape[1]} features, {data.num_classes} classes",
        division(data.divisor),
        f"{architecture.describe(model.layers)}: {model.count_params()} parameters",
        f"{arguments.optimizer}, {rate}, batches of {arguments.batch_size}, seed {arguments.seed}",
        "" if ranks == 1 else f"{ranks} ranks share every batch",
    )
    return "\n".join(textwrap.fill(line, 79, subsequent_indent="  ") for line in lines if line) + "\n"


def _fit(
    model: Sequential,
    data: Dataset,
    arguments: argparse.Namespace,
    table: EpochTable,
    backup: BackupAndRestore | None,
) -> None:
    """Train. After Ctrl-C the model is that of the last finished epoch; without one, or with a backup, it goes on."""
    bar = None if arguments.quiet or not model.is_first_rank else _bar()
    callbacks: list[Callback] = [callback for callback in (bar, table, backup) if callback is not None]
    try:
        with warnings.catch_warnings():
            # What goes on with other settings than the record of the run says is not the same training.
            warnings.simplefilter("error", BackupWarning)
            model.fit(
                data.x_train,
                data.y_train,
                batch_size=arguments.batch_size,
                epochs=arguments.epochs,
                verbose=0,
                callbacks=callbacks,
                validation_data=(data.x_test, data.y_test),
                last=arguments.last,
            )
    except (BackupWarning, OtherTrainingError) as error:
        assert backup is not None
        raise ValueError(_refusal(error, table, backup)) from error
    except KeyboardInterrupt:
        if backup is not None and backup.files:
            raise KeyboardInterrupt(
                f"interrupted, the same command goes on from {backup.backup_dir}"
            ) from None
        if not table.rows:
            raise
        model.set_weights(table.weights)
    finally:
        if bar is not None:
            bar.close()


def _refusal(error: BackupWarning | OtherTrainingError, table: EpochTable, backup: BackupAndRestore) -> str:
    """Tell why a backup is not gone on from: by the options if these are others, or else as `fit` tells it."""
    file = backup.files[0]
    told = table.other_options(file)
    if told:
        difference = f"{file}: {told}"
    elif isinstance(error, BackupWarning):
        difference = error.difference
    else:
        return str(error)
    return f"{difference}; pass the same options, or remove {backup.backup_dir} to begin anew"


def _bar() -> EpochBar | None:
    if not has_terminal():
        return None
    try:
        return EpochBar()
    except ModuleNotFoundError:
        print(
            "normkit: no progress bar: tqdm is not installed (pip install 'normkit[train]')", file=sys.stderr
        )
        return None


def _write(folder: Path, model: Sequential, table: EpochTable, title: str) -> None:
    model.save(folder / MODEL_FILE)
    write_history(folder / "history.csv", table.rows)
    try:
        draw_curves(folder / "curves.png", table.rows, title)
    except ModuleNotFoundError:
        print(
            "normkit: no picture: matplotlib is not installed (pip install 'normkit[train]')", file=sys.stderr
        )
    if not all(map(math.isfinite, table.rows[-1].values())):
        print("normkit: the loss is not finite any more: a smaller --lr may help", file=sys.stderr)
