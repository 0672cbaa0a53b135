"""Where and how a run is written and computed: the settings that do not change its numbers."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path

from tfp_flowvae.errors import UserError
from tfp_flowvae.runs.options import flag_of


@dataclasses.dataclass(frozen=True)
class Output:
    """Where and how a run is written and computed.

    Attributes:
      path: The folder to write, or None for a new numbered folder under `saved_models/`.
      overwrite: Whether the run may replace the content of the folder.
      resume: Whether to continue the run in the folder.
      checkpoint_steps: Steps between checkpoints within an epoch; 0 for none within an epoch.
      verbose: 0 to print the summary only, 1 to print also the metrics of each epoch with a
        progress bar on a terminal, 2 to print them without a progress bar.
      tensorboard: Whether to write TensorBoard logs into `tensorboard/` in the folder.
      no_report: Whether to leave out report.html.
      strategy: The name of a `tf.distribute` strategy in `STRATEGIES`.
      stream: The folder of the image cache on disk; None to hold the images in memory.

    Raises:
      UserError: If `checkpoint_steps` is negative.
    """

    path: Path | None = None
    overwrite: bool = False
    resume: bool = False
    checkpoint_steps: int = 0
    verbose: int = 1
    tensorboard: bool = False
    no_report: bool = False
    strategy: str = "none"
    stream: Path | None = None

    def __post_init__(self) -> None:
        if self.checkpoint_steps < 0:
            raise UserError(
                f"--checkpoint-steps must be at least 0. Received: {self.checkpoint_steps}."
            )

    def resume_command(self, path: Path) -> str:
        """Returns the shell command that resumes the run in a folder with the same output."""
        words = [*_train_command(), "--resume", str(path)]
        for field in dataclasses.fields(self):
            flag, value = flag_of(field.name), getattr(self, field.name)
            if value != field.default and field.name not in ("path", "overwrite", "resume"):
                words += [flag] if value is True else [flag, str(value)]
        return shlex.join(words)


def python() -> str:
    """Returns the path of the running Python, relative to the current folder if it is inside."""
    path = Path(sys.executable)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _train_command() -> list[str]:
    """The words of the user's command that come before the options."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return [python(), "-m", "tfp_flowvae", "train"]
    if program.suffix == ".py":
        return [python(), sys.argv[0]]
    return [program.name, "train"]
