"""Models and weights from and to other libraries: Keras, torch, safetensors, ONNX.

Each function imports what it needs when it is called (``pip install 'normkit[interchange]'``); none imports Keras or torch.
"""

from normkit._names import show_public_names
from normkit.interchange.keras_files import load_keras, load_keras_weights, save_keras, save_keras_weights
from normkit.interchange.onnx_export import export_onnx
from normkit.interchange.tensors import load_safetensors, save_safetensors
from normkit.interchange.torch_modules import from_torch_module, to_torch_module
from normkit.interchange.torch_state import from_torch, to_torch

__all__ = [
    "export_onnx",
    "from_torch",
    "from_torch_module",
    "load_keras",
    "load_keras_weights",
    "load_safetensors",
    "save_keras",
    "save_keras_weights",
    "save_safetensors",
    "to_torch",
    "to_torch_module",
]

show_public_names(__name__)
