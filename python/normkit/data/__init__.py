"""Data for training: mini-batches of arrays, files and streams, and labelled data that fit into memory."""

from normkit._names import show_public_names
from normkit.data.arrow import ArrowFiles
from normkit.data.checks import BadDataWarning
from normkit.data.combined import Files
from normkit.data.csv_file import CsvFile
from normkit.data.files import load, load_digits
from normkit.data.flat_files import IdxFile, NpyFile
from normkit.data.hdf5 import Hdf5File
from normkit.data.minibatches import MiniBatches
from normkit.data.source import Source
from normkit.data.streams import Stream

__all__ = [
    "ArrowFiles",
    "BadDataWarning",
    "CsvFile",
    "Files",
    "Hdf5File",
    "IdxFile",
    "MiniBatches",
    "NpyFile",
    "Source",
    "Stream",
    "load",
    "load_digits",
]

show_public_names(__name__)
