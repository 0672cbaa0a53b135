from __future__ import annotations

import keras

from tfp_flowvae.networks.building import ConfiguredLayer


@keras.saving.register_keras_serializable(package="tests")
class Sized(ConfiguredLayer):
    def __init__(self, size, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.factor = size, factor


@keras.saving.register_keras_serializable(package="tests")
class Named(Sized):
    def __init__(self, word="some", hidden_from_the_config=1, **kwargs):
        super().__init__(**kwargs)
        self.word = word


def test_the_config_holds_the_arguments_that_are_attributes(mixed_bfloat16):
    layer = Named("other", size=3, name="mine")
    config = layer.get_config()
    assert config.pop("dtype")["config"] == {"name": "mixed_bfloat16"}
    assert config.pop("name") == "mine"
    assert config == {"trainable": True, "size": 3, "factor": 2.0, "word": "other"}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is Named
    assert again.get_config() == layer.get_config()
