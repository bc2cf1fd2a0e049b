"""Records iREPA's measures of feature maps: python -m recorder.irepa_measures CHECKOUT OUT. They use no random numbers."""

import importlib
import sys
from pathlib import Path

from given import float64, recording
from given import transformer_cases as cases

from recorder.checkouts import IREPA


def main(checkout: Path, out: Path) -> None:
    sys.path.insert(0, str(checkout))
    measures = importlib.import_module("metrics.spatial_metrics").METRICS_REGISTRY
    with float64.everywhere():
        features = cases.feature_maps()
        tokens = features.flatten(2).mT
        values = {name: measures[name](tokens, *features.shape[-2:]).tolist() for name in ("lds", "cds", "rmsc")}
    command = "make parity REFERENCE=path: python -m recorder.irepa_measures"
    recording.write(out, {**IREPA.source, "command": command, "values": values})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
