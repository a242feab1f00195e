"""Makes `keras-3.15.keras`, which tests/interchange/test_interchange_keras.py reads: KERAS_BACKEND=torch python make_keras_file.py."""

from pathlib import Path

import keras
import numpy as np
from keras import layers

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.001), name="first"),
        layers.BatchNormalization(momentum=0.9, epsilon=1e-4),
        layers.ReLU(),
        layers.Dropout(0.1),
        layers.Dense(2, activation="softmax", kernel_initializer="he_normal"),
    ]
)
rng = np.random.default_rng(0)
x = rng.normal(3.0, 2.0, (64, 3)).astype(np.float32)
model.compile("sgd", "sparse_categorical_crossentropy")
model.fit(x, rng.integers(0, 2, 64), epochs=5, verbose=0)
model.save(Path(__file__).with_name("keras-3.15.keras"))
print(np.array2string(model.predict(x[:4], verbose=0), precision=9))
print(model.layers[1].moving_mean.numpy(), model.layers[1].moving_variance.numpy())
