"""The configuration of a run: checked settings, and their JSON file."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tfp_flowvae.errors import UserError, nearest
from tfp_flowvae.flows.spec import check_event_size
from tfp_flowvae.likelihoods import LIKELIHOODS
from tfp_flowvae.runs.checks import check_together
from tfp_flowvae.runs.flow_checks import check_image_flow, check_model
from tfp_flowvae.runs.options import check_value
from tfp_flowvae.runs.plugins import import_plugin
from tfp_flowvae.runs.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """All settings that determine the numbers of a run, and no others.

    Two runs of one config on one machine give the same metrics, bit for bit. Where a run is written
    and how much it prints is in `Output`.

    Raises:
      UserError: If a value is not allowed or two values conflict.

    Example:
      >>> config = fv.TrainConfig(dataset="digits", flow="iaf:2", latent_dim=8)
      >>> config.binarization, config.batch_size
      ('dynamic', 100)
      >>> fv.TrainConfig.from_mapping({"dataset": "digits", "epochs": 5}, source="mine").epochs
      5
    """

    def __post_init__(self) -> None:
        if isinstance(self.plugin, str):
            import_plugin(self.plugin)
        kinds = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check_value(field, getattr(self, field.name), kinds[field.name])
        check_model(self)
        if self.flow is None:
            object.__setattr__(self, "flow", "glow" if self.model == "flow" else "iaf")
        if self.binarization is None:
            grey = self.model == "flow" or LIKELIHOODS[self.likelihood].takes_levels
            # config.json must tell what the run did, so the default is written into the field.
            object.__setattr__(self, "binarization", "none" if grey else "dynamic")
        if self.model == "flow":
            check_image_flow(self)
            return
        if self.warmup_epochs is None:
            # The weight rises in half of each cycle, and the cycles fill the training (Fu et al.
            # 2019).
            cyclic = max(1, self.epochs // (2 * self.cycles))
            object.__setattr__(self, "warmup_epochs", cyclic if self.warmup == "cyclic" else 20)
        for spec in (self.posterior_spec, self.prior_spec):
            check_event_size(spec.flows, self.latent_dim)
        check_together(self)

    def to_json(self) -> str:
        """Returns the config as JSON, with one field per line."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str) -> Self:
        """Returns the config with these values; the other fields have their defaults.

        Args:
          values: Values by field name.
          source: Where the values come from, for error messages.

        Raises:
          UserError: If a field is unknown or a value is not allowed.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise UserError(
                    f"Unknown field {name!r} in {source}; known fields are {', '.join(names)}."
                    f"{nearest(name, names)}"
                )
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**tuples)

    @classmethod
    def from_file(cls, path: str | Path, **overrides: Any) -> Self:
        """Returns the config in a JSON file, with some fields replaced.

        Raises:
          UserError: If the file cannot be read, is not a JSON object, or holds a field or value
            that is not allowed.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"Cannot read the config file {str(path)!r}: {error.strerror}."
            ) from error
        except ValueError as error:
            raise UserError(f"The config file {str(path)!r} is not JSON: {error}.") from error
        if not isinstance(values, dict):
            raise UserError(
                f"The config file {str(path)!r} must hold a JSON object of fields, like the "
                f"config.json of a run. Received: a {type(values).__name__}."
            )
        return cls.from_mapping({**values, **overrides}, source=f"the config file {str(path)!r}")
