"""One run of a study in a process of its own: ``python -m boresight.run.job RUN``.

Trains the run whose ``config.yaml`` lies in RUN (or continues it), then judges it on its test frames.
"""

from __future__ import annotations

import sys

from boresight.core.errors import Failure, Stopped, UserError


def main(root: str) -> int:
    """Train and judge; exit status as on the command line."""
    from boresight.run.record import RunFolder
    from boresight.run.systems import read_settings

    try:
        run = RunFolder.existing(root)
        settings = read_settings(run.config)
        from boresight.run.evaluate import evaluate_run
        from boresight.run.recipes import recipe
        from boresight.run.train import train

        train(recipe(settings.detector), settings, run.root)
        evaluate_run(run)
    except (UserError, Failure, Stopped) as error:
        print(f"boresight: {error}", file=sys.stderr)
        return 130 if isinstance(error, Stopped) else 1 if isinstance(error, Failure) else 2
    except KeyboardInterrupt:
        print("boresight: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
